//! The administration endpoint: `/metrics` (Prometheus text), `/healthz` (the process works), `/readyz` (it takes
//! requests: not while it starts or drains), and `/api/v1/`, what `weir ps`, `weir drain`, `weir restart`, `weir reload` and
//! `weir upgrade` use.
//!
//! It asks nobody who he is: whoever reaches the address may use it. See [`guard`] for who that is not.

mod answer;
mod api;
mod control;
pub mod guard;
mod process;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::sync::{mpsc, watch};

pub use control::{Control, Drain, OrderError, Restart};
pub use process::{ProcessChange, ProcessOrder};

/// Whether weir takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// It does.
    Ready,
    /// No more.
    Draining,
}

#[derive(Clone, Debug)]
struct Admin {
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
}

/// Serves on `listener` until `until` resolves. `orders`: to whoever changes the whole process.
///
/// # Errors
///
/// If the socket cannot be handed to the runtime.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
    pools: Arc<dyn Control>,
    orders: mpsc::Sender<ProcessOrder>,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Admin { registry, readiness })
        .merge(api::routes(pools, orders));
    tokio::select! {
        ended = axum::serve(listener, routes) => ended,
        () = until => Ok(()),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}\n")).into_response()
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    match *admin.readiness.borrow() {
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

#[cfg(test)]
mod tests;
