//! Pools on scripted VMs, in paused time.

mod drain;
mod failure;
mod queue;
mod scale;
mod simulation;
mod support;
