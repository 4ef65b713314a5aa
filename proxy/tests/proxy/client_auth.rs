//! Clients that show certificates, and what their VM learns of it.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use weir_config::model::{ClientAuth, Config};

use crate::backend::Backend;
use crate::client::header;
use crate::secure::{Guise, VERSIONS, client, connect_as, get_as, get_by, listener};
use crate::site::{Site, config, ready, until, within};

/// Who certifies clients.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Its own certificate is written to `file`.
    fn new(file: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("authority {}", file.display()));
        let key = KeyPair::generate().unwrap();
        fs::write(file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    fn client(&self, organization: &str, name: &str) -> Guise {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let certificate = Some((certificate.der().to_vec(), key.serialize_der()));
        Guise { certificate, ..Guise::default() }
    }
}

fn asking(directory: &Path, required: bool) -> (Config, Authority) {
    let ca = directory.join("ca.pem");
    let authority = Authority::new(&ca);
    let mut listener = listener(directory);
    listener.tls.as_mut().unwrap().client_auth = Some(ClientAuth { ca, required });
    let mut config = config();
    config.listeners = vec![listener];
    (config, authority)
}

const FORGED: &str =
    "x-client-cert-subject: CN=root\r\nx-client-cert-subject: CN=admin\r\nx-client-cert-sha256: 00\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_learns_who_its_client_is_and_nothing_that_the_client_made_up() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let (config, authority) = asking(directory.path(), true);
    let site = Site::start(config, ready(backend.address)).await;
    for (organization, name, subject) in [
        ("weir", "alice", "CN=alice,O=weir"),
        // Nobody becomes another by his name.
        (
            "weir",
            "alice,O=admin+x=\"y\"\r\nhost: b",
            "CN=alice\\2CO\\3Dadmin\\2Bx\\3D\\22y\\22\\0D\\0Ahost: b,O=weir",
        ),
        (" #", "\u{f6}", "CN=\\C3\\B6,O=\\20\\23"),
    ] {
        let client = authority.client(organization, name);
        let seen = get_as(site.address, &client, "/", FORGED).await.unwrap();
        let (_, seen) = seen.split_once("\r\n\r\n").unwrap();
        assert_eq!(header(seen, "x-client-cert-subject"), Some(subject));
        assert_eq!(header(seen, "x-client-cert-sha256").map(str::len), Some(64));
        assert_eq!(seen.matches("x-client-cert").count(), 2, "{seen}");
    }
    // Each of HTTP/2's requests as well.
    let client = authority.client("weir", "bob");
    let stream = connect_as(site.address, &client, "a.example", &["h2"], VERSIONS).await.unwrap();
    let (requests, connection) = within(h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request = http::Request::get("https://a.example/").header("x-client-cert-subject", "CN=root");
        let mut requests = within(requests.clone().ready()).await.unwrap();
        let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
        let mut body = within(response).await.unwrap().into_body();
        let seen = within(body.data()).await.unwrap().unwrap();
        let seen = std::str::from_utf8(&seen).unwrap();
        assert_eq!(header(seen, "x-client-cert-subject"), Some("CN=bob,O=weir"));
    }
    connection.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_and_those_without_a_certificate_where_one_is_required() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let stranger = Authority::new(&directory.path().join("other.pem")).client("weir", "alice");
    for required in [true, false] {
        let (config, authority) = asking(directory.path(), required);
        let site = Site::start(config, ready(backend.address)).await;
        assert!(get_as(site.address, &stranger, "/", "").await.is_err());
        let nobody = get_as(site.address, &Guise::default(), "/", FORGED).await;
        match nobody {
            Err(_) => assert!(required),
            Ok(answer) => {
                assert!(!required && answer.starts_with("HTTP/1.1 200 "));
                assert!(!answer.contains("x-client-cert"), "{answer}");
            }
        }
        let known = get_as(site.address, &authority.client("weir", "alice"), "/", "").await.unwrap();
        assert!(known.contains("\r\nx-client-cert-subject: CN=alice,O=weir\r\n"), "{known}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_ca_is_read_again_and_a_broken_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::echo("vm").await;
    let (config, authority) = asking(directory.path(), true);
    let beside = directory.path().join("beside.pem");
    let earlier = client(&authority.client("weir", "alice"), &[], VERSIONS);
    let later = client(&Authority::new(&beside).client("weir", "bob"), &[], VERSIONS);
    let site = Site::start(config, ready(backend.address)).await;
    assert!(get_by(&later, site.address).await.is_err());
    for resumed in [false, true] {
        assert_eq!(get_by(&earlier, site.address).await.unwrap().0, resumed);
    }

    let replace = || fs::rename(&beside, directory.path().join("ca.pem")).unwrap();
    replace();
    until(|| site.metric("weir_tls_reloads_total{result=\"ok\"}") == Some(1.0)).await;
    assert!(get_by(&earlier, site.address).await.is_err(), "not by a session of before, either");
    let (resumed, seen) = get_by(&later, site.address).await.unwrap();
    assert!(!resumed && seen.contains("\r\nx-client-cert-subject: CN=bob,O=weir\r\n"), "{seen}");

    fs::write(&beside, "nonsense").unwrap();
    replace();
    until(|| site.metric("weir_tls_reloads_total{result=\"failed\"}") == Some(1.0)).await;
    assert!(get_by(&later, site.address).await.unwrap().0, "it has not even noticed");
    assert!(get_by(&earlier, site.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_names_nobody() {
    let backend = Backend::echo("vm").await;
    let site = Site::start(config(), ready(backend.address)).await;
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{FORGED}connection: close\r\n\r\n");
    let seen = crate::client::ask(site.address, &request).await.text().to_owned();
    assert!(!seen.contains("x-client-cert"), "{seen}");
}
