//! TLS on clients' connections (rustls).
//!
//! pingora's accept loop hands over connections in plain text, and the handshake is done here, before its HTTP sees them:
//! so it has a deadline of its own, versions are a listener's choice, and whatever comes before it (PROXY protocol) can.

mod certificate;
mod client;
mod names;
mod resolver;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{ALPN, Shutdown as _, Ssl as _, Stream};
use pingora::{Error, ErrorType};
use rustls::crypto::ring;
use rustls::server::{ServerConfig, VerifierBuilderError};
use rustls::version::{TLS12, TLS13};
use tokio::time::MissedTickBehavior;
use weir_config::model::{self, TlsVersion};

pub use certificate::{Certificate, CertificateError};
pub(crate) use client::Identity;
pub use client::roots;
use resolver::Resolver;

use crate::acme::Challenges;
use crate::metrics::Metrics;

/// How often certificates' files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// In the order of preference (RFC 7301); HTTP/2 may be left out.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What CAs speak that look whether a name is under weir's control (RFC 8737): a handshake, and nothing after it.
const ACME_TLS: &[u8] = b"acme-tls/1";

/// A listener's TLS.
pub(crate) struct Tls {
    acceptor: Acceptor,
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
        let versions = match config.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &config.client_auth {
            Some(auth) => builder.with_client_cert_verifier(client::verifier(auth, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::clone(&resolver) as _);
        let protocols = if http2 { &PROTOCOLS[..] } else { &PROTOCOLS[1..] };
        server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        if !config.acme.is_empty() {
            server.alpn_protocols.push(ACME_TLS.to_vec());
        }
        // Clients keep what resuming takes, instead of weir's memory.
        server.ticketer = ring::Ticketer::new()?;
        Ok(Self { acceptor: Acceptor::from_server_config(Arc::new(server)), resolver })
    }

    /// The handshake on a connection that has just been accepted.
    pub(crate) async fn accept(&self, socket: Socket) -> pingora::Result<Stream> {
        let mut stream = self.acceptor.tls_handshake(socket).await?;
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

    /// Looks at the certificates' files for ever.
    pub(crate) fn reload_for_ever(&self, metrics: &Metrics) -> impl Future<Output = ()> + Send + use<> {
        let (resolver, reloads) = (Arc::clone(&self.resolver), metrics.tls_reloads.clone());
        async move {
            let mut ticks = tokio::time::interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let resolver = Arc::clone(&resolver);
                // Files may be slow.
                let outcomes = tokio::task::spawn_blocking(move || resolver.reload()).await;
                for outcome in outcomes.unwrap_or_default() {
                    reloads.with_label_values(&[if outcome.is_ok() { "ok" } else { "failed" }]).inc();
                    report(&outcome);
                }
            }
        }
    }
}

fn report(outcome: &Result<(), CertificateError>) {
    match outcome {
        Ok(()) => tracing::info!("certificate reloaded"),
        Err(error) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%error, cause, "certificate not reloaded, the old one stays in use");
        }
    }
}
