//! weir's library OS: what an application needs to be a weir guest, linked into it.
//!
//! ```text
//! _start (entry) -> check boot-info -> heap, clock, traps -> application's main as a task -> runtime::run
//!
//! runtime::run, for ever:  receive -> fire timers -> run tasks -> transmit -> PARK until the next deadline
//!                          -> is this another VM now (generation)?
//! ```
//!
//! One thread, no interrupts, no ring 0: the application's tasks run until they wait, then one PARK hands the whole
//! batch to the VMM. See `guest/README.md` for how to write an application.
//!
//! Built without `--cfg weir_guest` (image-flags.txt) this is an ordinary library without an entry point, so that its
//! parts can be tested on the development machine.
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

extern crate alloc;

pub mod boot;
pub mod clock;
pub mod control;
#[doc(hidden)]
pub mod entry;
pub mod executor;
mod generation;
pub mod heap;
pub mod mem;
pub mod net;
mod panic;
pub mod random;
pub mod raw;
mod reclaim;
mod runtime;
mod text;
pub mod timer;
mod trap;

pub use clock::Instant;
pub use executor::Executor;
pub use log;
pub use runtime::{
    NetError, args, busy_wait, env, exit, fault, fill_random, generation, halt, heap_used, listen, now,
    sleep, spawn, unix_time, vars, vm_id,
};

/// Makes the async function `$main` this image's application: `weir_libos::main!(run);`.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        /// Called by the libOS once it is up.
        #[cfg(weir_guest)]
        #[unsafe(no_mangle)]
        fn weir_main() {
            $crate::spawn($main()).detach();
        }

        /// An image runs as a weir guest only.
        #[cfg(not(weir_guest))]
        fn main() {
            let _ = $main;
            ::std::eprintln!("this is a weir guest; build it with the flags of image-flags.txt");
        }
    };
}
