//! Who gets a challenge's file, and whose request goes its usual way: here to a route that lets nobody through.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::sync::watch;
use weir_config::model::{Certificate, Listener, Tls, TlsVersion};
use weir_pool::fake::{FakeLauncher, Script};
use weir_pool::{PoolMetrics, Pools};

use crate::acme::Challenges;
use crate::testing::config;
use crate::{AccessLog, Metrics, Server, Timeouts, bind, serve};

const FILE: &str = "/.well-known/acme-challenge/token";

/// Where a site listens in plain text and with TLS, and what its clients trust and what ends it.
struct Site {
    plain: SocketAddr,
    secure: SocketAddr,
    client: Arc<ClientConfig>,
    challenges: Challenges,
    _shutdown: watch::Sender<bool>,
    _files: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("pem"), made.cert.pem()).unwrap();
        let tls = Tls {
            certificates: vec![Certificate { certificate: path("pem"), key: path("key") }],
            acme: Vec::new(),
            min_version: TlsVersion::Tls12,
            client_auth: None,
            hsts: None,
        };
        let mut config = config();
        config.listeners.push(Listener { tls: Some(tls), ..config.listeners[0].clone() });
        let route = Arc::get_mut(&mut config.routes[0]).unwrap();
        route.filter.deny = vec!["127.0.0.0/8".parse().unwrap()];

        let listeners = bind(&config).unwrap();
        let addresses: Vec<_> = listeners.addresses().unwrap().iter().map(|at| at.ip().unwrap()).collect();
        let (registry, launcher) =
            (Registry::new(), FakeLauncher::new(Script::ready_after(Duration::ZERO, addresses[0])));
        let pools = Pools::start(&config, launcher, PoolMetrics::register(&registry).unwrap()).unwrap();
        let (metrics, challenges) = (Metrics::register(&registry).unwrap(), Challenges::default());
        let server = Server {
            config: Arc::new(config),
            listeners,
            pools,
            metrics,
            access_log: AccessLog::disabled(),
            challenges: challenges.clone(),
            spans: None,
            timeouts: Timeouts::default(),
        };
        let (shutdown, stop) = watch::channel(false);
        tokio::spawn(serve(server, stop));

        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            plain: addresses[0],
            secure: addresses[1],
            client: Arc::new(client),
            challenges,
            _shutdown: shutdown,
            _files: directory,
        }
    }

    /// Status and body of an answer in plain text.
    fn ask(&self, method: &str, host: &str, path: &str) -> (u16, String) {
        exchange(connect(self.plain), method, host, path)
    }

    /// As [`Self::ask`], over TLS.
    fn ask_secure(&self, host: &str, path: &str) -> (u16, String) {
        let name = ServerName::try_from("a.example").unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        exchange(StreamOwned::new(tls, connect(self.secure)), "GET", host, path)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    stream
}

fn exchange(mut stream: impl Read + Write, method: &str, host: &str, path: &str) -> (u16, String) {
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_for_the_ca_whatever_the_route_says_and_nothing_else_is() {
    let site = Site::start();
    let presented = site.challenges.present_file("a.example", "token", "token.thumbprint");
    let found = (200, "token.thumbprint".to_owned());
    assert_eq!(site.ask("GET", "a.example", FILE), found, "the route's filter does not hinder");
    assert_eq!(site.ask("GET", "A.Example:80", FILE), found);
    assert_eq!(site.ask("HEAD", "a.example", FILE), (200, String::new()));
    for (method, host, path) in [
        ("GET", "b.example", FILE),
        ("GET", "127.0.0.1", FILE),
        ("GET", "a.example", "/.well-known/acme-challenge/other"),
        ("GET", "a.example", "/.well-known/acme-challenge/"),
        ("POST", "a.example", FILE),
        ("OPTIONS", "a.example", FILE),
    ] {
        assert_eq!(site.ask(method, host, path).0, 403, "{method} {host} {path}");
    }
    assert_eq!(site.ask_secure("a.example", FILE).0, 403, "no CA comes by TLS");
    drop(presented);
    assert_eq!(site.ask("GET", "a.example", FILE).0, 403, "nothing is pending any more");
}
