//! Clients that have to say who they are.

use tempfile::TempDir;
use weir_config::model::Config;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, Response, ask};
use crate::site::{Site, line, ready, until};

/// Of `secret`, by bcrypt at its least cost and by SHA-512-crypt.
const USERS: &str = "ada:$2b$04$qEZtgg5L9Pm2qsqf9Qr79eA4yrk5nEphcYNaDxOeFAjP2qCs0Hpii
bob:$6$rounds=1000$IRgFJ1XWT2jt5vsp$Oz.l15akLflo7xoZgu9HcvMc6CFf/hTMmn/VOOlcmsVQMEprWrLJYGRglAuB7Qu2fAYkN.3414kxWeWje1xE7.
";

const ADA: &str = "authorization: Basic YWRhOnNlY3JldA==\r\n";
const BOB: &str = "authorization: Basic Ym9iOnNlY3JldA==\r\n";
const WRONG: &str = "authorization: Basic YWRhOlNlY3JldA==\r\n";

/// A route `r` that asks for passwords of a file, and one that does not.
fn with_passwords(directory: &TempDir, more: &str) -> Config {
    let path = directory.path().join("users");
    std::fs::write(&path, USERS).unwrap();
    routed(&format!(
        "[[route]]\nname = 'r'\npool = 'p'\n[route.auth.basic]\nfile = '{}'\nrealm = 'den'\n{more}\n\
         [[route]]\npath = '/open'\npool = 'p'\n[[route]]\npath = '/fixed'\nrespond = {{}}\n[route.auth.basic]\nfile = '{}'\n",
        path.display(),
        path.display()
    ))
}

async fn get(site: &Site, path: &str, fields: &str) -> Response {
    ask(site.address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_asked_for_before_a_vm_is_woken() {
    let backend = Backend::echo("vm").await;
    let directory = tempfile::tempdir().unwrap();
    let site = Site::start(with_passwords(&directory, ""), ready(backend.address)).await;
    for fields in ["", WRONG, "authorization: Bearer x\r\n", "authorization: Basic\r\n"] {
        let response = get(&site, "/", fields).await;
        assert_eq!(
            (response.status(), response.header("weir-error")),
            (401, Some("unauthorized")),
            "{fields}"
        );
        assert_eq!(response.header("www-authenticate"), Some(r#"Basic realm="den", charset="UTF-8""#));
        assert_eq!(get(&site, "/fixed", fields).await.status(), 401);
    }
    assert!(site.launcher.started().is_empty());
    let refused = r#"weir_filter_refusals_total{reason="unauthorized",route="r"}"#;
    assert_eq!(site.metric(refused), Some(4.0));
    assert_eq!(get(&site, "/fixed", BOB).await.status(), 200);
    let seen =
        get(&site, "/seen", &format!("{ADA}x-forwarded-user: root\r\nx_forwarded_user: root\r\n")).await;
    let seen = seen.text().to_lowercase();
    assert!(seen.contains("x-forwarded-user: ada\r\n"), "{seen}");
    assert!(!seen.contains("root") && !seen.contains("authorization"), "{seen}");
    // Elsewhere they are nobody's business.
    let open = get(&site, "/open", &format!("{ADA}x-forwarded-user: root\r\n")).await.text().to_lowercase();
    assert!(open.contains("x-forwarded-user: root\r\n") && open.contains("authorization"), "{open}");
    let (_, log) = site.end().await;
    assert_eq!((&line(&log, "/seen")["user"], &line(&log, "/seen")["status"]), (&"ada".into(), &200.into()));
    assert!(line(&log, "/open")["user"].is_null());
    assert_eq!(line(&log, "/")["error"], "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_may_be_forwarded_and_are_read_again() {
    let backend = Backend::echo("vm").await;
    let directory = tempfile::tempdir().unwrap();
    let config = with_passwords(&directory, "forward = true\nuser_header = 'remote-user'");
    let site = Site::start(config, ready(backend.address)).await;
    let mut client = Client::connect(site.address).await;
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{ADA}\r\n");
    client.send(&request).await;
    let seen = client.response().await.text().to_lowercase();
    assert!(seen.contains("remote-user: ada\r\n") && seen.contains("authorization: basic"), "{seen}");
    // Ada has to leave, and her connection with her.
    std::fs::write(directory.path().join("users"), USERS.lines().nth(1).unwrap()).unwrap();
    // Two routes have the file.
    until(|| site.metric("weir_file_reloads_total{result=\"ok\"}") == Some(2.0)).await;
    client.send(&request).await;
    assert_eq!(client.response().await.status(), 401);
    assert_eq!(get(&site, "/", BOB).await.status(), 200);
}
