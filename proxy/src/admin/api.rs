//! `/api/v1/`: pools and VMs to look at, pools to drain and to restart, and weir itself to change.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::mpsc;
use weir_pool::{PoolStatus, Replaced, RestartError};

use super::answer::{self, Done, PoolAnswer, VmAnswer, json};
use super::control::{Control, Drain, OrderError};
use super::guard;
use super::process::{self, ProcessOrder};

type Pools = Arc<dyn Control>;

/// The API of these pools, and of the process that takes `orders`.
pub(super) fn routes(pools: Pools, orders: mpsc::Sender<ProcessOrder>) -> Router {
    let api = Router::new()
        .route("/pools", get(list_pools))
        .route("/vms", get(list_vms))
        .route("/pools/{pool}/drain", post(drain))
        .route("/pools/{pool}/restart", post(restart))
        .fallback(|| async { answer::error(StatusCode::NOT_FOUND, None, "there is no such thing here") })
        .method_not_allowed_fallback(|| async {
            answer::error(StatusCode::METHOD_NOT_ALLOWED, None, "not by this method")
        })
        .with_state(pools)
        .merge(process::routes(orders));
    Router::new().nest("/api/v1", api).layer(axum::middleware::from_fn(guard::guard))
}

async fn list_pools(State(pools): State<Pools>) -> Response {
    let statuses = pools.pools().await;
    let answers: Vec<_> = statuses.iter().map(|(name, status)| PoolAnswer::new(name, status)).collect();
    json(StatusCode::OK, &answers)
}

async fn list_vms(State(pools): State<Pools>) -> Response {
    let statuses = pools.pools().await;
    let answers: Vec<_> = statuses.iter().flat_map(|(name, status)| vms(name, status)).collect();
    json(StatusCode::OK, &answers)
}

async fn drain(State(pools): State<Pools>, Path(pool): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some(wait) = waits(query.as_deref()) else { return bad_query() };
    match pools.drain(&pool).await {
        Err(error) => refused(&pool, &error),
        Ok(Drain { vms, done }) => {
            if wait {
                done.await;
            }
            ended(wait, Done { vms: Some(vms), ..Done::of(&pool) })
        }
    }
}

async fn restart(
    State(pools): State<Pools>,
    Path(pool): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(wait) = waits(query.as_deref()) else { return bad_query() };
    match pools.restart(&pool).await {
        Err(error) => refused(&pool, &error),
        Ok(_) if !wait => ended(wait, Done::of(&pool)),
        Ok(done) => match done.await {
            Ok(Replaced { revision, image_changed, vms }) => {
                let (vms, revision, image_changed) = (Some(vms), Some(revision.0), Some(image_changed));
                ended(wait, Done { vms, revision, image_changed, ..Done::of(&pool) })
            }
            Err(error) => refused(&pool, &error.into()),
        },
    }
}

/// Whether the client wants to wait for the end: it does unless it says `wait=false`. `None`: it says something else.
fn waits(query: Option<&str>) -> Option<bool> {
    match query {
        None | Some("" | "wait=true") => Some(true),
        Some("wait=false") => Some(false),
        Some(_) => None,
    }
}

fn bad_query() -> Response {
    answer::error(StatusCode::BAD_REQUEST, None, "the query can only be wait=true or wait=false")
}

fn ended(waited: bool, done: Done<'_>) -> Response {
    if waited {
        json(StatusCode::OK, &done)
    } else {
        json(StatusCode::ACCEPTED, &Done { result: "begun", ..done })
    }
}

fn refused(pool: &str, error: &OrderError) -> Response {
    let status = match error {
        OrderError::NoPool => StatusCode::NOT_FOUND,
        OrderError::External | OrderError::Refused(RestartError::InProgress) => StatusCode::CONFLICT,
        OrderError::Refused(RestartError::ShuttingDown) => StatusCode::SERVICE_UNAVAILABLE,
        OrderError::Refused(RestartError::Failed { .. } | RestartError::RolledBack { .. }) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    answer::error(status, Some(pool), &error.to_string())
}

fn vms<'a>(name: &'a str, status: &'a PoolStatus) -> impl Iterator<Item = VmAnswer<'a>> {
    status.vms.iter().map(|vm| VmAnswer::new(name, vm))
}
