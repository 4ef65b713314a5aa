//! The launcher and the jail, on real processes: this program is the test, and, started again by
//! `launcher::spawn`, the launcher whose children run [`probes`].
//!
//! Everything runs twice: as root, where each VM has a user of its own, and in a user namespace of an unprivileged
//! user. No KVM is needed: /dev/null stands in for /dev/kvm.

#![allow(clippy::unwrap_used, reason = "this program is a test, though it runs itself")]

mod address_space;
mod harness;
mod layers;
mod life;
mod messages;
mod probes;
mod seccomp;
mod sys;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use harness::Privilege;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode] = arguments.as_slice()
        && let Some(words) = mode.strip_prefix("launcher+")
    {
        harness::as_launcher(words);
    }
    let tests = [layers::tests(), address_space::tests(), seccomp::tests(), life::tests(), messages::tests()]
        .concat();
    let trials = tests.into_iter().flat_map(|test| {
        Privilege::ALL.map(|privilege| {
            let name = format!("{}::{}", test.name, privilege.name());
            let run = move || {
                std::panic::catch_unwind(|| (test.run)(privilege)).map_err(|_| Failed::without_message())
            };
            let possible = privilege.available() && (!test.looks_inside || Privilege::Root.available());
            Trial::test(name, run).with_ignored_flag(!possible)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// One test, run for each [`Privilege`].
#[derive(Clone, Copy)]
struct Test {
    name: &'static str,
    run: fn(Privilege),
    /// Reads /proc of a launcher, which is not dumpable: only root may.
    looks_inside: bool,
}

/// Names the functions; behind the semicolon those that look inside.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)? $(; $($inside:ident),* $(,)?)?) => {
        pub(crate) fn tests() -> Vec<$crate::Test> {
            let test = |name, run, looks_inside| $crate::Test { name, run, looks_inside };
            vec![
                $(test(concat!(module_path!(), "::", stringify!($name)), $name as fn(_), false),)*
                $($(test(concat!(module_path!(), "::", stringify!($inside)), $inside as fn(_), true)),*)?
            ]
        }
    };
}
