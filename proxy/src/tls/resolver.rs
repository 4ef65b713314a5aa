//! A listener's certificates, read again when their files change.
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
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use weir_config::model;

use super::certificate::{Certificate, CertificateError, Stamp};
use super::names::ByName;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Resolver {
    by_name: ArcSwap<ByName>,
    entries: Mutex<Vec<Entry>>,
}

/// A certificate and where it is from.
#[derive(Debug)]
struct Entry {
    files: model::Certificate,
    stamps: [Option<Stamp>; 2],
    certificate: Certificate,
}

impl Resolver {
    /// Reads all of them, of which there is at least one.
    ///
    /// # Errors
    /// The first that is bad.
    pub(crate) fn load(certificates: &[model::Certificate]) -> Result<Self, CertificateError> {
        let entries = certificates.iter().map(Entry::load).collect::<Result<Vec<_>, _>>()?;
        let by_name = ArcSwap::from_pointee(by_name(&entries));
        Ok(Self { by_name, entries: Mutex::new(entries) })
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
        self.by_name.load().find(Some(name)).cert[0].to_vec()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.by_name.load().find(hello.server_name())))
    }
}

impl Entry {
    fn load(files: &model::Certificate) -> Result<Self, CertificateError> {
        // Before they are read: what changes after that is seen.
        let stamps = stamps(files);
        let certificate = Certificate::load(files)?;
        warn_if_expired(&certificate, &files.certificate);
        Ok(Self { files: files.clone(), stamps, certificate })
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
            self.certificate = certificate;
        }))
    }
}

fn by_name(entries: &[Entry]) -> ByName {
    ByName::new(entries.iter().map(|entry| &entry.certificate))
        .expect("a listener's tls has at least one certificate")
}

fn stamps(files: &model::Certificate) -> [Option<Stamp>; 2] {
    [&files.certificate, &files.key].map(|path| Stamp::of(path))
}

fn warn_if_expired(certificate: &Certificate, path: &Path) {
    if certificate.has_expired(SystemTime::now()) {
        tracing::warn!(certificate = %path.display(), "certificate has expired");
    }
}
