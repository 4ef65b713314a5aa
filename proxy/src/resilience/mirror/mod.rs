//! Mirroring: another pool gets copies of a route's requests, to see how it does with them. Nobody waits for the answers,
//! and nobody gets them.
//!
//! ```text
//!  request's header goes to its VM --chance, a free slot--> copy begun --no body--------> sent
//!     body, part by part -----------------------------------> collected --its end-------> sent
//!                                                             |  too large, or a retry
//!                                                             `--> forgotten
//! ```
//!
//! A copy is what the VM gets, all edits included, and `weir-mirror: 1`. It holds one of the route's slots from its
//! beginning, so that bodies never take more memory than slots times their largest size. The original does nothing but
//! clone its header and count its body's parts: all else is done by a task of the copy's own, see [`send`].

mod send;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use prometheus::IntCounterVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_config::model::{self, Thousandths};
use weir_pool::Pool;

use crate::context::{Context, Route};
use crate::proxy::{Proxy, caller};
use crate::upstream::Traffic;

use send::Order;
pub(crate) use send::Sender;

/// Tells the application that nobody gets its answer.
const MARK: HeaderName = HeaderName::from_static("weir-mirror");

/// Where copies of a route's requests go. Made when the configuration is read.
#[derive(Debug)]
pub(crate) struct Mirror {
    pool: Arc<Pool>,
    config: model::Mirror,
    slots: Arc<Semaphore>,
    series: MirrorSeries,
}

/// What a route's copies tell Prometheus.
#[derive(Clone, Debug)]
pub(crate) struct MirrorSeries {
    pub(crate) route: String,
    /// By route and result.
    pub(crate) copies: IntCounterVec,
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The mirror answered, whatever its status.
    Answered,
    /// It did not, or broke off.
    Failed,
    /// Nor within the time.
    TimedOut,
    /// It had no VM that could take it.
    NoVm,
    /// As many as there may be were under way already.
    Busy,
    /// Its body was too large, or did not come to its end at the first try.
    NoBody,
}

/// A copy whose body is still coming.
#[derive(Debug)]
pub(crate) struct Copying {
    mirror: Arc<Mirror>,
    order: Order,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NoVm => "no_vm",
            Self::Busy => "busy",
            Self::NoBody => "no_body",
        }
    }
}

impl Mirror {
    pub(crate) fn new(config: &model::Mirror, pool: Arc<Pool>, series: MirrorSeries) -> Arc<Self> {
        let slots = Arc::new(Semaphore::new(config.max_in_flight as usize));
        Arc::new(Self { pool, config: config.clone(), slots, series })
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok();
        if slot.is_none() {
            self.count(Outcome::Busy);
        }
        slot
    }

    fn count(&self, outcome: Outcome) {
        self.series.copies.with_label_values(&[self.series.route.as_str(), outcome.label()]).inc();
    }
}

impl Proxy {
    /// Begins a copy of `request`, which is about to be sent to its VM, if there is to be one.
    pub(crate) fn begin_copy(&self, session: &mut Session, request: &RequestHeader, ctx: &mut Context) {
        self.give_up_copy(ctx);
        let Some(route) = ctx.route.clone() else { return };
        let Some(mirror) = &route.mirror else { return };
        let is_first = ctx.tries <= 1 && !matches!(ctx.traffic, Some(Traffic::Tunnel));
        if !is_first || !is_chosen(mirror.config.percent, rand::random()) {
            return;
        }
        let Some(slot) = mirror.slot() else { return };
        let has_body = !session.as_downstream_mut().is_body_empty();
        let Ok(order) = self.order(session, request, &route, ctx.client, has_body, slot) else {
            // No room for the mark among its fields. The request itself goes its way.
            return mirror.count(Outcome::Failed);
        };
        if has_body {
            ctx.copying = Some(Box::new(Copying { mirror: Arc::clone(mirror), order }));
        } else {
            self.sender.send(Arc::clone(mirror), order, &self.upstreams);
        }
    }

    fn order(
        &self,
        session: &Session,
        request: &RequestHeader,
        route: &Route,
        client: Option<IpAddr>,
        has_body: bool,
        slot: OwnedSemaphorePermit,
    ) -> pingora::Result<Order> {
        let mut copy = request.clone();
        copy.set_version(Version::HTTP_11);
        // The body is sent whole, with its length.
        copy.remove_header(&header::TRANSFER_ENCODING);
        copy.remove_header(&header::CONTENT_LENGTH);
        copy.remove_header(&header::EXPECT);
        copy.insert_header(MARK, HeaderValue::from_static("1"))?;
        let fingerprint = self.fingerprint(session.req_header());
        let caller = caller(session, route, client);
        Ok(Order { request: copy, body: has_body.then(Vec::new), fingerprint, caller, slot })
    }

    /// Whatever is still missing of the copy's body will not come.
    pub(crate) fn give_up_copy(&self, ctx: &mut Context) {
        if let Some(copying) = ctx.copying.take() {
            copying.mirror.count(Outcome::NoBody);
        }
    }

    /// Takes note of a part of the request's body; `ends`: it is the last one.
    pub(crate) fn copy_body(&self, part: Option<&Bytes>, ends: bool, ctx: &mut Context) {
        let Some(copying) = &mut ctx.copying else { return };
        let body = copying.order.body.get_or_insert_default();
        let room = copying.mirror.config.max_body.saturating_sub(body.len() as u64);
        if part.is_some_and(|part| part.len() as u64 > room) {
            return self.give_up_copy(ctx);
        }
        body.extend_from_slice(part.map_or(&[], |part| part));
        if (ends || part.is_none())
            && let Some(copying) = ctx.copying.take()
        {
            let Copying { mirror, order } = *copying;
            self.sender.send(mirror, order, &self.upstreams);
        }
    }
}

/// Whether a request is among so many per cent; `random` is uniform.
fn is_chosen(percent: Thousandths, random: u32) -> bool {
    // As in a split: the upper part of the product is as good as uniform.
    (100_000 * u64::from(random)) >> 32 < percent.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_many_are_copied_as_was_said(thousandths in prop_oneof![Just(0), Just(100_000), 0..=100_000u64]) {
            // As many equally distant numbers as there are thousandths of a per cent.
            let random = |unit: u64| u32::try_from((unit << 32).div_ceil(100_000)).unwrap();
            let copied = (0..100_000).filter(|unit| is_chosen(Thousandths(thousandths), random(*unit))).count() as u64;
            prop_assert_eq!(copied, thousandths);
        }
    }
}
