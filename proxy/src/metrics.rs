//! What the proxy tells Prometheus.
//!
//! A route's series are looked up once and kept with the route, so that a request costs a few atomic additions.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::resilience::{Breaker, BreakerSeries};
use crate::retry::Retries;

/// From what a warm VM needs to the longest timeouts.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Status codes that have a series of their own.
const CODES: std::ops::Range<u16> = 100..600;

/// The status that the metrics and the access log give a request whose client went away before an answer (nginx's).
pub(crate) const CLIENT_GONE: u16 = 499;

/// The proxy's metric families.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) connections: IntGauge,
    retries: IntCounterVec,
    retries_refused: IntCounterVec,
    filter_refusals: IntCounterVec,
    breaker_state: IntGaugeVec,
    breaker_opened: IntCounterVec,
    rule_errors: IntCounterVec,
    pub(crate) truncated: IntCounter,
    pub(crate) log_dropped: IntCounter,
    pub(crate) turned_away: IntCounter,
    pub(crate) tls_reloads: IntCounterVec,
}

/// One route's time series.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    route: String,
    pool: String,
    requests: IntCounterVec,
    duration: Histogram,
    by_code: Box<[OnceLock<IntCounter>]>,
}

impl Metrics {
    /// Counts the access log's lines that had to be dropped; for [`crate::AccessLog::start`].
    pub fn access_log_dropped(&self) -> IntCounter {
        self.log_dropped.clone()
    }

