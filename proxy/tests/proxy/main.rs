//! The proxy over real sockets: raw TCP clients, pingora, and small servers on loopback that stand in for VMs, started
//! and ended by the pool's scripted launcher.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod backend;
mod client;
mod frames;
mod secure;
mod site;

mod actions;
mod affinity;
mod answers;
mod auth;
mod breaker;
mod client_auth;
mod compress;
mod connections;
mod drain;
mod external;
mod failures;
mod filters;
mod forwarding;
mod framing;
mod h2c;
mod hsts;
mod http2;
mod http2_attacks;
mod instead;
mod isolation;
mod jwt;
mod leaving;
mod logs;
mod mirror;
mod otlp;
mod proxy_protocol;
mod reload;
mod slow_bodies;
mod slow_readers;
mod split;
mod streams;
mod time_limits;
mod tls;
mod unix;
mod upgrades;
mod waiting;
mod websockets;
