use std::fs;

use weir_config::model::{BasicAuth, FileOf};

use super::*;

/// Of `secret`, at bcrypt's least cost and by SHA-512-crypt; and of `p\u{e4}ssword` by SHA-256-crypt. Made by libxcrypt.
const FILE: &str = "ada:$2b$04$qEZtgg5L9Pm2qsqf9Qr79eA4yrk5nEphcYNaDxOeFAjP2qCs0Hpii
bob:$6$rounds=1000$IRgFJ1XWT2jt5vsp$Oz.l15akLflo7xoZgu9HcvMc6CFf/hTMmn/VOOlcmsVQMEprWrLJYGRglAuB7Qu2fAYkN.3414kxWeWje1xE7.
eve:$5$s9vxgrB/5WbQXioc$QpUxty2eQMVdE0sqBHTCyAOUQL8LbISb8iY8S7ZHY0C
";

fn auth(directory: &tempfile::TempDir) -> Auth {
    let path = directory.path().join("users");
    fs::write(&path, FILE).unwrap();
    let config = BasicAuth {
        file: FileOf::read(&path).unwrap(),
        realm: "the realm".to_owned(),
        user_header: HeaderName::from_static("x-user"),
        forward: false,
    };
    Auth::new(&model::Auth::Basic(config), &Arc::default())
}

fn request(credentials: &str) -> RequestHeader {
    use base64::Engine as _;
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
    request.insert_header(header::AUTHORIZATION, format!("Basic {encoded}")).unwrap();
    request
}

async fn user(auth: &Auth, credentials: &str) -> Option<String> {
    match auth.identify(&request(credentials), None).await {
        Ok(who) => who.user.as_deref().map(str::to_owned),
        Err(refused) => {
            assert_eq!(refused.refusal, Refusal::Unauthorized);
            let (name, value) = refused.field.unwrap();
            assert_eq!(
                (name, value.to_str().unwrap()),
                (header::WWW_AUTHENTICATE, r#"Basic realm="the realm", charset="UTF-8""#)
            );
            None
        }
    }
}

#[tokio::test]
async fn who_knows_the_password_is_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let auth = auth(&directory);
    // The second time it is remembered.
    for _ in 0..2 {
        for (credentials, expected) in [
            ("ada:secret", Some("ada")),
            ("bob:secret", Some("bob")),
            ("eve:p\u{e4}ssword", Some("eve")),
            ("ada:Secret", None),
            ("ada:", None),
            ("Ada:secret", None),
            ("eve:secret", None),
            ("nobody:secret", None),
            (":secret", None),
        ] {
            assert_eq!(user(&auth, credentials).await.as_deref(), expected, "{credentials}");
        }
    }
    let nothing = RequestHeader::build("GET", b"/", None).unwrap();
    assert!(auth.identify(&nothing, None).await.is_err());
}

#[tokio::test]
async fn a_password_ends_with_the_file_that_had_it() {
    let directory = tempfile::tempdir().unwrap();
    let auth = auth(&directory);
    assert!(user(&auth, "ada:secret").await.is_some());
    assert!(user(&auth, "bob:secret").await.is_some());
    // Ada has the password that eve had, and bob is gone.
    let eve = FILE.lines().nth(2).unwrap();
    fs::write(directory.path().join("users"), eve.replace("eve", "ada")).unwrap();
    let file = auth.file();
    assert!(file.look().is_none());
    assert!(file.look().unwrap().is_ok());
    for (credentials, expected) in
        [("ada:secret", None), ("bob:secret", None), ("ada:p\u{e4}ssword", Some("ada"))]
    {
        assert_eq!(user(&auth, credentials).await.as_deref(), expected, "{credentials}");
    }
}

#[tokio::test]
async fn a_vm_is_told_by_weir_alone() {
    let directory = tempfile::tempdir().unwrap();
    let auth = auth(&directory);
    let mut request = request("ada:secret");
    for name in ["x-user", "x_user", "X-User", "x-user-2"] {
        request.append_header(name.to_owned(), "root").unwrap();
    }
    let who = auth.identify(&request, None).await.unwrap();
    auth.tell(Some(&who), &mut request).unwrap();
    let mut told: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    told.sort_unstable();
    assert_eq!(told, [("x-user", "ada"), ("x-user-2", "root")]);
}
