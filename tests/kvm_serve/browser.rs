//! A browser (Chromium): a page, server-sent events and a WebSocket, over TLS.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::running::Running;
use crate::secure::certificate;
use crate::support::Weir;

/// What the browser runs, and says what came of it.
const PAGE: &str = include_str!("browser/page.html");
/// What the page asks for.
const SITE: &str = include_str!("browser/site.py");

/// The page at `https://a.example:PORT/`, when its script has run. The browser can reach nobody but 127.0.0.1.
fn dump_dom(directory: &Path, port: u16) -> String {
    let profile = directory.join("profile");
    let output = Command::new("timeout")
        .args(["30", "chromium", "--headless", "--dump-dom", "--disable-gpu", "--no-first-run"])
        // Chromium's own sandbox is not for root, as whom these tests run.
        .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-extensions", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
        .arg("--host-resolver-rules=MAP a.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--ignore-certificate-errors-spki-list={}", fingerprint(directory)))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("https://a.example:{port}/"))
        .env("HOME", directory)
        .stdin(Stdio::null())
        .output()
        .expect("run chromium");
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{dom}{}", String::from_utf8_lossy(&output.stderr));
    dom
}

/// Of the key of a.example's certificate, the one key besides the public ones that the browser is to trust.
fn fingerprint(directory: &Path) -> String {
    let script = "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform der \
                  | openssl dgst -sha256 -binary | openssl base64";
    let file = directory.join("a.example.pem");
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(file).output().expect("run openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn chromium_gets_the_page_its_events_and_its_socket() {
    let directory = tempfile::tempdir().expect("make a directory");
    let (_site, port) = Running::server(SITE, &[PAGE]);
    let tls = certificate(directory.path(), "a.example");
    let weir = Weir::start(&format!(
        "[[listener]]\naddress = '127.0.0.1:0'\n{tls}\
         [admin]\naddress = '127.0.0.1:0'\n\
         [pool.site]\nkind = 'external'\naddresses = ['127.0.0.1:{port}']\n\
         [[route]]\npath = '/'\npool = 'site'\n"
    ));
    let dom = dump_dom(directory.path(), weir.http.port());
    for seen in ["page: h2 SOME TEXT\n", "events: 1,2,3\n", "socket: one,two 1000 true\n"] {
        assert!(dom.contains(seen), "{dom}");
    }
}
