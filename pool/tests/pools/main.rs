//! Pools on scripted VMs, in paused time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod budget;
mod drain;
mod failure;
mod health;
mod isolation;
mod quarantine;
mod queue;
mod rollout;
mod scale;
mod simulation;
mod support;