    /// Makes the families and registers them.
    ///
    /// # Errors
    ///
    /// If `registry` has one of them already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let duration = HistogramOpts::new(
            "weir_http_request_duration_seconds",
            "From a request's header to its response's last byte.",
        );
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new("weir_http_requests_total", "Requests, by the status that the client got."),
                &["route", "pool", "code"],
            )?,
            duration: HistogramVec::new(duration.buckets(SECONDS.to_vec()), &["route", "pool"])?,
            in_flight: IntGauge::new("weir_http_requests_in_flight", "Requests under way.")?,
            connections: IntGauge::new("weir_http_connections", "Clients' connections that are open.")?,
            retries: IntCounterVec::new(
                Opts::new("weir_http_retries_total", "Requests sent to a VM once more."),
                &["pool"],
            )?,
            retries_refused: IntCounterVec::new(
                Opts::new(
                    "weir_http_retries_refused_total",
                    "Requests not sent to a VM once more because the pool's budget for that was spent.",
                ),
                &["pool"],
            )?,
            filter_refusals: IntCounterVec::new(
                Opts::new("weir_filter_refusals_total", "Requests that a route's filters refused."),
                &["route", "reason"],
            )?,
            breaker_state: IntGaugeVec::new(
                Opts::new("weir_pool_breaker_state", "Circuit breakers: 0 closed, 1 half open, 2 open."),
                &["pool"],
            )?,
            breaker_opened: IntCounterVec::new(
                Opts::new("weir_pool_breaker_opened_total", "Times that a pool's circuit breaker opened."),
                &["pool"],
            )?,
            rule_errors: IntCounterVec::new(
                Opts::new("weir_rule_errors_total", "Conditions of rules that could not be evaluated."),
                &["route"],
            )?,
            truncated: IntCounter::new(
                "weir_http_responses_truncated_total",
                "Responses that broke off because their VM did.",
            )?,
            log_dropped: IntCounter::new(
                "weir_access_log_dropped_total",
                "Lines of the access log that were dropped because its reader is too slow.",
            )?,
            turned_away: IntCounter::new(
                "weir_connections_refused_total",
                "Connections closed at once because their listener has as many as it may have.",
            )?,
            tls_reloads: IntCounterVec::new(
                Opts::new(
                    "weir_tls_reloads_total",
                    "Certificates and clients' CAs read again because their files changed.",
                ),
                &["result"],
            )?,
        };
        metrics.register_with(registry).map(|()| metrics)
    }

    fn register_with(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.duration.clone()))?;
        registry.register(Box::new(self.in_flight.clone()))?;
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.retries.clone()))?;
        registry.register(Box::new(self.retries_refused.clone()))?;
        registry.register(Box::new(self.filter_refusals.clone()))?;
        registry.register(Box::new(self.breaker_state.clone()))?;
        registry.register(Box::new(self.breaker_opened.clone()))?;
        registry.register(Box::new(self.rule_errors.clone()))?;
        registry.register(Box::new(self.truncated.clone()))?;
        registry.register(Box::new(self.log_dropped.clone()))?;
        registry.register(Box::new(self.turned_away.clone()))?;
        registry.register(Box::new(self.tls_reloads.clone()))?;
        let info = Opts::new("weir_build_info", "Always 1; the labels say what runs.");
        let info = IntGaugeVec::new(info, &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(info))
    }

    pub(crate) fn retries(&self, pool: &weir_config::model::Pool) -> Retries {
        let of = |counts: &IntCounterVec| counts.with_label_values(&[pool.name.as_str()]);
        Retries::new(&pool.retry, of(&self.retries), of(&self.retries_refused))
    }

    /// The pool's circuit breaker, if it has one. If not, what an earlier one showed is not shown any more.
    pub(crate) fn breaker(&self, pool: &weir_config::model::Pool) -> Option<Arc<Breaker>> {
        let name = [pool.name.as_str()];
        if pool.breaker.is_none() {
            self.forget_breaker(&pool.name);
        }
        let series = || BreakerSeries {
            state: self.breaker_state.with_label_values(&name),
            opened: self.breaker_opened.with_label_values(&name),
        };
        pool.breaker.as_ref().map(|config| Breaker::new(config, series()))
    }

    /// The pool of this name has no circuit breaker whose state could be shown.
    pub(crate) fn forget_breaker(&self, pool: &str) {
        // Fails if there is none.
        drop(self.breaker_state.remove_label_values(&[pool]));
    }

    /// A route's filters refused a request; `reason` is a word of the `weir-error` header.
    pub(crate) fn filter_refusal(&self, route: &str, reason: &str) {
        self.filter_refusals.with_label_values(&[route, reason]).inc();
    }

    /// Counts the conditions of a route's rules that could not be evaluated.
    pub(crate) fn rule_errors(&self, route: &str) -> IntCounter {
        self.rule_errors.with_label_values(&[route])
    }

    pub(crate) fn route(&self, route: &str, pool: &str) -> RouteSeries {
        RouteSeries {
            route: route.to_owned(),
            pool: pool.to_owned(),
            requests: self.requests.clone(),
            duration: self.duration.with_label_values(&[route, pool]),
            by_code: CODES.map(|_| OnceLock::new()).collect(),
        }
    }
}

impl RouteSeries {
    /// A request has ended.
    pub(crate) fn ended(&self, code: u16, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let label =
            |code: &str| self.requests.with_label_values(&[self.route.as_str(), self.pool.as_str(), code]);
        match code.checked_sub(CODES.start).and_then(|index| self.by_code.get(usize::from(index))) {
            Some(counter) => counter.get_or_init(|| label(&code.to_string())).inc(),
            // A VM may send any three digits; they must not become series without end.
            None => label("other").inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_counts_by_code_and_strange_codes_share_a_series() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let series = metrics.route("r", "p");
        for code in [200, 200, 599, 600, 999, 99] {
            series.ended(code, Duration::from_millis(3));
        }
        let count = |code: &str| metrics.requests.with_label_values(&["r", "p", code]).get();
        assert_eq!([count("200"), count("599"), count("other")], [2, 1, 3]);
        assert_eq!(series.duration.get_sample_count(), 6);
    }

    #[test]
    fn registering_twice_is_an_error() {
        let registry = Registry::new();
        Metrics::register(&registry).unwrap();
        assert!(Metrics::register(&registry).is_err());
    }
}
