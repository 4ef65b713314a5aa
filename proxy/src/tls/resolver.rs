//! A listener's certificates, read again when their files change. One that is still to be obtained has no file yet, and
//! a client that would get it is refused.
//!
//! ```text
//!  files --read--> in use --a file is another--> read again --good--> in use
//!                    ^                                |
//!                    '------------- bad: says so -----'
//! ```
//!
//! Files are looked at once in a while instead of being watched: certificates are replaced by renames, by new targets of
//! links, and on file systems that tell nobody.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use weir_config::model::{self, AcmeCertificate};

use super::ACME_TLS;
use super::certificate::{Certificate, CertificateError, Stamp};
use super::names::ByName;
use crate::acme::Challenges;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Resolver {
    by_name: ArcSwap<ByName>,
    entries: Mutex<Vec<Entry>>,
    /// What CAs are shown that look whether a name is under weir's control.
    challenges: OnceLock<Challenges>,
}

/// A certificate and where it is from.
#[derive(Debug)]
struct Entry {
    files: model::Certificate,
    stamps: [Option<Stamp>; 2],
    /// `None`: it is to be obtained, and has not been.
    certificate: Option<Certificate>,
}

impl Resolver {
    /// Reads all of them; those that are obtained, as far as they have been.
    ///
    /// # Errors
    /// The first from files that is bad.
    pub(crate) fn load(
        certificates: &[model::Certificate],
        obtained: &[AcmeCertificate],
    ) -> Result<Self, CertificateError> {
        let mut entries = certificates.iter().map(Entry::load).collect::<Result<Vec<_>, _>>()?;
        entries.extend(obtained.iter().map(Entry::load_obtained));
        let by_name = ArcSwap::from_pointee(by_name(&entries));
        Ok(Self { by_name, entries: Mutex::new(entries), challenges: OnceLock::new() })
    }

    /// From now on CAs are shown what `challenges` has for them. Once is enough.
    pub(crate) fn show(&self, challenges: &Challenges) {
        // Whoever comes second brings the same.
        let _ = self.challenges.set(challenges.clone());
    }

    /// Reads those again whose files are others now; what came of each. A bad one is read again only when its files
    /// change once more.
    pub(crate) fn reload(&self) -> Vec<Result<(), CertificateError>> {
        let mut entries = self.entries.lock();
        let outcomes: Vec<_> = entries.iter_mut().filter_map(Entry::reload).collect();
        if outcomes.iter().any(Result::is_ok) {
            self.by_name.store(Arc::new(by_name(&entries)));
        }
        outcomes
    }

    /// The certificate that a client gets.
    #[cfg(test)]
    pub(super) fn shown(&self, name: &str) -> Vec<u8> {
        self.by_name.load().find(Some(name)).unwrap().cert[0].to_vec()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if is_a_ca(&hello) {
            return self.challenges.get()?.certificate(hello.server_name()?);
        }
        self.by_name.load().find(hello.server_name()).cloned()
    }
}

impl Entry {
    fn load(files: &model::Certificate) -> Result<Self, CertificateError> {
        // Before they are read: what changes after that is seen.
        let stamps = stamps(files);
        let certificate = Certificate::load(files)?;
        warn_if_expired(&certificate, &files.certificate);
        Ok(Self { files: files.clone(), stamps, certificate: Some(certificate) })
    }

    /// What was left behind there is used if it can be; another one will come in any case.
    fn load_obtained(wanted: &AcmeCertificate) -> Self {
        let files = model::Certificate { certificate: wanted.file.clone(), key: wanted.file.clone() };
        Self::load(&files).unwrap_or_else(|_| {
            let stamps = stamps(&files);
            Self { files, stamps, certificate: None }
        })
    }

    /// `None`: nothing has changed.
    fn reload(&mut self) -> Option<Result<(), CertificateError>> {
        let stamps = stamps(&self.files);
        if stamps == self.stamps {
            return None;
        }
        self.stamps = stamps;
        let loaded = Certificate::load(&self.files);
        Some(loaded.map(|certificate| {
            warn_if_expired(&certificate, &self.files.certificate);
            self.certificate = Some(certificate);
        }))
    }
}

/// RFC 8737 §3: it offers this protocol and no other.
fn is_a_ca(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
}

fn by_name(entries: &[Entry]) -> ByName {
    ByName::new(entries.iter().filter_map(|entry| entry.certificate.as_ref()))
}

fn stamps(files: &model::Certificate) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|path| Stamp::of(path))
}

fn warn_if_expired(certificate: &Certificate, path: &Path) {
    if certificate.has_expired(SystemTime::now()) {
        tracing::warn!(certificate = %path.display(), "certificate has expired");
    }
}
