//! The thread that sends spans, batch by batch.
//!
//! ```text
//!            some wait, for GATHER or until there are enough
//!  waiting ──────────────────────────────────────────────────> sending ──taken, or never will be──> waiting
//!     │                                                         │   ^
//!     │                          not taken now, not for long yet │   │ later each time
//!     │ told to stop                                             v   │
//!     └────────────> each once more <──────told to stop────── pausing ──for too long──> given up: waiting
//! ```

use std::future::pending;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use weir_config::model;

use super::json::Envelope;
use super::{OtlpError, OtlpMetrics};
use crate::outside::{Outside, RequestError};

/// Spans of one request to the collector, at most; as OpenTelemetry's own exporters.
const BATCH_MAX: usize = 512;
/// How long a span may wait for others.
const GATHER: Duration = Duration::from_secs(1);
/// Times that a batch is sent, at most.
const TRIES: u32 = 5;
/// Longest wait between two of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// See the module's documentation.
pub(super) struct Worker {
    outside: Outside,
    url: Uri,
    headers: HeaderMap,
    envelope: Envelope,
    metrics: OtlpMetrics,
    waiting: mpsc::Receiver<Vec<u8>>,
    stop: oneshot::Receiver<()>,
    batch: Vec<Vec<u8>>,
    /// Tries in a row that have failed, of this batch and of those before it.
    failures: u32,
}

/// What has come of sending a batch.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// All were taken but for so many.
    Taken { rejected: u64 },
    /// They never will be.
    Refused(StatusCode),
    /// They may be later; after how long, if it says so.
    NotNow { why: String, after: Option<Duration> },
}

impl Worker {
    /// # Errors
    /// If the collector's URL is none.
    pub(super) fn new(
        otlp: &model::Otlp,
        outside: Outside,
        metrics: OtlpMetrics,
        waiting: mpsc::Receiver<Vec<u8>>,
        stop: oneshot::Receiver<()>,
    ) -> Result<Self, OtlpError> {
        let no_url = |source| OtlpError::Url { url: otlp.endpoint.clone(), source };
        let url = otlp.endpoint.parse().map_err(no_url)?;
        let mut headers: HeaderMap = otlp.headers.iter().cloned().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = HeaderValue::from_static(concat!("weir/", env!("CARGO_PKG_VERSION")));
        headers.entry(USER_AGENT).or_insert(agent);
        let envelope = Envelope::new(&otlp.service_name);
        let batch = Vec::with_capacity(BATCH_MAX);
        Ok(Self { outside, url, headers, envelope, metrics, waiting, stop, batch, failures: 0 })
    }

    /// # Errors
    /// If the kernel gives no thread or the runtime cannot be had.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("otlp".to_owned()).spawn(move || runtime.block_on(self.run()))
    }

    /// Ends when it is told to.
    async fn run(mut self) {
        loop {
            tokio::select! {
                _ = &mut self.stop => break,
                () = gather(&mut self.waiting, &mut self.batch) => {}
            }
            if !self.deliver().await {
                break;
            }
        }
        self.waiting.close();
        loop {
            while self.batch.len() < BATCH_MAX
                && let Ok(span) = self.waiting.try_recv()
            {
                self.batch.push(span);
            }
            if self.batch.is_empty() {
                return;
            }
            let outcome = self.send().await;
            if !self.settle(&outcome) {
                self.give_up(&outcome);
            }
        }
    }

    /// Sends the batch until it is taken or there is no hope. False: it is told to stop, and may have the batch still.
    async fn deliver(&mut self) -> bool {
        for _ in 0..TRIES {
            let outcome = self.send().await;
            if self.settle(&outcome) {
                return true;
            }
            if self.failures == 1 {
                tracing::warn!(?outcome, "the collector takes no spans");
            }
            let Outcome::NotNow { after, .. } = outcome else { continue };
            let pause = pause(self.failures, after, rand::random());
            tokio::select! {
                _ = &mut self.stop => return false,
                () = sleep(pause) => {}
            }
        }
        self.give_up(&"too many tries");
        true
    }

    /// Whether the batch is done with.
    fn settle(&mut self, outcome: &Outcome) -> bool {
        let spans = self.batch.len() as u64;
        match outcome {
            Outcome::Taken { rejected } => {
                let rejected = spans.min(*rejected);
                self.metrics.sent(spans - rejected);
                self.metrics.failed(rejected);
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!("the collector takes spans again");
                }
            }
            Outcome::Refused(status) => {
                // It answers, so that there is nothing to wait for.
                self.failures = 0;
                self.metrics.failed(spans);
                tracing::warn!(%status, spans, "the collector refuses spans");
            }
            Outcome::NotNow { .. } => {
                self.failures = self.failures.saturating_add(1);
                return false;
            }
        }
        self.batch.clear();
        true
    }

    fn give_up(&mut self, why: &dyn std::fmt::Debug) {
        let spans = self.batch.len() as u64;
        self.metrics.failed(spans);
        tracing::debug!(spans, ?why, "spans given up");
        self.batch.clear();
    }

    async fn send(&self) -> Outcome {
        let mut request = Request::new(Full::new(Bytes::from(self.envelope.around(&self.batch))));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        request.headers_mut().clone_from(&self.headers);
        outcome(self.outside.ask(request).await)
    }
}

