//! Where requests are written down.

use std::path::PathBuf;

use super::Thousandths;

/// `[access_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// What a line looks like.
    pub format: LogFormat,
    /// The file that lines are added to; `None`: stdout.
    pub file: Option<PathBuf>,
    /// The share of requests that are written down, 0.001 to 1, of those that end well.
    pub sample: Thousandths,
}

/// `access_log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One object a line.
    #[default]
    Json,
    /// Apache's "Common Log Format".
    Common,
    /// That, with referrer and user agent.
    Combined,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: LogFormat::default(), file: None, sample: Thousandths(1000) }
    }
}
