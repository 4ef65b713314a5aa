//! A TLS client, and certificates for the server.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_config::model;

use crate::site::within;

/// Both versions that weir knows.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Files of a new certificate for `names`, and the certificate itself.
pub(crate) fn certificate(directory: &Path, file: &str, names: &[&str]) -> (model::Certificate, Vec<u8>) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = model::Certificate {
        certificate: directory.join(format!("{file}.pem")),
        key: directory.join(format!("{file}.key")),
    };
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    (files, made.cert.der().to_vec())
}

pub(crate) fn tls(certificates: impl IntoIterator<Item = model::Certificate>) -> model::Tls {
    model::Tls {
        certificates: certificates.into_iter().collect(),
        acme: Vec::new(),
        min_version: model::TlsVersion::Tls12,
        client_auth: None,
        hsts: None,
    }
}

/// A listener with a certificate for anybody.
pub(crate) fn listener(directory: &Path) -> model::Listener {
    let (files, _) = certificate(directory, "any", &["a.example"]);
    let plain = model::Listener::at("127.0.0.1:0".parse().unwrap());
    model::Listener { tls: Some(tls([files])), http2: true, ..plain }
}

/// Takes whatever certificate it is shown; tests look at it.
#[derive(Debug)]
struct Gullible(CryptoProvider);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that asks for `name` and offers `protocols`.
pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<TcpStream>> {
    connect_as(address, &Guise::default(), name, protocols, versions).await
}

/// What a client brings along.
#[derive(Debug, Default)]
pub(crate) struct Guise {
    /// Sent before the handshake.
    pub(crate) before: Vec<u8>,
    /// In DER, and its key in PKCS #8.
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
}

/// The same, with something more.
pub(crate) async fn connect_as(
    address: SocketAddr,
    guise: &Guise,
    name: &str,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<TcpStream>> {
    let mut socket = within(TcpStream::connect(address)).await?;
    within(socket.write_all(&guise.before)).await?;
    handshake(socket, guise, name, protocols, versions).await
}

/// The same, on a connection that is there.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    guise: &Guise,
    name: &str,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<S>> {
    let client = client(guise, protocols, versions);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within(TlsConnector::from(client).connect(name, socket)).await
}

/// A client that resumes its sessions, whose second connection is not its first.
pub(crate) fn client(
    guise: &Guise,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
    let mut config = match guise.certificate.clone() {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivatePkcs8KeyDer::from(key).into();
            config.with_client_auth_cert(vec![certificate.into()], key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// One GET by `client`: whether its session was resumed, and all that comes back.
pub(crate) async fn get_by(client: &Arc<ClientConfig>, address: SocketAddr) -> io::Result<(bool, String)> {
    let name = ServerName::try_from("a.example").unwrap();
    let socket = within(TcpStream::connect(address)).await?;
    let mut stream = within(TlsConnector::from(Arc::clone(client)).connect(name, socket)).await?;
    let request = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    within(stream.write_all(request.as_bytes())).await?;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await?;
    Ok((stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed), answer))
}

/// One GET in HTTP/1.1, and all that comes back until the connection ends.
pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    get_as(address, &Guise::default(), path, "").await.unwrap()
}

/// The same with something more, and with these header lines.
pub(crate) async fn get_as(
    address: SocketAddr,
    guise: &Guise,
    path: &str,
    lines: &str,
) -> io::Result<String> {
    let mut stream = connect_as(address, guise, "a.example", &[], VERSIONS).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n{lines}connection: close\r\n\r\n");
    within(stream.write_all(request.as_bytes())).await?;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

/// What the server showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}
