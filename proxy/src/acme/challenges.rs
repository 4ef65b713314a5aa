//! What CAs ask for while they look whether a name is under weir's control.
//!
//! ```text
//!  (nothing) ──present──> pending: answered ──guard dropped──> (nothing)
//! ```
//!
//! Listeners look here; as long as nothing is pending that is one load. What is not pending is none of weir's business:
//! a request for another token goes its usual way.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use rustls::sign::CertifiedKey;

/// Where HTTP-01's files are (RFC 8555 §8.3).
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// See the module's documentation. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<ArcSwapOption<Pending>>);

#[derive(Clone, Debug, Default)]
struct Pending {
    /// Key authorizations by name and token.
    files: HashMap<(String, String), Bytes>,
    /// Certificates of TLS-ALPN-01 by name.
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

/// A challenge is pending as long as this is held.
#[derive(Debug)]
pub(super) struct Presented {
    challenges: Challenges,
    name: String,
    /// Of HTTP-01.
    token: Option<String>,
}

impl Challenges {
    /// Whether a request could be one of a CA's.
    pub(crate) fn are_pending(&self) -> bool {
        self.0.load().is_some()
    }

    /// What is to be found at `path` of `host`, which is in lower case.
    pub(crate) fn file(&self, host: &str, path: &str) -> Option<Bytes> {
        let token = path.strip_prefix(WELL_KNOWN)?;
        self.0.load().as_ref()?.files.get(&(host.to_owned(), token.to_owned())).cloned()
    }

    /// What a CA's TLS-ALPN-01 is shown that asks for `name`.
    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref()?.certificates.get(&name.to_ascii_lowercase()).cloned()
    }

    /// Lets the CA find `authorization` by HTTP-01.
    pub(super) fn present_file(&self, name: &str, token: &str, authorization: &str) -> Presented {
        let (key, value) = ((name.to_owned(), token.to_owned()), Bytes::from(authorization.to_owned()));
        self.change(|pending| drop(pending.files.insert(key.clone(), value.clone())));
        Presented { challenges: self.clone(), name: name.to_owned(), token: Some(token.to_owned()) }
    }

    /// Lets the CA see `certificate` by TLS-ALPN-01.
    pub(super) fn present_certificate(&self, name: &str, certificate: Arc<CertifiedKey>) -> Presented {
        self.change(|pending| drop(pending.certificates.insert(name.to_owned(), certificate.clone())));
        Presented { challenges: self.clone(), name: name.to_owned(), token: None }
    }

    fn change(&self, change: impl Fn(&mut Pending)) {
        self.0.rcu(|pending| {
            let mut pending = pending.as_deref().cloned().unwrap_or_default();
            change(&mut pending);
            let is_empty = pending.files.is_empty() && pending.certificates.is_empty();
            (!is_empty).then(|| Arc::new(pending))
        });
    }
}

impl Drop for Presented {
    fn drop(&mut self) {
        self.challenges.change(|pending| match &self.token {
            Some(token) => drop(pending.files.remove(&(self.name.clone(), token.clone()))),
            None => drop(pending.certificates.remove(&self.name)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_for_its_name_and_only_while_it_is_pending() {
        let challenges = Challenges::default();
        let path = "/.well-known/acme-challenge/token";
        assert!(!challenges.are_pending());
        let one = challenges.present_file("a.example", "token", "token.a");
        let other = challenges.present_file("b.example", "token", "token.b");
        assert!(challenges.are_pending());
        assert_eq!(challenges.file("a.example", path).unwrap(), "token.a");
        assert_eq!(challenges.file("b.example", path).unwrap(), "token.b");
        for (host, path) in [
            ("c.example", path),
            ("a.example", "/.well-known/acme-challenge/"),
            ("a.example", "/.well-known/acme-challenge/token/"),
            ("a.example", "/.well-known/acme-challenge/token2"),
            ("a.example", "/token"),
            ("", path),
        ] {
            assert!(challenges.file(host, path).is_none(), "{host}{path}");
        }
        drop(one);
        assert!(challenges.file("a.example", path).is_none());
        assert_eq!(challenges.file("b.example", path).unwrap(), "token.b");
        drop(other);
        assert!(!challenges.are_pending());
    }
}
