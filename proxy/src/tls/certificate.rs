//! A certificate and its key, from PEM files.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};
use weir_config::model;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// No PEM file is longer, bytes.
const LONGEST: u64 = 1 << 20;

/// A certificate that can be shown to clients.
#[derive(Debug)]
pub struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    /// DNS names in lower case, wildcards as `*.example`.
    pub(super) names: Vec<String>,
    begins: SystemTime,
    expires: SystemTime,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file is not PEM (RFC 7468).
    #[error("{} is no PEM file", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// No certificate is in the file.
    #[error("{} has no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// No private key is in the file.
    #[error("{} has no private key in it", .0.display())]
    NoKey(PathBuf),
    /// The certificate itself is damaged.
    #[error("{} is no X.509 certificate", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: x509_parser::nom::Err<x509_parser::error::X509Error>,
    },
    /// The key is of a kind that TLS does not use, or damaged.
    #[error("the key in {} cannot be used", .path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TlsError,
    },
    /// A certificate that others lead to cannot be used.
    #[error("a certificate in {} cannot be used for clients'", .path.display())]
    UnusableRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TlsError,
    },
    /// The key is another certificate's.
    #[error("the key in {} does not belong to the certificate in {}", .key.display(), .certificate.display())]
    OtherKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// The first thing that is wrong with them. A certificate that has expired is none: clients say so, and may go on.
    pub fn load(files: &model::Certificate) -> Result<Self, CertificateError> {
        Self::parse(&read(&files.certificate)?, &read(&files.key)?, files)
    }

    /// Takes PEM files' texts. `files` names them in errors.
    pub(crate) fn parse(
        chain: &[u8],
        key: &[u8],
        files: &model::Certificate,
    ) -> Result<Self, CertificateError> {
        let chain = parse_chain(chain, &files.certificate)?;
        let (names, begins, expires) = describe(&chain[0], &files.certificate)?;
        let certified = CertifiedKey::from_der(chain, parse_key(key, &files.key)?, &ring::default_provider())
            .map_err(|source| match source {
                TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificateError::OtherKey {
                    certificate: files.certificate.clone(),
                    key: files.key.clone(),
                },
                source => CertificateError::UnusableKey { path: files.key.clone(), source },
            })?;
        Ok(Self { certified: Arc::new(certified), names, begins, expires })
    }

    /// Whether clients refuse it at `now` for being too old.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires < now
    }

    /// When it begins to be valid.
    pub(crate) fn begins(&self) -> SystemTime {
        self.begins
    }

    /// When it ceases to be valid.
    pub(crate) fn expires(&self) -> SystemTime {
        self.expires
    }

    /// Whether it is for these names, all of them and no others.
    pub(crate) fn is_for_just(&self, names: &[String]) -> bool {
        self.names.len() == names.len() && names.iter().all(|name| self.names.contains(name))
    }
}

/// What a file is recognised by; a new one is another, however it came into place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    changed: (i64, i64),
    length: u64,
}

impl Stamp {
    /// `None`: there is no such file, or it may not be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata: Metadata = fs::metadata(path).ok()?;
        Some(Self {
            inode: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        })
    }
}

pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    parse_chain(&read(path)?, path)
}

fn parse_chain(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|source| CertificateError::Pem { path: path.to_owned(), source })?;
    if chain.is_empty() { Err(CertificateError::NoCertificate(path.to_owned())) } else { Ok(chain) }
}

fn parse_key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|source| match source {
        pem::Error::NoItemsFound => CertificateError::NoKey(path.to_owned()),
        source => CertificateError::Pem { path: path.to_owned(), source },
    })
}

/// The file's text. Looked at before it is opened, since to open a FIFO would wait for its other end.
fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut text = Vec::new();
        if File::open(path)?.take(LONGEST + 1).read_to_end(&mut text)? as u64 > LONGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(text)
    };
    read().map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

/// The names that a certificate is for, when it begins to be valid, and when it expires.
fn describe(
    der: &CertificateDer<'_>,
    path: &Path,
) -> Result<(Vec<String>, SystemTime, SystemTime), CertificateError> {
    let invalid = |source| CertificateError::Invalid { path: path.to_owned(), source };
    let (_, certificate) = X509Certificate::from_der(der).map_err(invalid)?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        names.extend(extension.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
    }
    let since_1970 = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = certificate.validity();
    Ok((names, since_1970(validity.not_before.timestamp()), since_1970(validity.not_after.timestamp())))
}
