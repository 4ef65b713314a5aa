//! What the API says, as JSON. Member names are in snake case; times are in seconds.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use weir_pool::{Instances, PoolStatus, VmStatus};

/// A body of `value`, with this status.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (status, headers, text + "\n").into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("encode the answer: {error}\n")).into_response()
        }
    }
}

/// What went wrong, and with which pool.
pub(super) fn error(status: StatusCode, pool: Option<&str>, error: &str) -> Response {
    json(status, &Failed { pool, error })
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    error: &'a str,
}

/// What became of an order.
#[derive(Serialize)]
pub(super) struct Done<'a> {
    pub(super) pool: &'a str,
    /// `done`, or `begun` where it was not to be waited for.
    pub(super) result: &'static str,
    /// VMs that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image_changed: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct PoolAnswer<'a> {
    name: &'a str,
    instances: InstancesAnswer,
    queued: usize,
    desired: u32,
    template: bool,
    revision: u64,
    rollout: Option<&'static str>,
}

#[derive(Serialize)]
struct InstancesAnswer {
    starting: u32,
    ready: u32,
    draining: u32,
    stopping: u32,
}

#[derive(Serialize)]
pub(super) struct VmAnswer<'a> {
    id: String,
    pool: &'a str,
    state: &'static str,
    address: Option<String>,
    in_flight: u32,
    age_seconds: f64,
    /// `clone` or `cold`.
    kind: Option<&'static str>,
    revision: u64,
}

impl<'a> Done<'a> {
    /// Something of this pool is done.
    pub(super) fn of(pool: &'a str) -> Self {
        Self { pool, result: "done", vms: None, revision: None, image_changed: None }
    }
}

impl<'a> PoolAnswer<'a> {
    pub(super) fn new(name: &'a str, status: &PoolStatus) -> Self {
        let Instances { starting, ready, draining, stopping } = status.instances;
        Self {
            name,
            instances: InstancesAnswer { starting, ready, draining, stopping },
            queued: status.queued,
            desired: status.desired,
            template: status.template,
            revision: status.revision.0,
            rollout: status.rollout,
        }
    }
}

impl<'a> VmAnswer<'a> {
    pub(super) fn new(pool: &'a str, vm: &VmStatus) -> Self {
        Self {
            id: vm.id.to_string(),
            pool,
            state: vm.state.label(),
            address: vm.address.map(|address| address.to_string()),
            in_flight: vm.in_flight,
            age_seconds: vm.age.as_secs_f64(),
            kind: vm.start.map(weir_pool::Start::label),
            revision: vm.revision.0,
        }
    }
}
