//! The kernel's own cgroups, of whichever version this host has: what they do to processes that want more.
//!
//! Needs root, and cgroups that it may use. This program is the test and, started again, the processes to limit.

#![allow(clippy::unwrap_used, reason = "this program is a test, though it runs itself")]

mod subject;
mod tests;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use weir_vmm::cgroup::Cgroups;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(mode) = arguments.get(1).and_then(|argument| argument.strip_prefix("subject+")) {
        return subject::run(mode);
    }
    let trials = tests::ALL.into_iter().map(|(name, run)| {
        Trial::test(name, move || {
            Cgroups::detect().map_err(|error| format!("{error}; `weir doctor` says how to get them"))?;
            std::panic::catch_unwind(run).map_err(|_| Failed::without_message())
        })
    });
    // A process has one group, and each test wants to be the one that has it.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
