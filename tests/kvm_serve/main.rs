//! End to end: the real binary, real microVMs, real clients. Needs /dev/kvm and /dev/net/tun.

#[path = "../support/mod.rs"]
mod support;

mod acme;
mod budget;
mod chaos;
mod cleanup;
mod client;
mod clones;
mod commands;
mod devices;
mod external;
mod failure;
mod health;
mod idle;
mod isolation;
mod logs;
mod neighbours;
mod probe;
mod queue;
mod reload;
mod requests;
mod rollout;
mod secure;
mod signal;
mod spares;
mod unprivileged;
mod upgrade;
mod websocket;
