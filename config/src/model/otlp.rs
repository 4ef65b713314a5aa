//! `[telemetry.otlp]`.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::decimal::Thousandths;

/// `[telemetry.otlp]`: a collector that spans of requests are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// URL that spans are posted to; `http` or `https`.
    pub endpoint: String,
    /// Share of requests whose spans are sent: 0.001 to 1.
    pub sample: Thousandths,
    /// What the collector wants to see in the header; marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long the collector may take for a batch.
    pub timeout: Duration,
    /// PEM file: the roots that the collector's certificate leads to; `None`: those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// What this weir is called there.
    pub service_name: String,
}
