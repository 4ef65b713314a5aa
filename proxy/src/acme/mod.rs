//! Certificates from a CA that speaks ACME (RFC 8555).
//!
//! ```text
//!            thread "acme"                                 listeners
//!  schedule ─due─> account ─> order ─> file in the store ─reads it again─> resolver
//!     ^                         │
//!     └────── obtained, failed ─┘ presents challenges ────looked up──────> HTTP-01, TLS-ALPN-01
//! ```
//!
//! A certificate that is obtained is a file like any other: the listener's [`crate::tls`] notices that it is another one
//! and shows it from then on. So whatever goes wrong here, the certificate in use stays. Keys are made, answers are
//! waited for and files are written on a thread of its own, away from requests; its sockets are the host's.

mod account;
mod challenges;
mod client;
mod http01;
mod metrics;
mod order;
mod schedule;
mod store;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::RootCertStore;
use tokio::sync::watch;
use weir_config::model::{self, AcmeCertificate, Config};
use weir_pool::Network;

pub use challenges::Challenges;
pub use metrics::AcmeMetrics;
pub use store::StoreError;

use self::client::Client;
use self::store::Store;
use self::worker::Worker;
use crate::outside;
use crate::tls::CertificateError;

/// What obtains certificates. Dropped, it obtains no more.
#[derive(Debug)]
pub struct Acme {
    wanted: watch::Sender<Vec<AcmeCertificate>>,
}

/// Why certificates cannot be obtained at all.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// Keys and certificates cannot be kept.
    #[error("keep certificates")]
    Store(#[from] StoreError),
    /// The file with the directory's roots cannot be used.
    #[error("trust the directory")]
    Roots(#[from] CertificateError),
    /// This machine trusts nobody.
    #[error("this machine has no root certificates: install ca-certificates or set acme.ca")]
    NoRoots,
    /// TLS with the CA cannot be set up.
    #[error("set TLS with the directory up")]
    Tls(#[from] rustls::Error),
    /// There is no thread for it.
    #[error("start the thread that obtains certificates")]
    Thread(#[source] std::io::Error),
}

impl Acme {
    /// Begins to obtain what `config` wants, from the CA that it names. `network`: the host's. `challenges`: what the
    /// server looks at. `None`: it names no CA.
    ///
    /// # Errors
    /// If that cannot succeed however often it is tried. That the CA does not answer is no such reason.
    pub fn start(
        config: &Config,
        network: Arc<dyn Network>,
        challenges: &Challenges,
        metrics: AcmeMetrics,
    ) -> Result<Option<Self>, AcmeError> {
        let Some(acme) = &config.acme else { return Ok(None) };
        let store = Store::open(acme.home())?;
        let client = Client::new(network, trusted(acme)?, &acme.directory)?;
        let (wanted, changes) = watch::channel(wanted(config));
        let worker = Worker::new(acme.clone(), store, client, challenges.clone(), metrics, changes);
        worker.start().map_err(AcmeError::Thread)?;
        Ok(Some(Self { wanted }))
    }

    /// From now on it obtains what `config` wants.
    pub fn reload(&self, config: &Config) {
        let wanted = wanted(config);
        self.wanted.send_if_modified(|known| {
            let differs = *known != wanted;
            *known = wanted;
            differs
        });
    }
}

/// Each once, however many listeners show it.
fn wanted(config: &Config) -> Vec<AcmeCertificate> {
    let of_listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let by_name: BTreeMap<_, _> =
        of_listeners.flat_map(|tls| &tls.acme).map(|one| (one.name(), one)).collect();
    by_name.into_values().cloned().collect()
}

fn trusted(acme: &model::Acme) -> Result<RootCertStore, AcmeError> {
    let trusted = outside::trusted(acme.ca.as_deref())?;
    // In plain text nobody shows any.
    if trusted.is_empty() && acme.directory.starts_with("https") {
        Err(AcmeError::NoRoots)
    } else {
        Ok(trusted)
    }
}
