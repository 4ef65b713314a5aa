//! What is remembered of one request from hook to hook.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use weir_config::model;
use weir_pool::{Lease, Pass, Start};

use crate::answer::Refusal;
use crate::auth::Identified;
use crate::compress::Compressed;
use crate::filter::{Answer, Filters, Place};
use crate::in_flight::InFlightGuard;
use crate::metrics::RouteSeries;
use crate::otlp::Span;
use crate::patience::Watch;
use crate::resilience::{
    Affinity, Backing, Backings, Belongs, Copying, Instead, Intercepted, Mirror, Permit,
};
use crate::retry::Blame;
use crate::trace::{Parent, TraceId};
use crate::upstream::{Pace, Traffic};

/// What the router finds.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// A route to a pool.
    Pool(Arc<Route>),
    /// A route that weir answers for itself.
    Answer(Arc<AnsweringRoute>),
}

/// A route without a pool, ready for use.
#[derive(Debug)]
pub(crate) struct AnsweringRoute {
    pub(crate) config: Arc<model::Route>,
    pub(crate) series: RouteSeries,
    pub(crate) filters: Option<Box<Filters>>,
    pub(crate) instead: Option<Box<Instead>>,
    pub(crate) answer: Answer,
}

/// A route to a pool, or to several, ready for use.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) config: Arc<model::Route>,
    /// Its place in the configuration.
    pub(crate) number: u32,
    pub(crate) to: Backings,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) mirror: Option<Arc<Mirror>>,
    pub(crate) filters: Option<Box<Filters>>,
    pub(crate) instead: Option<Box<Instead>>,
}

impl Found {
    /// The route's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Pool(route) => &route.config.name,
            Self::Answer(route) => &route.config.name,
        }
    }
}

/// One request's state. Whatever ends the request, a panic included, drops it, and with it the lease and the request's
/// place in the count.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) began: Instant,
    pub(crate) began_at: SystemTime,
    /// Whom it comes from: whoever connected, or whom trusted proxies name.
    pub(crate) client: Option<IpAddr>,
    /// Where the route asks who that is.
    pub(crate) identified: Option<Arc<Identified>>,
    pub(crate) route: Option<Arc<Route>>,
    /// Which of the route's pools it goes to.
    pub(crate) backing: usize,
    /// Which others it belongs to, where its route cares.
    pub(crate) belongs: Option<Belongs>,
    /// Its route, if that has no pool; then there is no other.
    pub(crate) answering: Option<Arc<AnsweringRoute>>,
    /// Among its client's, where the route counts them.
    pub(crate) place: Option<Place>,
    /// Held from the choice of a VM to the last byte of its response.
    pub(crate) lease: Option<Lease>,
    /// Leave to go to the pool, of its circuit breaker.
    pub(crate) permit: Option<Permit>,
    /// Leave to be sent to the lease's VM.
    pub(crate) pass: Option<Pass>,
    /// Times that a VM was asked, or was to be.
    pub(crate) tries: usize,
    pub(crate) blame: Blame,
    pub(crate) vm: Option<u64>,
    /// A VM may have seen something of it.
    pub(crate) sent: bool,
    /// What the request needs of its connection to a VM; the same in each try.
    pub(crate) traffic: Option<Traffic>,
    /// The VM was asked to switch protocols.
    pub(crate) asks_upgrade: bool,
    /// Of the bridge to the VM, where there is one.
    pub(crate) pace: Option<Pace>,
    /// Looks to it that the VM's connection is not held for too long.
    pub(crate) watch: Option<Watch>,
    /// Its copy, as long as the body is not there.
    pub(crate) copying: Option<Box<Copying>>,
    /// Of the response's body, if it is compressed on its way.
    pub(crate) compressed: Option<Box<Compressed>>,
    pub(crate) start: Option<Start>,
    pub(crate) queued: Duration,
    /// From the beginning to the response's header.
    pub(crate) first_byte: Option<Duration>,
    /// Why weir answers itself, once that is decided.
    pub(crate) refusal: Option<Refusal>,
    /// What the client gets in place of the VM's answer.
    pub(crate) intercepted: Option<Intercepted>,
    pub(crate) end: End,
    pub(crate) trace: Option<TraceId>,
    /// Set if a VM is told something else of its trace than the client has said.
    pub(crate) traceparent: Option<HeaderValue>,
    /// Its part of the trace, if that is exported.
    pub(crate) span: Option<Box<Span>>,
    _in_flight: InFlightGuard,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a whole response, a VM's or weir's.
    Whole,
    /// The client went away before.
    ClientGone,
    /// Somebody was too slow; the refusal says who.
    TooSlow,
    /// The response broke off: its VM died or broke the protocol.
    Truncated,
}

impl Context {
    pub(crate) fn new(in_flight: InFlightGuard, now: Instant, at: SystemTime) -> Self {
        Self {
            began: now,
            began_at: at,
            client: None,
            identified: None,
            route: None,
            backing: 0,
            belongs: None,
            answering: None,
            place: None,
            lease: None,
            permit: None,
            pass: None,
            tries: 0,
            blame: Blame::default(),
            vm: None,
            sent: false,
            traffic: None,
            asks_upgrade: false,
            pace: None,
            watch: None,
            copying: None,
            compressed: None,
            start: None,
            queued: Duration::ZERO,
            first_byte: None,
            refusal: None,
            intercepted: None,
            end: End::Whole,
            trace: None,
            traceparent: None,
            span: None,
            _in_flight: in_flight,
        }
    }

    /// Takes part in its parent's trace, or begins one; which it is.
    pub(crate) fn join_trace(&mut self, parent: Option<&Parent>) -> TraceId {
        let trace = parent.map(|parent| parent.trace).unwrap_or_else(|| {
            let (trace, header) = TraceId::begin();
            self.traceparent = Some(header);
            trace
        });
        self.trace = Some(trace);
        trace
    }

    /// The pool that it goes to, if its route has one.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.route.as_ref()?.to.get(self.backing)
    }

    /// Which others it should be served together with. A retry goes to any VM: it may have been theirs that failed.
    pub(crate) fn company(&self) -> Option<Belongs> {
        self.belongs.filter(|belongs| self.tries <= 1 && !belongs.is_new())
    }

    /// Tells the pool's circuit breaker, if it has one, how the try has turned out.
    pub(crate) fn settle(&mut self, success: bool, now: impl FnOnce() -> Duration) {
        if let Some(permit) = &mut self.permit {
            permit.settle(success, now());
        }
    }

    pub(crate) fn hold(&mut self, lease: Lease) {
        self.vm = Some(lease.vm().0);
        self.queued += lease.queued();
        // One wait for a boot makes the request a cold one, whatever a retry finds.
        self.start = self.start.max(Some(lease.start()));
        if let Some(span) = &mut self.span {
            span.got_vm(lease.start(), self.began.elapsed(), lease.queued());
        }
        self.lease = Some(lease);
    }

    /// The word for the access log.
    pub(crate) fn error(&self) -> Option<&'static str> {
        match self.end {
            End::ClientGone => Some("client_gone"),
            End::Truncated => Some("truncated"),
            End::Whole | End::TooSlow => self.refusal.map(Refusal::word),
        }
    }
}
