//! Certificates from files, and which one a client gets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use weir_config::model;

use super::certificate::{Certificate, CertificateError};
use super::names::ByName;
use super::resolver::Resolver;
use super::settings::Settings;

/// Files in a directory, by the names that the certificate is for.
fn write(directory: &Path, name: &str, names: &[&str]) -> model::Certificate {
    write_until(directory, name, names, 2999)
}

fn write_until(directory: &Path, name: &str, names: &[&str], year: i32) -> model::Certificate {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let files = model::Certificate {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (one, other) = (write(directory.path(), "one", &["a"]), write(directory.path(), "other", &["b"]));
    fs::write(path("empty"), "").unwrap();
    fs::write(path("text"), "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n").unwrap();
    fs::write(path("cut"), "-----BEGIN CERTIFICATE-----\nbm9u").unwrap();
    fs::write(path("odd.key"), "-----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n").unwrap();
    fs::write(path("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let message = |certificate: &PathBuf, key: &PathBuf| {
        let files = model::Certificate { certificate: certificate.clone(), key: key.clone() };
        let text = Certificate::load(&files).unwrap_err().to_string();
        text.replace(&directory.path().display().to_string(), ".")
    };
    for (certificate, key, expected) in [
        (&path("none"), &one.key, "read ./none"),
        (&directory.path().to_owned(), &one.key, "read ."),
        (&path("large"), &one.key, "read ./large"),
        (&path("empty"), &one.key, "./empty has no certificate in it"),
        (&one.key, &one.key, "./one.key has no certificate in it"),
        (&path("cut"), &one.key, "./cut is no PEM file"),
        (&path("text"), &one.key, "./text is no X.509 certificate"),
        (&one.certificate, &path("none"), "read ./none"),
        (&one.certificate, &one.certificate, "./one.pem has no private key in it"),
        (&one.certificate, &path("odd.key"), "the key in ./odd.key cannot be used"),
        (
            &one.certificate,
            &other.key,
            "the key in ./other.key does not belong to the certificate in ./one.pem",
        ),
    ] {
        assert_eq!(message(certificate, key), expected);
    }
    assert!(Certificate::load(&one).is_ok());
}

#[test]
fn an_old_certificate_can_be_used_and_is_known_to_be_old() {
    let directory = tempfile::tempdir().unwrap();
    let old = Certificate::load(&write_until(directory.path(), "old", &["a"], 2001)).unwrap();
    assert!(old.has_expired(SystemTime::now()));
    assert!(
        !Certificate::load(&write(directory.path(), "new", &["a"])).unwrap().has_expired(SystemTime::now())
    );
}

#[test]
fn a_name_finds_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let load = |name: &str, names: &[&str]| Certificate::load(&write(directory.path(), name, names)).unwrap();
    let certificates = [
        load("first", &["first.example"]),
        load("second", &["a.example", "*.b.example", "first.example"]),
        load("third", &["x.b.example", "a.example"]),
    ];
    let by_name = ByName::new(certificates.iter());
    for (asked, expected) in [
        (None, 0),
        (Some("nobody.example"), 0),
        (Some(""), 0),
        (Some("first.example"), 0),
        (Some("a.example"), 1),
        (Some("A.Example"), 1),
        (Some("y.b.example"), 1),
        (Some("x.b.example"), 2),
        (Some("b.example"), 0),
        (Some("z.y.b.example"), 0),
        (Some("*.b.example"), 1),
    ] {
        let found = by_name.find(asked).unwrap();
        assert!(Arc::ptr_eq(found, &certificates[expected].certified), "{asked:?}");
    }
    assert!(ByName::new([].iter()).find(Some("a.example")).is_none());
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| write(directory.path(), name, &[name]));
    let resolver = Resolver::load(&[one.clone(), other.clone()], &[]).unwrap();
    let shown = |name: &str| resolver.shown(name);
    let (first, second) = (shown("one"), shown("other"));
    assert!(resolver.reload().is_empty(), "nothing has changed");

    write(directory.path(), "one", &["one"]);
    assert!(matches!(resolver.reload()[..], [Ok(())]));
    assert_ne!(shown("one"), first);
    assert_eq!(shown("other"), second);

    let renewed = shown("one");
    fs::write(&one.key, "").unwrap();
    write(directory.path(), "other", &["other"]);
    let outcomes = resolver.reload();
    assert!(matches!(outcomes[..], [Err(CertificateError::NoKey(_)), Ok(())]), "{outcomes:?}");
    assert_eq!(shown("one"), renewed);
    assert_ne!(shown("other"), second);
    assert!(resolver.reload().is_empty(), "it is said once");

    // As the tools do it that write a file beside and rename it.
    let beside = tempfile::tempdir_in(directory.path()).unwrap();
    let new = write(beside.path(), "one", &["one"]);
    fs::rename(&new.key, &one.key).unwrap();
    assert!(matches!(resolver.reload()[..], [Err(CertificateError::OtherKey { .. })]));
    assert_eq!(shown("one"), renewed);
    fs::rename(&new.certificate, &one.certificate).unwrap();
    assert!(matches!(resolver.reload()[..], [Ok(())]));
    assert_ne!(shown("one"), renewed);
}

#[test]
fn tickets_are_kept_only_where_the_same_clients_are_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let [one, same, other] = ["one", "same", "other"].map(|name| write(directory.path(), name, &[name]));
    fs::copy(&one.certificate, &same.certificate).unwrap();
    let load = |ca: Option<(&model::Certificate, bool)>| {
        let client_auth = ca.map(|(ca, required)| model::ClientAuth { ca: ca.certificate.clone(), required });
        let config = model::Tls {
            certificates: vec![one.clone()],
            acme: Vec::new(),
            min_version: model::TlsVersion::Tls12,
            client_auth,
            hsts: None,
        };
        let resolver = Arc::new(Resolver::load(&config.certificates, &[]).unwrap());
        Settings::load(&config, true, resolver).unwrap()
    };
    for (former, now, kept) in [
        (None, None, true),
        (None, Some((&one, true)), false),
        (Some((&one, true)), None, false),
        (Some((&one, true)), Some((&one, true)), true),
        (Some((&one, true)), Some((&same, true)), true),
        (Some((&one, true)), Some((&other, true)), false),
        (Some((&one, true)), Some((&one, false)), false),
        (Some((&one, false)), Some((&one, true)), false),
    ] {
        let (former, now) = (load(former), load(now));
        now.resume_sessions_of(&former);
        let ticketers = [&former, &now].map(|settings| Arc::clone(&settings.now().ticketer));
        assert_eq!(Arc::ptr_eq(&ticketers[0], &ticketers[1]), kept);
    }
}
