//! A configuration to start from, and a bug to run into.

use std::sync::Arc;

use weir_config::model::{Config, HostPattern, Listener, Route};
use weir_pool::fake;

/// A request with this header panics when it has its VM.
pub(crate) const PANIC: &str = "weir-test-panic";

/// One listener on a port that the kernel chooses, and one route for everything to the pool `p`.
pub(crate) fn config() -> Config {
    let mut config = fake::config([fake::pool("p")]);
    config.listeners = vec![Listener::at("127.0.0.1:0".parse().unwrap())];
    config.routes = vec![route("all", HostPattern::Any, "/", "p")];
    config
}

pub(crate) fn route(name: &str, host: HostPattern, path: &str, pool: &str) -> Arc<Route> {
    Arc::new(Route::to_pool(name, host, path, pool))
}
