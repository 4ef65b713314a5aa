//! TLS on clients' connections (rustls).
//!
//! pingora's accept loop hands over connections in plain text, and the handshake is done here, before its HTTP sees them:
//! so it has a deadline of its own, versions are a listener's choice, and whatever comes before it (PROXY protocol) can.

mod certificate;
mod client;
mod names;
mod resolver;
mod settings;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{ALPN, Shutdown as _, Ssl as _, Stream};
use pingora::{Error, ErrorType};
use rustls::server::VerifierBuilderError;
use tokio::time::MissedTickBehavior;
use weir_config::model;

pub use certificate::{Certificate, CertificateError};
pub(crate) use client::Identity;
pub use client::roots;
use resolver::Resolver;
use settings::Settings;

use crate::acme::Challenges;
use crate::metrics::Metrics;

/// How often the files of certificates and of clients' CA are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What CAs speak that look whether a name is under weir's control (RFC 8737): a handshake, and nothing after it.
const ACME_TLS: &[u8] = b"acme-tls/1";

/// A listener's TLS.
pub(crate) struct Tls {
    settings: Settings,
    resolver: Arc<Resolver>,
}

/// Why a listener's TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be used.
    #[error("load a certificate")]
    Certificate(#[from] CertificateError),
    /// Clients' certificates cannot be asked for.
    #[error("ask clients for certificates")]
    ClientAuth(#[source] VerifierBuilderError),
    /// rustls refuses the settings.
    #[error("set TLS up")]
    Settings(#[from] rustls::Error),
}

impl Tls {
    /// Reads the certificates. `http2`: it is offered to clients.
    ///
    /// # Errors
    /// If one cannot be used.
    pub(crate) fn load(config: &model::Tls, http2: bool) -> Result<Self, TlsError> {
        let resolver = Arc::new(Resolver::load(&config.certificates, &config.acme)?);
        let settings = Settings::load(config, http2, Arc::clone(&resolver))?;
        Ok(Self { settings, resolver })
    }

    /// Its address was that of `former`, whose clients come back.
    pub(crate) fn take_over(&self, former: &Self) {
        self.settings.resume_sessions_of(&former.settings);
    }

    /// The handshake on a connection that has just been accepted.
    pub(crate) async fn accept(&self, socket: Socket) -> pingora::Result<Stream> {
        let acceptor = Acceptor::from_server_config(self.settings.now());
        let mut stream = acceptor.tls_handshake(socket).await?;
        if matches!(stream.selected_alpn_proto(), Some(ALPN::Custom(protocol)) if protocol.protocol() == ACME_TLS)
        {
            stream.shutdown().await;
            return Error::e_explain(ErrorType::ConnectionClosed, "a CA has seen what it wanted to see");
        }
        Ok(Box::new(stream))
    }

    /// From now on CAs are shown what `challenges` has for them.
    pub(crate) fn show(&self, challenges: &Challenges) {
        self.resolver.show(challenges);
    }

    /// Looks at the files for ever.
    pub(crate) fn reload_for_ever(
        self: &Arc<Self>,
        metrics: &Metrics,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (tls, reloads) = (Arc::clone(self), metrics.tls_reloads.clone());
        async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let tls = Arc::clone(&tls);
                // Files may be slow.
                let outcomes = tokio::task::spawn_blocking(move || tls.reload()).await;
                for (what, outcome) in outcomes.unwrap_or_default() {
                    reloads.with_label_values(&[if outcome.is_ok() { "ok" } else { "failed" }]).inc();
                    report(what, outcome);
                }
            }
        }
    }

    /// Reads the files again that are others now; what came of each.
    fn reload(&self) -> Vec<(&'static str, Result<(), TlsError>)> {
        let certificates = self.resolver.reload().into_iter();
        let certificates = certificates.map(|outcome| ("certificate", outcome.map_err(TlsError::from)));
        certificates.chain(self.settings.reload().map(|outcome| ("client_ca", outcome))).collect()
    }
}

fn report(what: &str, outcome: Result<(), TlsError>) {
    let Err(error) = outcome else { return tracing::info!("{what} reloaded") };
    let error: Box<dyn std::error::Error> = match error {
        // It names the file, which says more than that there is one.
        TlsError::Certificate(error) => error.into(),
        error => error.into(),
    };
    let cause = error.source().map(ToString::to_string);
    tracing::error!(%error, cause, "{what} not reloaded, the old one stays in use");
}
