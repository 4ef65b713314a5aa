//! What the server knows, and what it needs from where it runs.

use alloc::string::String;
use core::cell::Cell;
use core::fmt::{Display, Write};
use core::future::Future;
use core::time::Duration;

use crate::head::Route;

/// How `/crash` ends the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// A Rust panic.
    Panic,
    /// A write to where no memory is.
    Fault,
    /// An instruction that no application may execute.
    Halt,
}

/// What the handlers need from outside.
pub trait Platform {
    /// The VM's name, for the greeting and the `x-weir-vm` header. May change between two requests.
    fn vm(&self) -> impl Display;
    /// Time since start.
    fn uptime(&self) -> Duration;
    /// Waits; other connections go on.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
    /// Keeps the CPU busy.
    fn spin(&self, duration: Duration);
    /// Ends the whole server.
    fn crash(&self, how: Crash) -> !;
    /// Heap in use, bytes.
    fn heap_used(&self) -> u64;
}

/// The server's state, shared by all connections.
pub struct App {
    greeting: String,
    requests: [Cell<u64>; Route::NAMES.len()],
}

impl App {
    /// A server that greets with `greeting`.
    pub fn new(greeting: &str) -> Self {
        Self { greeting: greeting.into(), requests: Default::default() }
    }

    /// Counts a request.
    pub(crate) fn count(&self, route: &Route) {
        let counter = &self.requests[route.index()];
        counter.set(counter.get().wrapping_add(1));
    }

    pub(crate) fn greet(&self, platform: &impl Platform, out: &mut String) {
        let count = self.requests.iter().map(Cell::get).fold(0, u64::wrapping_add);
        // A string takes any text.
        let _ = writeln!(out, "{} from vm {}, request {count}", self.greeting, platform.vm());
    }

    /// Prometheus text exposition format 0.0.4.
    pub(crate) fn metrics(&self, platform: &impl Platform, out: &mut String) {
        out.push_str("# HELP hello_requests_total Requests by path.\n# TYPE hello_requests_total counter\n");
        for (name, count) in Route::NAMES.iter().zip(&self.requests) {
            // As above.
            let _ = writeln!(out, "hello_requests_total{{path=\"{name}\"}} {}", count.get());
        }
        let uptime = platform.uptime();
        let _ = write!(
            out,
            "# HELP hello_uptime_seconds Time since start.\n# TYPE hello_uptime_seconds gauge\n\
             hello_uptime_seconds {}.{:03}\n\
             # HELP hello_heap_used_bytes Heap in use.\n# TYPE hello_heap_used_bytes gauge\n\
             hello_heap_used_bytes {}\n",
            uptime.as_secs(),
            uptime.subsec_millis(),
            platform.heap_used()
        );
    }
}
