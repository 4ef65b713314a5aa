//! TLS and HTTP/2 with the clients that people have: curl and openssl.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Weir, one_pool};

/// A self-signed certificate for `name`: `NAME.pem` and `NAME.key` in `directory`.
pub(crate) fn certificate(directory: &Path, name: &str) -> String {
    let path = |end: &str| directory.join(format!("{name}.{end}")).display().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args([
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            &format!("subjectAltName=DNS:{name}"),
        ])
        .args(["-out", &path("pem"), "-keyout", &path("key")])
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    format!("[[listener.tls]]\ncertificate = \"{}\"\nkey = \"{}\"\n", path("pem"), path("key"))
}

/// What `openssl s_client` says of a handshake, and whether it succeeded.
fn s_client(address: SocketAddr, options: &[&str]) -> (bool, String) {
    let output = Command::new("timeout")
        .args(["8", "openssl", "s_client", "-connect", &address.to_string()])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("run openssl");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn serving(directory: &Path, min_version: &str) -> Weir {
    let tls = [certificate(directory, "a.example"), certificate(directory, "b.example")].concat();
    let listener = format!("address = \"127.0.0.1:0\"\nmin_version = \"{min_version}\"\n{tls}\n[admin]\n");
    let plain = one_pool("hello", "", "min = 1\nmax = 1\nidle_timeout = \"60s\"");
    Weir::start(&plain.replacen("address = \"127.0.0.1:0\"\n[admin]\n", &listener, 1))
}

/// Runs curl for `https://HOST/path`.
fn curl(weir: &Weir, host: &str, options: &[&str]) -> String {
    let (port, ip) = (weir.http.port(), weir.http.ip());
    let output = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "8", "--resolve", &format!("{host}:{port}:{ip}")])
        .args(options)
        .arg(format!("https://{host}:{port}/"))
        .output()
        .expect("run curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn curl_speaks_both_protocols_and_trusts_the_certificate_of_each_name() {
    let directory = tempfile::tempdir().expect("make a directory");
    let mut weir = serving(directory.path(), "1.2");
    for host in ["a.example", "b.example"] {
        let root = directory.path().join(format!("{host}.pem")).display().to_string();
        for (version, status) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK")] {
            let answer = curl(&weir, host, &["--cacert", &root, version]);
            assert!(answer.starts_with(status), "{answer}");
            assert_eq!(weir.access_line()["tls"], "TLSv1_3");
        }
    }
}

#[test]
fn openssl_gets_the_version_protocol_and_certificate_that_it_asks_for() {
    let directory = tempfile::tempdir().expect("make a directory");
    let weir = serving(directory.path(), "1.3");
    let (done, said) = s_client(weir.http, &["-servername", "b.example", "-alpn", "h2,http/1.1", "-tls1_3"]);
    assert!(done && said.contains("subject=CN = b.example") && said.contains("ALPN protocol: h2"), "{said}");
    let (done, said) = s_client(weir.http, &["-noservername", "-alpn", "http/1.1"]);
    assert!(done && said.contains("subject=CN = a.example"), "{said}");
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
    assert!(!s_client(weir.http, &["-tls1_2"]).0);
    assert!(!s_client(weir.http, &["-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"]).0);
}

/// One GET over the Unix socket `weir.sock`: what `openssl s_client` says of it. The session is taken from the file
/// `session` there, if that exists, and kept in it.
fn get_with_session(directory: &Path, version: &str) -> String {
    let (socket, session) = (directory.join("weir.sock"), directory.join("session"));
    let mut command = Command::new("timeout");
    command.args(["8", "openssl", "s_client", "-ign_eof", "-servername", "a.example", version]);
    command.arg("-unix").arg(socket).arg("-sess_out").arg(&session);
    if session.exists() {
        command.arg("-sess_in").arg(&session);
    }
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = piped.spawn().expect("run openssl");
    let request = b"GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    client.stdin.take().expect("piped").write_all(request).expect("ask");
    let output = client.wait_with_output().expect("wait for openssl");
    String::from_utf8_lossy(&output.stdout).to_lowercase()
}

#[test]
fn openssl_resumes_its_session_also_after_the_listener_was_changed() {
    let directory = tempfile::tempdir().expect("make a directory");
    let (path, tls) = (directory.path().display(), certificate(directory.path(), "a.example"));
    // A socket whose name stays, which a port that is the kernel's to choose does not.
    let config = |hsts: u32| {
        format!(
            "[[listener]]\naddress = '127.0.0.1:0'\n\
             [[listener]]\naddress = 'unix:{path}/weir.sock'\nhsts.max_age = '{hsts}s'\n{tls}\
             [admin]\naddress = '127.0.0.1:0'\n\
             [[route]]\nrespond = {{ body = 'served' }}\n"
        )
    };
    let weir = Weir::start(&config(1));
    for (version, hsts) in [("-tls1_3", 2), ("-tls1_2", 3)] {
        for sign in ["new, ", "reused, "] {
            let said = get_with_session(directory.path(), version);
            assert!(said.contains(sign) && said.contains("\r\n\r\nserved"), "{sign}{version}: {said}");
        }
        weir.configure(&config(hsts));
        weir.logged("configuration reloaded");
        weir.until("the changed listener answers", || {
            let said = get_with_session(directory.path(), version);
            assert!(said.contains("reused, "), "{version}: {said}");
            said.contains(&format!("max-age={hsts}\r\n"))
        });
        std::fs::remove_file(directory.path().join("session")).expect("forget the session");
    }
}
