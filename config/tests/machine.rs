//! What depends on the machine: addresses and images.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;

use weir_config::{Certificate, ListenAddress, Machine, can_bind, check, image_exists};

/// This machine, with two embedded images.
struct This;

impl Machine for This {
    fn address(&self, address: &ListenAddress) -> Result<(), String> {
        address.ip().map_or(Ok(()), can_bind)
    }

    fn image(&self, image: &str) -> Result<(), String> {
        image_exists(image, &["hello", "echo"])
    }

    fn certificate(&self, files: &Certificate) -> Result<(), String> {
        if files.key.ends_with("key.pem") { Ok(()) } else { Err(format!("{} is bad", files.key.display())) }
    }

    fn client_ca(&self, file: &Path) -> Result<(), String> {
        Err(format!("{} is bad", file.display()))
    }
}

/// The errors of a text, without their positions.
fn errors(text: &str) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), text).expect("write");
    let Err(weir_config::LoadError::Invalid(errors)) = check(file.path(), &This) else { return Vec::new() };
    errors.as_slice().iter().map(|error| format!("{}: {}", error.key, error.message)).collect()
}

#[test]
fn addresses_that_cannot_be_bound_are_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    let taken = taken.local_addr().map(|address| (taken, address)).expect("bound");
    let text = format!(
        "[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '{}'\n[admin]\naddress = '203.0.113.7:0'\n",
        taken.1
    );
    assert_eq!(
        errors(&text),
        [
            format!("listener[1].address: {} is in use", taken.1),
            "admin.address: 203.0.113.7:0 is not an address of this machine".to_owned(),
        ]
    );
}

#[test]
fn addresses_are_let_go_of() {
    // A loopback address of this process alone: nobody else takes the port in between.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let free = TcpListener::bind((Ipv4Addr::new(127, high | 0x80, middle, low), 0));
    let free = free.and_then(|listener| listener.local_addr()).expect("bind a free port");
    let text = format!("[[listener]]\naddress = '{free}'\n");
    let nothing: [&str; 0] = [];
    assert_eq!(errors(&text), nothing);
    assert_eq!(errors(&text), nothing);
}

#[test]
fn images_that_are_not_there_are_reported() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("image"), "").expect("write");
    symlink("image", path("link")).expect("link");
    let pool = |name: &str, image: &str| format!("[pool.{name}]\nimage = '{image}'\n");
    let text = [
        "[[listener]]\naddress = '127.0.0.1:0'\n".to_owned(),
        pool("a-embedded", "hello"),
        pool("b-file", &path("image")),
        pool("c-link", &path("link")),
        pool("d-missing", &path("missing")),
        pool("e-directory", &path("")),
        pool("f-misspelt", "helo"),
        pool("g-below-a-file", &path("image/x")),
    ];
    assert_eq!(
        errors(&text.concat()),
        [
            format!(r#"pool.d-missing.image: {:?} is neither a file nor an embedded image"#, path("missing")),
            format!(r#"pool.e-directory.image: {:?} is no regular file"#, path("")),
            r#"pool.f-misspelt.image: "helo" is neither a file nor an embedded image, did you mean "hello"?"#
                .to_owned(),
            format!(
                r#"pool.g-below-a-file.image: {:?} cannot be read: Not a directory (os error 20)"#,
                path("image/x")
            ),
        ]
    );
}

#[test]
fn mistakes_of_the_text_and_of_the_machine_are_reported_together() {
    let text = "[[listener]]\naddress = '203.0.113.7:0'\n[host]\nmax_vm = 3\n[pool.p]\nimage = 'helo'\nport = 70000\n";
    let keys: Vec<String> =
        errors(text).iter().filter_map(|error| error.split(": ").next().map(str::to_owned)).collect();
    assert_eq!(keys, ["listener[0].address", "host.max_vm", "pool.p.image", "pool.p.port"]);
}

#[test]
fn certificates_that_cannot_be_used_are_reported() {
    let listener = |port: u16, tls: &str| format!("[[listener]]\naddress = '127.0.0.1:{port}'\n{tls}\n");
    let good = "certificate = 'c.pem'\nkey = 'key.pem'";
    let bad = "certificate = 'c.pem'\nkey = 'other.pem'";
    let text = format!(
        "{}{}",
        listener(0, "client_ca = 'ca.pem'\ntls = { certificate = 'c.pem', key = 'mine.pem' }"),
        listener(0, &format!("[[listener.tls]]\n{good}\n[[listener.tls]]\n{bad}")),
    );
    assert_eq!(
        errors(&text),
        [
            "listener[0].client_ca: ca.pem is bad".to_owned(),
            "listener[0].tls: mine.pem is bad".to_owned(),
            "listener[1].tls[1]: other.pem is bad".to_owned(),
        ]
    );
}
