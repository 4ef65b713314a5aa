//! Pools on scripted VMs, in paused time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod budget;
mod clock;
mod drain;
mod external;
mod failure;
mod health;
mod idle;
mod isolation;
mod quarantine;
mod queue;
mod reload;
mod rollout;
mod scale;
mod signal;
mod simulation;
mod support;
