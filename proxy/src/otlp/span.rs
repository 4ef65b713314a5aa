//! The span of one request, from its beginning to its end.

use std::time::Duration;

use http::HeaderValue;
use weir_pool::Start;

use crate::trace::{Parent, SpanId, TraceId, traceparent};

/// What is remembered besides what every request's state has.
#[derive(Debug)]
pub(crate) struct Span {
    pub(super) id: SpanId,
    /// Whose part it is, if the client says so.
    pub(super) parent: Option<Parent>,
    /// As many as there were tries, at most.
    pub(super) wakes: Vec<Wake>,
}

/// A wait for a VM that was not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wake {
    pub(super) id: SpanId,
    pub(super) start: Start,
    /// After the request's beginning.
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Span {
    pub(super) fn new(parent: Option<Parent>) -> Self {
        Self { id: SpanId::random(), parent, wakes: Vec::new() }
    }

    /// Whether the trace began elsewhere.
    pub(crate) fn continues_trace(&self) -> bool {
        self.parent.is_some()
    }

    /// What makes the VM's spans part of this one.
    pub(crate) fn traceparent(&self, trace: &TraceId) -> HeaderValue {
        traceparent(trace, &self.id, self.parent.as_ref().is_some_and(Parent::is_random))
    }

    /// The request has got a VM, `now` after its beginning, for which it has `waited`.
    pub(crate) fn got_vm(&mut self, start: Start, now: Duration, waited: Duration) {
        if start != Start::Warm {
            let from = now.saturating_sub(waited);
            self.wakes.push(Wake { id: SpanId::random(), start, from, to: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_vm_that_was_not_there_was_woken() {
        let mut span = Span::new(None);
        let [short, long] = [3, 10].map(Duration::from_millis);
        span.got_vm(Start::Warm, long, short);
        assert_eq!(span.wakes, []);
        span.got_vm(Start::Clone, long, short);
        span.got_vm(Start::Cold, short, long);
        let times: Vec<_> = span.wakes.iter().map(|wake| (wake.start, wake.from, wake.to)).collect();
        let after = Duration::from_millis(7);
        assert_eq!(times, [(Start::Clone, after, long), (Start::Cold, Duration::ZERO, short)]);
        assert_ne!(span.wakes[0].id, span.wakes[1].id);
    }
}
