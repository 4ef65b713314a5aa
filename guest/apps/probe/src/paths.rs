//! What `serve` answers, by path: what tests of isolation and uniqueness ask for.
//!
//! | path | answer |
//! |---|---|
//! | `/random` | 32 random bytes, in hexadecimal |
//! | `/identity` | JSON: `vm`, `generation`, `mac`, `address`, `unix_ns`, `uptime_ns` |
//! | `/count` | a global variable, which it then increments: 0 at first |
//! | `/connection` | the number of requests on this connection, this one included |
//! | `/hold?ms=N` | "ok", after N ms |
//! | `/bytes?n=N` | N bytes |
//! | `/eat?n=N` | "ok"; allocates N bytes, touches and frees them |
//! | `/leave?n=N` | "ok"; allocates N bytes, touches and keeps them |
//! | `/work?ms=N` | "ok"; goes on computing in the background, half of the time, for N ms |
//! | `/gauge?n=N` | "ok"; `jobs_waiting` is N from then on |
//! | `/metrics` | `jobs_waiting`, in Prometheus' text format |
//! | `/websocket` | a WebSocket that sends back what it gets, see `websocket` |
//! | any other | "ok" |
//!
//! 400: the number is missing. 507: no memory.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use weir_libos::net::ConnectionLost;

use crate::http::{Connection, parameter};
use crate::{memory, websocket};

/// See `/gauge`.
static JOBS: AtomicU64 = AtomicU64::new(0);

/// What no request in `request` isolation ever sees above zero.
static COUNT: AtomicU64 = AtomicU64::new(0);

const OK: (&str, &str) = ("200 OK", "ok\n");
const NO_NUMBER: (&str, &str) = ("400 Bad Request", "");
const NO_MEMORY: (&str, &str) = ("507 Insufficient Storage", "");

/// What the server keeps.
#[derive(Default)]
pub(crate) struct State {
    left: RefCell<Vec<Vec<u8>>>,
}

impl State {
    /// Answers a request for `target`.
    pub(crate) async fn answer(
        &self,
        connection: &mut Connection,
        target: &str,
    ) -> Result<(), ConnectionLost> {
        let path = target.split('?').next().unwrap_or_default();
        let number = |name| parameter(target, name);
        let mut body = String::new();
        // A string takes any text.
        let _ = match path {
            "/random" => random(&mut body),
            "/identity" => identity(&mut body),
            "/count" => writeln!(body, "{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            "/metrics" => metrics(&mut body),
            "/connection" => writeln!(body, "{}", connection.requests),
            "/websocket" => return websocket::echo(connection).await,
            "/bytes" => {
                let Some(count) = number("n") else { return connection.respond(NO_NUMBER.0, "").await };
                return connection.stream(count, count).await;
            }
            _ => {
                let (status, body) = match path {
                    "/hold" => hold(number("ms")).await,
                    "/work" => work(number("ms")),
                    "/gauge" => gauge(number("n")),
                    "/eat" => self.take(number("n"), false),
                    "/leave" => self.take(number("n"), true),
                    _ => OK,
                };
                return connection.respond(status, body).await;
            }
        };
        connection.respond("200 OK", &body).await
    }

    fn take(&self, bytes: Option<u64>, keep: bool) -> (&'static str, &'static str) {
        let Some(bytes) = bytes else { return NO_NUMBER };
        let Some(block) = usize::try_from(bytes).ok().and_then(memory::touched) else { return NO_MEMORY };
        if keep {
            self.left.borrow_mut().push(block);
        }
        OK
    }
}

async fn hold(ms: Option<u64>) -> (&'static str, &'static str) {
    let Some(ms) = ms else { return NO_NUMBER };
    weir_libos::sleep(Duration::from_millis(ms)).await;
    OK
}

/// Pieces are short, so that other requests are answered in between.
fn work(ms: Option<u64>) -> (&'static str, &'static str) {
    const PIECE: Duration = Duration::from_millis(2);
    let Some(ms) = ms else { return NO_NUMBER };
    let end = weir_libos::now() + Duration::from_millis(ms);
    weir_libos::spawn(async move {
        while weir_libos::now() < end {
            weir_libos::busy_wait(PIECE);
            weir_libos::sleep(PIECE).await;
        }
    })
    .detach();
    OK
}

fn gauge(jobs: Option<u64>) -> (&'static str, &'static str) {
    let Some(jobs) = jobs else { return NO_NUMBER };
    JOBS.store(jobs, Ordering::Relaxed);
    OK
}

fn metrics(body: &mut String) -> core::fmt::Result {
    let jobs = JOBS.load(Ordering::Relaxed);
    writeln!(body, "# TYPE jobs_waiting gauge\njobs_waiting{{kind=\"test\"}} {jobs}")
}

fn random(body: &mut String) -> core::fmt::Result {
    let mut bytes = [0; 32];
    weir_libos::fill_random(&mut bytes);
    bytes.iter().try_for_each(|byte| write!(body, "{byte:02x}"))?;
    writeln!(body)
}

fn identity(body: &mut String) -> core::fmt::Result {
    let info = weir_libos::raw::info();
    let [a, b, c, d, e, f] = info.mac;
    writeln!(
        body,
        "{{\"vm\":{},\"generation\":{},\"mac\":\"{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\",\
         \"address\":\"{}\",\"unix_ns\":{},\"uptime_ns\":{}}}",
        weir_libos::vm_id(),
        weir_libos::generation(),
        core::net::Ipv4Addr::from(info.address),
        weir_libos::unix_time().as_nanos(),
        weir_libos::now().nanos()
    )
}
