//! A small HTTP/1.1 server that is there to be looked at, proxied, measured and crashed.
//!
//! Generic over the connection and the platform, so that the same code runs in a weir guest, as a native process
//! (`hello-native`), and over an in-memory connection in tests.
//!
//! Per connection it needs one buffer of 8 KiB for what comes in and one for what goes out, whatever a body's size.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod app;
mod body;
mod connection;
mod handler;
mod head;
mod response;

pub use app::{App, Crash, Platform};
pub use connection::{HEAD_MAX, serve};
