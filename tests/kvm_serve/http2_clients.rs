//! HTTP/2 as nghttp2's clients speak it, over TLS and in plain text.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::external::old_site;
use crate::secure::certificate;
use crate::support::Weir;

/// Requests of one run of h2load.
const REQUESTS: u32 = 200;

/// A weir that listens with TLS and without, each with HTTP/2, and where: as URLs begin.
fn serving(directory: &std::path::Path) -> (Weir, [String; 2]) {
    let (server, tls) = (old_site(), certificate(directory, "a.example"));
    let weir = Weir::start(&format!(
        "[[listener]]\naddress = '127.0.0.1:0'\n{tls}\
         [[listener]]\naddress = '127.0.0.1:0'\nhttp2 = true\n\
         [admin]\naddress = '127.0.0.1:0'\n\
         [pool.old]\nkind = 'external'\naddresses = ['{server}']\n\
         [[route]]\nname = 'old'\npath = '/'\npool = 'old'\n"
    ));
    let line = weir.wait_for("its second listener", |line| line["fields"]["key"] == "listener[1].address");
    let plain: SocketAddr =
        line["fields"]["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let origins = [format!("https://{}", weir.http), format!("http://{plain}")];
    (weir, origins)
}

/// What a client says, which must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let output = command.args(["8", program]).args(arguments).stdin(Stdio::null()).output().expect("run it");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn nghttp_gets_several_answers_on_one_connection() {
    let directory = tempfile::tempdir().expect("make a directory");
    let (mut weir, origins) = serving(directory.path());
    for (origin, negotiated) in origins.iter().zip([true, false]) {
        let urls = ["/a", "/b", "/c"].map(|path| format!("{origin}{path}"));
        let said = run("nghttp", &["-v", "-y", "--no-dep", &urls[0], &urls[1], &urls[2]]);
        assert_eq!(said.contains("The negotiated protocol: h2"), negotiated, "{said}");
        assert_eq!(said.matches(":status: 200").count(), 3, "{said}");
        assert_eq!(said.matches("old site").count(), 3, "{said}");
        for _ in 0..3 {
            assert_eq!(weir.access_line()["protocol"], "HTTP/2.0");
        }
    }
}

#[test]
fn h2load_is_answered_on_many_streams_at_once() {
    let directory = tempfile::tempdir().expect("make a directory");
    let (weir, origins) = serving(directory.path());
    for (origin, count) in origins.iter().zip(1..) {
        let requests = REQUESTS.to_string();
        let said = run("h2load", &["-n", &requests, "-c", "4", "-m", "20", &format!("{origin}/")]);
        let all = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all) && said.contains(&format!("status codes: {REQUESTS} 2xx")), "{said}");
        // Counted when the answer has ended, which its client may know before.
        weir.until("each is counted", || {
            weir.metric("weir_http_requests_total", "code=\"200\"") == f64::from(count * REQUESTS)
        });
    }
}
