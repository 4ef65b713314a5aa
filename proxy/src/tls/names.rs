//! Which certificate a client gets (RFC 6066, server name indication).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// Certificates by the names that clients ask for.
#[derive(Debug)]
pub(super) struct ByName {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// For clients that ask for no name or for one that no certificate has. `None`: there are no certificates.
    fallback: Option<Arc<CertifiedKey>>,
}

impl ByName {
    /// Of certificates with the same name the first is found.
    pub(super) fn new<'a>(certificates: impl Iterator<Item = &'a Certificate> + Clone) -> Self {
        let fallback = certificates.clone().next().map(|first| Arc::clone(&first.certified));
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in certificates {
            for name in &certificate.names {
                let (index, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix),
                    None => (&mut exact, name.as_str()),
                };
                index.entry(name.into()).or_insert_with(|| Arc::clone(&certificate.certified));
            }
        }
        Self { exact, wildcard, fallback }
    }

    /// A wildcard stands for exactly one label (RFC 9525 §6.3).
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = name else { return self.fallback.as_ref() };
        let name = name.to_ascii_lowercase();
        let by_suffix = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name.as_str()).or_else(by_suffix).or(self.fallback.as_ref())
    }
}