/// Fills `batch`, and waits for the first span; forever, if there will be none. Given up, it has lost none.
async fn gather(waiting: &mut mpsc::Receiver<Vec<u8>>, batch: &mut Vec<Vec<u8>>) {
    if batch.is_empty() && waiting.recv_many(batch, BATCH_MAX).await == 0 {
        return pending().await;
    }
    let until = Instant::now() + GATHER;
    while batch.len() < BATCH_MAX {
        let more = waiting.recv_many(batch, BATCH_MAX - batch.len());
        if !timeout_at(until, more).await.is_ok_and(|more| more > 0) {
            return;
        }
    }
}

/// What the protocol says of an answer (OTLP/HTTP Response).
fn outcome(answered: Result<Response<Bytes>, RequestError>) -> Outcome {
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => return Outcome::NotNow { why: with_causes(&error), after: None },
    };
    match answer.status() {
        status if status.is_success() => Outcome::Taken { rejected: rejected(answer.body()) },
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => {
            let seconds =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Outcome::NotNow { why: status.to_string(), after: seconds.map(Duration::from_secs) }
        }
        status => Outcome::Refused(status),
    }
}

/// Spans of a batch that was taken that were not. Collectors say nothing, or nothing that can be read, where it is none.
fn rejected(body: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0)
}

/// How long to wait after the last of `failures` in a row, at least one. `asked`: what the collector says; `spread`: 0 to 1,
/// what many weirs are spread by.
fn pause(failures: u32, asked: Option<Duration>, spread: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = (Duration::from_secs(1) * (1 << doublings)).min(LONGEST_PAUSE);
    longest.mul_f64((1.0 + spread) / 2.0).max(asked.unwrap_or_default()).min(LONGEST_PAUSE)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Outcome {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(RETRY_AFTER, value);
        }
        outcome(Ok(response.body(Bytes::from(body.to_owned())).unwrap()))
    }

    #[test]
    fn answers_mean_what_the_protocol_says() {
        for (body, rejected) in [
            ("", 0),
            ("{}", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":3}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":-3}}"#, 0),
            ("[[[[", 0),
        ] {
            assert_eq!(answer(200, None, body), Outcome::Taken { rejected }, "{body}");
        }
        for status in [300, 302, 400, 401, 404, 413, 500, 501] {
            assert_eq!(answer(status, None, ""), Outcome::Refused(StatusCode::from_u16(status).unwrap()));
        }
        for status in [429, 502, 503, 504] {
            for (asked, after) in
                [(None, None), (Some("7"), Some(7)), (Some("-1"), None), (Some("Thu"), None)]
            {
                let Outcome::NotNow { after: found, .. } = answer(status, asked, "") else {
                    panic!("{status}")
                };
                assert_eq!(found, after.map(Duration::from_secs));
            }
        }
        let failed = outcome(Err(RequestError::TooSlow("c".to_owned())));
        assert_eq!(failed, Outcome::NotNow { why: "c took too long".to_owned(), after: None });
    }

    proptest! {
        #[test]
        fn a_pause_is_bounded_and_grows(failures in 1..u32::MAX, asked in any::<Option<u64>>(), spread in 0.0..1.0) {
            let asked = asked.map(Duration::from_secs);
            let now = pause(failures, asked, spread);
            prop_assert!(now >= Duration::from_millis(500) && now <= LONGEST_PAUSE);
            prop_assert!(now >= asked.unwrap_or_default().min(LONGEST_PAUSE));
            prop_assert!(pause(failures.saturating_add(1), asked, spread) >= now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spans_gather_for_a_while_or_until_there_are_enough() {
        let (sender, mut waiting) = mpsc::channel(2 * BATCH_MAX);
        let mut batch = Vec::new();
        let began = Instant::now();
        sender.try_send(vec![1]).unwrap();
        gather(&mut waiting, &mut batch).await;
        assert_eq!((batch.len(), Instant::now() - began), (1, GATHER));
        batch.clear();
        for _ in 0..BATCH_MAX + 1 {
            sender.try_send(vec![2]).unwrap();
        }
        gather(&mut waiting, &mut batch).await;
        assert_eq!((batch.len(), Instant::now() - began), (BATCH_MAX, GATHER));
        assert_eq!(waiting.len(), 1);
    }
}
