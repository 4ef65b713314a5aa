//! weir-proxy: from a client's connection to a VM's, and back.
//!
//! ```text
//!  Listeners -> TLS, pingora HTTP -> Router -> Pool::lease -> VM's connection -> response -> access log, metrics
//!  (bound in     (our runtime)       404       503, waits      502, 504, retries
//!  the host's
//!  namespace)
//! ```
//!
//! Order of use: [`bind`] before any thread exists, then [`serve()`] and [`admin::serve`] inside the runtime.
#![forbid(unsafe_code)]

mod access_log;
pub mod acme;
pub mod admin;
mod answer;
mod auth;
mod compress;
mod context;
mod descriptors;
mod doors;
mod downstream;
mod filter;
mod follow;
#[cfg(test)]
mod fuzzing;
mod grpc;
mod hangup;
mod headers;
mod hsts;
mod http2;
mod in_flight;
mod listeners;
mod metrics;
pub mod otlp;
mod outside;
mod patience;
mod proxy;
mod quarantine;
mod record;
mod reload;
mod request;
mod resilience;
mod retry;
pub mod routes;
pub mod rules;
mod serve;
mod service;
mod table;
pub mod target;
mod tenancies;
mod timing;
pub mod tls;
mod trace;
mod upstream;

#[cfg(test)]
mod testing;

pub use access_log::{AccessLog, AccessLogWriter};
pub use descriptors::raise_descriptor_limit;
pub use listeners::{
    BindError, Claim, Handed, ListenSocket, Listeners, OpenSocket, Role, bind, bind_beside, bind_listener,
    can_bind_path,
};
pub use metrics::Metrics;
pub use reload::{ListenerChange, Orders, Reloader, listeners_to_bind, reloader};
pub use routes::Router;
pub use serve::{Drained, ServeError, Server, Timeouts, serve, serve_reloadable};
