//! Test guest: its first argument says how it misbehaves.
//!
//! | argument | behaviour |
//! |---|---|
//! | `serve` (or none) | answers every request, see `paths` |
//! | `never-ready` | parks without ever saying READY |
//! | `crash-at-boot` | panics before READY |
//! | `fault-at-boot` | writes to unmapped memory before READY |
//! | `halt-at-boot` | executes `hlt` before READY |
//! | `exit=N` | ends with code N |
//! | `spin` | READY, then never gives the CPU up again |
//! | `spin-at-boot` | the same without READY |
//! | `ring-loop` | READY, then a descriptor chain that closes upon itself |
//! | `ring-range` | READY, then a descriptor outside of memory |
//! | `ring-length` | READY, then a descriptor of 4 GiB |
//! | `avail-jump` | READY, then an available index far ahead |
//! | `log-flood` | READY, then log lines without end |
//! | `die-mid-response` | answers half of a response, then panics |
//! | `hoard` | touches memory until none is left |
//! | `silent` | accepts connections, never answers |
//! | `deaf` | READY, then resets every connection |
//! | `flood` | READY, then frames from its own address as fast as it can |
//! | `spin-on-request` | never comes back from its first request |
//! | `spoof` | READY, then frames with foreign source addresses, once a millisecond |
#![cfg_attr(weir_guest, no_std, no_main)]

extern crate alloc;

mod http;
mod memory;
mod network;
mod paths;
mod serve;
mod websocket;

const PORT: u16 = 8080;

/// Where it listens: the environment's PORT.
fn port() -> u16 {
    weir_libos::env("PORT").and_then(|port| port.parse().ok()).unwrap_or(PORT)
}

async fn run() {
    let behaviour = weir_libos::args().next().unwrap_or("serve");
    match behaviour {
        "serve" => serve::answer().await,
        "silent" => serve::ignore().await,
        "deaf" => serve::refuse().await,
        "spin-on-request" => serve::spin().await,
        "die-mid-response" => serve::die().await,
        "never-ready" => core::future::pending().await,
        "crash-at-boot" => panic!("asked to crash at boot"),
        "fault-at-boot" => weir_libos::fault(),
        "halt-at-boot" => weir_libos::halt(),
        "spin" => {
            weir_libos::raw::ready();
            spin()
        }
        "spin-at-boot" => spin(),
        "log-flood" => {
            weir_libos::raw::ready();
            loop {
                weir_libos::control::log("the same line, again and again");
            }
        }
        "hoard" => memory::hoard(),
        "ring-loop" => network::ring_loop(),
        "ring-range" => network::ring_range(),
        "ring-length" => network::ring_length(),
        "avail-jump" => network::avail_jump(),
        "flood" => network::flood(),
        "spoof" => network::spoof().await,
        other => match other.strip_prefix("exit=").map(str::parse) {
            Some(Ok(code)) => weir_libos::exit(code),
            _ => panic!("unknown behaviour: {other}"),
        },
    }
}

fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

weir_libos::main!(run);
