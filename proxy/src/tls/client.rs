//! Clients with certificates.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use pingora::protocols::Stream;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::TlsError;
use super::certificate::{CertificateError, read_chain};

/// Characters that have a meaning in a name's text form (RFC 4514 §2.4).
const SPECIAL: &str = "\"+,;<>\\=#";

/// Who a client has proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The certificate's subject as RFC 4514 writes it, in ASCII.
    pub(crate) subject: HeaderValue,
    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fingerprint: HeaderValue,
}

impl Identity {
    /// `None`: there is no TLS, or the client has shown no certificate.
    pub(crate) fn of(stream: &Stream) -> Option<Self> {
        let der = stream.get_ssl()?.peer_certificate_der()?;
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut fingerprint = String::with_capacity(64);
        for byte in &stream.get_ssl_digest()?.cert_digest {
            write!(fingerprint, "{byte:02x}").ok()?;
        }
        Some(Self {
            subject: HeaderValue::try_from(text(certificate.subject())).ok()?,
            fingerprint: HeaderValue::try_from(fingerprint).ok()?,
        })
    }
}

/// Asks clients for certificates that lead to `roots`. `required`: clients without one are refused.
pub(super) fn verifier(
    roots: Arc<RootCertStore>,
    required: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(TlsError::ClientAuth)
}

/// Reads the certificates that clients' certificates lead to.
///
/// # Errors
/// If there is none, or one that cannot be used.
pub fn roots(file: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(file)? {
        let unusable = |source| CertificateError::UnusableRoot { path: file.to_owned(), source };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

/// RFC 4514: the last part first, `CN=a,O=b`. Whatever could be taken for more than a character of a value is escaped, so
/// that nobody gets another name than that in his certificate by what he had written into it.
fn text(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for part in name.iter_rdn().collect::<Vec<_>>().into_iter().rev() {
        for (index, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if index > 0 { '+' } else { ',' });
            }
            match oid2abbrev(attribute.attr_type(), oid_registry()) {
                Ok(known) => text.push_str(known),
                Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            escape(attribute.as_slice(), &mut text);
        }
    }
    text
}

fn escape(value: &[u8], text: &mut String) {
    for (index, byte) in value.iter().enumerate() {
        let character = char::from(*byte);
        let at_an_end = index == 0 || index + 1 == value.len();
        let plain = character.is_ascii_graphic() && !SPECIAL.contains(character);
        if plain || character == ' ' && !at_an_end {
            text.push(character);
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "\\{byte:02X}");
        }
    }
}
