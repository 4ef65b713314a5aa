//! The embedded images in real VMs, over real TAPs, in a network namespace of the test's own.
//!
//! A process must be single-threaded when it enters a namespace, and a namespace is entered once. So each case runs
//! in a process of its own: this binary again, with [`CASE`] in front of the case's name.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod clone;
mod hello;
mod probe;
mod vm;

use std::env;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{alarm, geteuid};
use weir_net::namespace;
use weir_net::tap::TapPool;

/// First argument of a process that runs one case.
const CASE: &str = "--case";
/// Seconds after which the kernel ends a case that hangs.
const LIMIT: u32 = 10;

type Case = (&'static str, fn(&TapPool));

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, name] = arguments.as_slice()
        && first == CASE
    {
        return run(name);
    }
    let trials = cases().map(|(name, _)| Trial::test(name, move || start(name))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn cases() -> impl Iterator<Item = Case> {
    hello::CASES.iter().chain(probe::CASES).chain(clone::CASES).copied()
}

/// Runs a case in a process of its own.
fn start(name: &str) -> Result<(), Failed> {
    let program = env::current_exe()?;
    let output = Command::new(program).args([CASE, name]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&text)).into())
}

/// In the process of a case: the namespace, then the case.
fn run(name: &str) -> ExitCode {
    // Nothing outlives the test, nothing hangs.
    prctl::set_pdeathsig(Signal::SIGKILL).expect("the kernel knows PR_SET_PDEATHSIG");
    alarm::set(LIMIT);
    let Some((_, case)) = cases().find(|(other, _)| *other == name) else { return ExitCode::from(2) };
    if !geteuid().is_root() {
        namespace::become_user_root().unwrap_or_else(|error| panic!("{error}"));
    }
    let private = namespace::enter_private().unwrap_or_else(|error| panic!("{error}"));
    let taps = TapPool::new(&private, "10.88.0.0/24".parse().unwrap(), 1500).unwrap();
    case(&taps);
    ExitCode::SUCCESS
}
