//! The thread that obtains certificates, one after another.
//!
//! ```text
//!  look: what is due? ──nothing──> sleep until something is, or until other names are wanted ──> look
//!           └──one──> obtain it, in time ──> write it down ──> look
//! ```
//!
//! Failures are remembered by name and forgotten with weir: who starts it again wants it to try.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use rand::Rng as _;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use weir_config::model::{self, AcmeCertificate};
use weir_pool::printable;

use super::account::{AccountError, account};
use super::challenges::Challenges;
use super::client::Client;
use super::metrics::AcmeMetrics;
use super::order::{OrderError, obtain};
use super::schedule::{self, Failed, Held};
use super::store::{Store, StoreError};
use crate::tls::{Certificate, CertificateError};

/// How long one certificate may take, from the account to the file.
const OBTAIN: Duration = Duration::from_secs(600);
/// Clocks are set and files replaced; nothing is slept over for longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Longest part of what a CA says that is logged, characters.
const LONGEST_REASON: usize = 500;

/// See the module's documentation.
pub(super) struct Worker {
    shared: Arc<Shared>,
    metrics: AcmeMetrics,
    wanted: watch::Receiver<Vec<AcmeCertificate>>,
    failed: HashMap<String, Failed>,
    /// 0 to 1; what this weir's tries are spread by.
    spread: f64,
}

/// What obtaining takes.
struct Shared {
    acme: model::Acme,
    store: Store,
    client: Client,
    challenges: Challenges,
}

/// Why a certificate was not obtained.
#[derive(Debug, thiserror::Error)]
enum ObtainError {
    #[error("have an account")]
    Account(#[source] AccountError),
    #[error("have an order fulfilled")]
    Order(#[source] OrderError),
    #[error("use what the ca has issued")]
    Unusable(#[source] CertificateError),
    #[error("the ca has issued a certificate for other names, or an old one")]
    Other,
    #[error("keep it")]
    Store(#[source] StoreError),
    #[error("the ca took too long")]
    TooSlow,
    #[error("a bug ended it")]
    Panicked,
}

impl Worker {
    pub(super) fn new(
        acme: model::Acme,
        store: Store,
        client: Client,
        challenges: Challenges,
        metrics: AcmeMetrics,
        wanted: watch::Receiver<Vec<AcmeCertificate>>,
    ) -> Self {
        let shared = Arc::new(Shared { acme, store, client, challenges });
        Self { shared, metrics, wanted, failed: HashMap::new(), spread: rand::rng().random_range(0.0..1.0) }
    }

    /// # Errors
    /// If the kernel gives no thread or the runtime cannot be had.
    pub(super) fn start(self) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("acme".to_owned()).spawn(move || runtime.block_on(self.run()))?;
        Ok(())
    }

    /// Ends when nobody wants anything any more.
    async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.failed.retain(|name, _| wanted.iter().any(|one| one.name() == name));
            self.metrics.forget_all();
            let now = SystemTime::now();
            let due = wanted.into_iter().map(|one| (self.due(&one), one)).min_by_key(|(due, _)| *due);
            let rest = match due {
                Some((due, certificate)) if due <= now => {
                    self.obtain(&certificate).await;
                    Duration::ZERO
                }
                Some((due, _)) => due.duration_since(now).unwrap_or_default().min(LONGEST_SLEEP),
                None => LONGEST_SLEEP,
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep(rest) => {}
            }
        }
    }

    fn due(&self, certificate: &AcmeCertificate) -> SystemTime {
        let held = held(certificate);
        if let Some(held) = &held {
            self.metrics.holds(certificate.name(), held.expires);
        }
        schedule::due(held, self.failed.get(certificate.name()).copied(), self.spread)
    }

    async fn obtain(&mut self, certificate: &AcmeCertificate) {
        let name = certificate.name();
        tracing::info!(name, names = ?certificate.names, "obtaining a certificate");
        let (shared, wanted) = (Arc::clone(&self.shared), certificate.clone());
        // In a task of its own, so that a panic ends it alone.
        let mut task = tokio::spawn(async move { shared.obtain(&wanted).await });
        let obtained = match timeout(OBTAIN, &mut task).await {
            Ok(ended) => ended.unwrap_or(Err(ObtainError::Panicked)),
            Err(_) => {
                task.abort();
                Err(ObtainError::TooSlow)
            }
        };
        self.metrics.ordered(obtained.is_ok());
        match obtained {
            Ok(()) => {
                self.failed.remove(name);
                tracing::info!(name, "certificate obtained");
            }
            Err(error) => {
                let asked = self.shared.client.asked_to_wait();
                let failed = Failed::once_more(self.failed.get(name).copied(), SystemTime::now(), asked);
                self.failed.insert(name.to_owned(), failed);
                let again = schedule::due(None, Some(failed), self.spread);
                let again_in = again.duration_since(failed.last).unwrap_or_default().as_secs();
                tracing::error!(name, %error, cause = cause(&error), again_in, "certificate not obtained");
            }
        }
    }
}

impl Shared {
    async fn obtain(&self, certificate: &AcmeCertificate) -> Result<(), ObtainError> {
        let account = account(&self.acme, &self.store, &self.client).await.map_err(ObtainError::Account)?;
        let obtained = obtain(&account, &certificate.names, self.acme.challenge, &self.challenges).await;
        let text = obtained.map_err(ObtainError::Order)?;
        let path = certificate.path();
        let issued = Certificate::parse(text.as_bytes(), text.as_bytes(), &files(certificate));
        let issued = issued.map_err(ObtainError::Unusable)?;
        if !issued.is_for_just(&certificate.names) || issued.has_expired(SystemTime::now()) {
            return Err(ObtainError::Other);
        }
        self.store.write(path, text.as_bytes()).map_err(ObtainError::Store)
    }
}

/// The certificate that there is; `None`: none, or one that cannot be used.
fn held(certificate: &AcmeCertificate) -> Option<Held> {
    if !certificate.path().exists() {
        return None;
    }
    match Certificate::load(&files(certificate)) {
        Ok(held) => Some(Held {
            as_wanted: held.is_for_just(&certificate.names),
            begins: held.begins(),
            expires: held.expires(),
        }),
        Err(error) => {
            tracing::warn!(name = certificate.name(), %error, cause = cause(&error), "certificate is useless");
            None
        }
    }
}

/// Key and certificate are in the same file, so that they are replaced together.
fn files(certificate: &AcmeCertificate) -> model::Certificate {
    model::Certificate { certificate: certificate.file.clone(), key: certificate.file.clone() }
}

/// Why something failed, down to its beginning. A CA has its say there, so it is bounded and safe on a terminal.
fn cause(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (**error).source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    let text: String = texts.join(": ").chars().take(LONGEST_REASON).collect();
    printable(&text)
}
