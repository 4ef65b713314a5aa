//! The proxy's parts and the decisions that its hooks ask for.

use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Method, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use weir_config::model::Config;
use weir_pool::{Caller, Lease, Pools};

use crate::access_log::AccessLog;
use crate::acme::Challenges;
use crate::answer::Refusal;
use crate::compress::Compressing;
use crate::context::{Context, Found, Route};
use crate::downstream;
use crate::filter::Answer;
use crate::filter::TrustedProxies;
use crate::hangup::hangup;
use crate::in_flight::InFlight;
use crate::metrics::Metrics;
use crate::otlp::Spans;
use crate::record::Unrouted;
use crate::request::{authority_and_target, has_one_framing, header_bytes, header_fits};
use crate::resilience::{Backing, Sender};
use crate::serve::{ServeError, Timeouts};
use crate::table::Table;
use crate::target;
use crate::tenancies::tenancy;
use crate::upstream::Upstreams;

/// The proxy as pingora drives it.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where requests go; a reload replaces it.
    pub(crate) table: Arc<ArcSwap<Table>>,
    pub(crate) trusted_proxies: TrustedProxies,
    /// Requests that found no route; and the access log of all.
    pub(crate) unrouted: Arc<Unrouted>,
    pub(crate) metrics: Metrics,
    pub(crate) timeouts: Timeouts,
    pub(crate) in_flight: InFlight,
    draining: Arc<AtomicBool>,
    /// What listeners answer that send everybody to TLS.
    pub(crate) to_https: Answer,
    /// What CAs may ask for.
    pub(crate) challenges: Challenges,
    /// Where spans are exported from; `None`: nowhere.
    pub(crate) spans: Option<Spans>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) compressing: Compressing,
    /// Of copies of requests.
    pub(crate) sender: Sender,
    made: Instant,
    /// Of fingerprints, and of what clients are told apart by for [`crate::resilience::Affinity`].
    pub(crate) keys: RandomState,
}

/// Why a wait for a lease ended without one.
pub(crate) enum NoLease {
    Refused(Refusal),
    ClientGone(Box<Error>),
}

impl Proxy {
    pub(crate) fn new(
        config: &Config,
        pools: &Pools,
        metrics: Metrics,
        access_log: AccessLog,
        timeouts: Timeouts,
        in_flight: InFlight,
        draining: Arc<AtomicBool>,
    ) -> Result<Self, ServeError> {
        let table = Table::new(config, pools, &metrics, None)?;
        Ok(Self {
            table: Arc::new(ArcSwap::from_pointee(table)),
            trusted_proxies: TrustedProxies::new(&config.host.trusted_proxies),
            unrouted: Arc::new(Unrouted {
                series: metrics.route("", ""),
                access_log,
                turned_away: metrics.turned_away.clone(),
                connections: InFlight::new(metrics.connections.clone()),
            }),
            metrics,
            timeouts,
            in_flight,
            draining,
            to_https: Answer::to_https(),
            challenges: Challenges::default(),
            spans: None,
            upstreams: Upstreams::new(timeouts),
            compressing: Compressing::default(),
            sender: Sender::default(),
            made: Instant::now(),
            keys: RandomState::new(),
        })
    }

    pub(crate) fn since_made(&self) -> Duration {
        self.made.elapsed()
    }

    pub(crate) fn route(&self, request: &RequestHeader) -> Result<Found, Refusal> {
        // A tunnel to somewhere is not what weir is for, and changes what the body is.
        if request.method == Method::CONNECT {
            return Err(Refusal::BadRequest);
        }
        if !header_fits(request) {
            return Err(Refusal::HeaderTooLarge);
        }
        if !has_one_framing(request) {
            return Err(Refusal::BadRequest);
        }
        let (authority, target) = authority_and_target(request);
        if authority.is_none() && request.version != Version::HTTP_10 {
            return Err(Refusal::BadRequest);
        }
        let host = target::host(authority.unwrap_or_default()).map_err(|_| Refusal::BadRequest)?;
        let path = target::path(target).map_err(|_| Refusal::BadRequest)?;
        self.table.load().router.find(&host, &path, &request.headers).cloned().ok_or(Refusal::NoRoute)
    }

    /// Whom a request comes from; `None`: the connection has no address.
    pub(crate) fn client(&self, session: &Session) -> Option<IpAddr> {
        let peer = session.client_addr()?.as_inet().map(SocketAddr::ip)?;
        Some(self.trusted_proxies.client(peer, &session.req_header().headers))
    }

    /// Waits for a lease, and looks at the client meanwhile, which pingora does not do while a hook waits.
    pub(crate) async fn lease(
        &self,
        session: &mut Session,
        route: &Route,
        backing: &Backing,
        ctx: &Context,
    ) -> Result<Lease, NoLease> {
        let tenancy = tenancy(session, &backing.pool);
        let caller = caller(session, route, ctx.client);
        let company = ctx.company();
        let session = session.as_downstream_mut();
        let leasing = async {
            match (tenancy, company) {
                (Some(tenancy), _) => tenancy.lease_for(&caller).await,
                (None, Some(company)) => {
                    let rank = |member| company.rank(&self.keys, member);
                    backing.pool.lease_ranked(&caller, rank).await
                }
                (None, None) => backing.pool.lease_for(&caller).await,
            }
        };
        let leased = tokio::select! {
            biased;
            leased = leasing => leased,
            gone = gone(session) => return Err(NoLease::ClientGone(gone.into_down())),
        };
        leased.map_err(|error| NoLease::Refused(Refusal::from(&error)))
    }

    /// Ends a try that failed: the request gives its VM up, and may go to another one or not.
    pub(crate) async fn end_try(&self, ctx: &mut Context) -> Result<(), Refusal> {
        // As long as it is held, a VM that is out of service is not stopped: then it is only gone if it ended.
        let blameless = match ctx.lease.take() {
            Some(lease) => ctx.blame.allows_retry(lease.gone()).await,
            None => true,
        };
        let in_budget = |backing: &Backing| backing.retries.try_retry(self.since_made());
        if blameless && ctx.backing().is_some_and(in_budget) { Ok(()) } else { Err(Refusal::VmFailed) }
    }

    pub(crate) fn close_if_draining(&self, session: &mut Session) {
        if self.draining.load(Acquire) || downstream::is_closing(session) {
            session.set_keepalive(None);
        }
    }
}

/// Who asks for a lease.
pub(crate) fn caller(session: &Session, route: &Route, client: Option<IpAddr>) -> Caller {
    Caller {
        class: Arc::clone(&route.config.class),
        route: route.number,
        client: client.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).into(),
        bytes: header_bytes(session.req_header()) as u64,
    }
}

/// Resolves when the client has gone away.
async fn gone(session: &mut ServerSession) -> Box<Error> {
    // HTTP/2 tells of a stream's end beside its body.
    let idle = if session.is_http2() || session.is_body_done() {
        session.read_body_or_idle(true).await.err()
    } else {
        hangup(session).await;
        None
    };
    idle.unwrap_or_else(|| Error::explain(ErrorType::ConnectionClosed, "client gone while waiting"))
}
