//! What clients are shown when they do not get what they asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use ipnetwork::IpNetwork;

/// A page that was read from a file together with the configuration. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Of the `content-type` field, by the file's extension.
    pub content_type: &'static str,
    /// At most 256 KiB.
    pub body: Arc<[u8]>,
}

/// `error_pages` and `route.error_pages`: bodies of answers that are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    /// By status, 400 to 599.
    pub by_status: BTreeMap<StatusCode, Page>,
    /// For the other statuses from 400 to 499.
    pub client_errors: Option<Page>,
    /// For the other statuses from 500 to 599.
    pub server_errors: Option<Page>,
}

/// `route.maintenance`: requests are answered instead of being sent to a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// 400 to 599.
    pub status: StatusCode,
    /// `None`: a line of text.
    pub page: Option<Page>,
    /// When it is worth trying again; `None`: nobody knows.
    pub retry_after: Option<Duration>,
    /// Clients that are served all the same.
    pub allow: Vec<IpNetwork>,
}

/// What a route answers instead of what it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instead {
    /// `None`: its requests are served.
    pub maintenance: Option<Maintenance>,
    /// Before those of all routes.
    pub error_pages: ErrorPages,
    /// Error pages take the place of the bodies of VMs' answers, too.
    pub intercept_errors: bool,
}

impl Default for Maintenance {
    fn default() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { status, page: None, retry_after: None, allow: Vec::new() }
    }
}
