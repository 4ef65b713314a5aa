//! What rustls is told for a listener, and again whenever that changes.
//!
//! ```text
//!  client_ca --read--> trusted --the file is another--> read again --good--> trusted, and no earlier session is resumed
//!                         ^                                 |
//!                         '------------- bad: says so ------'
//! ```
//!
//! A session that is resumed is that of the client it began with, whose certificate is not looked at again. So tickets
//! are worth something only where the same clients are let in: a listener that takes another's address over gets its
//! tickets' keys, one that trusts others does not.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::server::{ProducesTickets, ServerConfig};
use rustls::version::{TLS12, TLS13};
use weir_config::model::{self, TlsVersion};

use super::certificate::Stamp;
use super::client::{roots, verifier};
use super::resolver::Resolver;
use super::{ACME_TLS, TlsError};

/// In the order of preference (RFC 7301); HTTP/2 may be left out.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// See the module's documentation.
pub(super) struct Settings {
    current: ArcSwap<ServerConfig>,
    terms: Terms,
    /// `None`: clients are not asked who they are.
    trust: Option<Mutex<Trust>>,
}

/// What stays the same as long as the listener is there.
struct Terms {
    min_version: TlsVersion,
    protocols: Vec<Vec<u8>>,
    resolver: Arc<Resolver>,
}

/// Whose certificates are good.
#[derive(Clone)]
struct Trust {
    file: PathBuf,
    stamp: Option<Stamp>,
    roots: Arc<RootCertStore>,
    /// Clients without a certificate are refused.
    required: bool,
}

impl Settings {
    /// Reads the clients' CA. `http2`: it is offered to clients.
    ///
    /// # Errors
    /// If it cannot be used, or rustls refuses the settings.
    pub(super) fn load(config: &model::Tls, http2: bool, resolver: Arc<Resolver>) -> Result<Self, TlsError> {
        let protocols = if http2 { &PROTOCOLS[..] } else { &PROTOCOLS[1..] };
        let ca = (!config.acme.is_empty()).then_some(ACME_TLS);
        let protocols = protocols.iter().copied().chain(ca).map(<[u8]>::to_vec).collect();
        let terms = Terms { min_version: config.min_version, protocols, resolver };
        let trust = config.client_auth.as_ref().map(Trust::load).transpose()?;
        let current = ArcSwap::from_pointee(terms.server_config(trust.as_ref())?);
        Ok(Self { current, terms, trust: trust.map(Mutex::new) })
    }

    /// For the next handshake.
    pub(super) fn now(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the clients' CA again if its file is another one now. Sessions that began before are not resumed then. A bad
    /// one is read again only when its file changes once more. `None`: nothing has changed.
    pub(super) fn reload(&self) -> Option<Result<(), TlsError>> {
        let mut trust = self.trust.as_ref()?.lock();
        let stamp = Stamp::of(&trust.file);
        if stamp == trust.stamp {
            return None;
        }
        trust.stamp = stamp;
        Some(self.read_again(&mut trust))
    }

    fn read_again(&self, trust: &mut Trust) -> Result<(), TlsError> {
        let new = Trust { roots: Arc::new(roots(&trust.file)?), ..trust.clone() };
        self.current.store(Arc::new(self.terms.server_config(Some(&new))?));
        *trust = new;
        Ok(())
    }

    /// Sessions that began with `former` are resumed from now on, if it lets the same clients in.
    pub(super) fn resume_sessions_of(&self, former: &Self) {
        let (tickets, trusted) = former.tickets();
        let Some(trust) = &self.trust else {
            if trusted.is_none() {
                self.set_tickets(tickets);
            }
            return;
        };
        // Held, so that the file is not read again meanwhile.
        let trust = trust.lock();
        if trusted.is_some_and(|trusted| trust.lets_in_the_same_as(&trusted)) {
            self.set_tickets(tickets);
        }
    }

    /// Its tickets' keys, and for whom they were made.
    fn tickets(&self) -> (Arc<dyn ProducesTickets>, Option<Trust>) {
        let trust = self.trust.as_ref().map(Mutex::lock);
        (Arc::clone(&self.current.load().ticketer), trust.as_deref().cloned())
    }

    fn set_tickets(&self, tickets: Arc<dyn ProducesTickets>) {
        let mut server = ServerConfig::clone(&self.current.load());
        server.ticketer = tickets;
        self.current.store(Arc::new(server));
    }
}

impl Terms {
    fn server_config(&self, trust: Option<&Trust>) -> Result<ServerConfig, TlsError> {
        let versions = match self.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match trust {
            Some(trust) => builder.with_client_cert_verifier(verifier(
                Arc::clone(&trust.roots),
                trust.required,
                provider,
            )?),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::clone(&self.resolver) as _);
        server.alpn_protocols.clone_from(&self.protocols);
        // Clients keep what resuming takes, instead of weir's memory.
        server.ticketer = ring::Ticketer::new()?;
        Ok(server)
    }
}

impl Trust {
    fn load(config: &model::ClientAuth) -> Result<Self, TlsError> {
        // Before it is read: what changes after that is seen.
        let stamp = Stamp::of(&config.ca);
        let roots = Arc::new(roots(&config.ca)?);
        Ok(Self { file: config.ca.clone(), stamp, roots, required: config.required })
    }

    fn lets_in_the_same_as(&self, other: &Self) -> bool {
        self.required == other.required && self.roots.roots == other.roots.roots
    }
}
