//! The network device on a real TAP in a private namespace, a host's TCP stack at the other end.
//!
//! A process must be single-threaded when it enters a namespace, so each case runs in a process of its own: this
//! binary again, with [`CASE`] in front of its name.
#![expect(clippy::cast_possible_truncation, reason = "a test's own small numbers")]

mod driver;
mod offload;
mod tcp;

use std::env;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::alarm;
use weir_net::doctor;
use weir_net::namespace;
use weir_net::tap::TapPool;

/// First argument of a process that runs one case: `--case NAME`.
const CASE: &str = "--case";
/// Seconds after which the kernel ends a case that hangs.
const LIMIT: u32 = 9;

const CASES: &[(&str, fn())] = &[
    ("segments_go_both_ways_in_one_frame", offload::segments_go_both_ways_in_one_frame),
    ("without_offloads_every_frame_fits_the_mtu", offload::without_offloads_every_frame_fits_the_mtu),
    ("the_next_vm_gets_a_tap_without_offloads", offload::the_next_vm_gets_a_tap_without_offloads),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [first, name] if first == CASE => run(name),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    CASES.iter().map(|(name, _)| Trial::test(*name, move || start(name))).collect()
}

fn start(name: &str) -> Result<(), Failed> {
    doctor::tun()?;
    let output = Command::new("/proc/self/exe").args([CASE, name]).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn run(name: &str) -> ExitCode {
    alarm::set(LIMIT);
    let Some((_, run)) = CASES.iter().find(|case| case.0 == name) else {
        eprintln!("no case {name}");
        return ExitCode::FAILURE;
    };
    run();
    ExitCode::SUCCESS
}

/// A pool of TAPs in a private namespace.
fn pool() -> TapPool {
    namespace::become_user_root().expect("root");
    let private = namespace::enter_private().expect("a private namespace");
    TapPool::new(&private, "10.88.0.0/16".parse().expect("a network"), 1500).expect("a pool")
}
