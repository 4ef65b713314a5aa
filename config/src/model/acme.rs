//! `[acme]`, and certificates that are obtained by it (RFC 8555).

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// `[acme]`: who issues certificates, and how it is convinced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// URL of the CA's directory; `https`, or `http` on this machine.
    pub directory: String,
    /// URLs (`mailto:`) at which the CA reaches whoever is responsible.
    pub contact: Vec<String>,
    /// Directory in which accounts, keys and certificates are kept, those of each CA in one of their own.
    pub state: PathBuf,
    /// PEM file: the roots that the directory's own certificate leads to; `None`: those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// How control over a name is shown.
    pub challenge: AcmeChallenge,
    /// The account elsewhere that the CA's is bound to (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
}

/// `acme.challenge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// RFC 8555 §8.3: the CA fetches a file from port 80.
    Http01,
    /// RFC 8737: the CA begins TLS on port 443.
    TlsAlpn01,
}

/// `acme.eab_kid` and `acme.eab_key_file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// What the CA calls the key.
    pub kid: String,
    /// File with the key in base64url.
    pub key: PathBuf,
}

/// `listener.tls.acme`: a certificate that is obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// DNS names, lower case, at least one; the first names the file.
    pub names: Vec<String>,
    /// PEM file: the key and the certificate, once there is one.
    pub file: PathBuf,
}

impl Acme {
    /// Where what belongs to this CA is kept: its URL names a directory in [`Acme::state`].
    pub fn home(&self) -> PathBuf {
        self.state.join(file_name(&self.directory))
    }

    /// Where a certificate for `name`, and others, is kept.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home().join(format!("{name}.pem"))
    }
}

impl AcmeCertificate {
    /// The name that it goes by.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.file
    }
}

/// A name for a file that no other URL has.
pub(crate) fn file_name(url: &str) -> String {
    let mut name = String::with_capacity(url.len());
    for byte in url.strip_prefix("https://").unwrap_or(url).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => name.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(name, "%{byte:02X}")),
        }
    }
    name
}
