//! What the administration endpoint asks of the whole process.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::answer::{self, json};

/// What is to become of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// The configuration is read again.
    Reload,
    /// The program that is at this one's path now takes over.
    Upgrade,
}

/// A change that somebody waits for.
#[derive(Debug)]
pub struct ProcessOrder {
    /// What is to be done.
    pub change: ProcessChange,
    done: oneshot::Sender<Result<String, String>>,
}

impl ProcessOrder {
    /// Says how it ended: what is different now, or why nothing is.
    pub fn answer(self, outcome: Result<String, String>) {
        // Whoever asked may have gone away.
        let _ = self.done.send(outcome);
    }
}

#[derive(Serialize)]
struct Changed {
    /// Always `done`: what fails is an error.
    result: &'static str,
    change: String,
}

/// The API of the process that takes `orders`.
pub(super) fn routes(orders: mpsc::Sender<ProcessOrder>) -> Router {
    let order = |change, failed| {
        post(move |State(orders): State<mpsc::Sender<ProcessOrder>>| give(orders, change, failed))
    };
    Router::new()
        .route("/reload", order(ProcessChange::Reload, StatusCode::UNPROCESSABLE_ENTITY))
        .route("/upgrade", order(ProcessChange::Upgrade, StatusCode::INTERNAL_SERVER_ERROR))
        .with_state(orders)
}

/// `failed`: the status of an order that was not done.
async fn give(orders: mpsc::Sender<ProcessOrder>, change: ProcessChange, failed: StatusCode) -> Response {
    let (done, outcome) = oneshot::channel();
    let ending = || answer::error(StatusCode::SERVICE_UNAVAILABLE, None, "shutting down");
    if orders.send(ProcessOrder { change, done }).await.is_err() {
        return ending();
    }
    match outcome.await {
        Ok(Ok(change)) => json(StatusCode::OK, &Changed { result: "done", change }),
        Ok(Err(error)) => answer::error(failed, None, &error),
        Err(_) => ending(),
    }
}
