//! The private namespace and its TAPs on a real kernel, as root and as a user without privileges.
//!
//! A process must be single-threaded when it enters a namespace, and a namespace is entered once. So each case
//! runs in a process of its own: this binary again, with [`CASE`] in front of user and name. Without root, only
//! the cases of an unprivileged user run, as the user at hand.

mod fault;
mod frame;
mod host;
mod isolation;
mod lifetime;
mod traffic;

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, alarm, geteuid, setgid, setgroups, setuid};
use weir_net::doctor;
use weir_net::namespace::{self, PrivateNamespace};
use weir_net::tap::TapPool;

/// First argument of a process that runs one case: `--case USER NAME`.
const CASE: &str = "--case";
/// Seconds after which the kernel ends a case that hangs.
const LIMIT: u32 = 9;
/// The user without privileges, where the tests run as root.
const NOBODY: u32 = 65534;

/// What runs in the process of a case.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("frame_from_host_reaches_guest_without_arp", traffic::frame_from_host_reaches_guest_without_arp),
    ("frame_from_guest_reaches_host", traffic::frame_from_guest_reaches_host),
    ("reused_tap_delivers_nothing_old", traffic::reused_tap_delivers_nothing_old),
    ("flags_set_by_a_former_user_do_not_last", traffic::flags_set_by_a_former_user_do_not_last),
    ("garbage_from_guest_stops_nothing", traffic::garbage_from_guest_stops_nothing),
    ("taps_are_never_shared_between_threads", traffic::taps_are_never_shared_between_threads),
    ("namespace_has_no_way_out", isolation::namespace_has_no_way_out),
    ("listener_bound_before_is_out_of_reach", isolation::listener_bound_before_is_out_of_reach),
    ("guest_reaches_no_other_link", isolation::guest_reaches_no_other_link),
    ("guest_gets_no_answer_to_arp", isolation::guest_gets_no_answer_to_arp),
    ("sigkill_leaves_no_tap", lifetime::sigkill_leaves_no_tap),
    ("exhausted_network_is_an_error_until_a_release", fault::exhausted_network_is_an_error_until_a_release),
    ("only_the_hosts_thread_reaches_the_host", host::only_the_hosts_thread_reaches_the_host),
    ("missing_driver_is_named", fault::missing_driver_is_named),
    ("failed_setup_leaves_nothing", fault::failed_setup_leaves_nothing),
    ("unseen_settings_are_refused", fault::unseen_settings_are_refused),
    ("second_thread_is_refused", fault::second_thread_is_refused),
];

/// Cases that other cases start.
const HELPERS: &[Case] = &[("hold_taps", lifetime::hold_taps)];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, user, name] = arguments.as_slice()
        && first == CASE
    {
        return run(user, name);
    }
    libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    let root = geteuid().is_root();
    let trial = |user: &'static str, name: &'static str| {
        Trial::test(format!("{user}::{name}"), move || start(user, name))
    };
    let as_root = CASES.iter().map(|(name, _)| trial("root", name).with_ignored_flag(!root));
    let as_user = CASES.iter().map(|(name, _)| trial("user", name));
    as_root.chain(as_user).collect()
}

/// Runs a case in a process of its own.
fn start(user: &str, name: &str) -> Result<(), Failed> {
    // Where the tests run as root, an unprivileged user gets a device node of its own.
    doctor::tun()?;
    let output = command(user, name).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

fn command(user: &str, name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args([CASE, user, name]);
    command
}

/// The process of a case.
fn run(user: &str, name: &str) -> ExitCode {
    alarm::set(LIMIT);
    prctl::set_pdeathsig(Signal::SIGKILL).expect("a signal");
    if user == "user" && geteuid().is_root() {
        drop_privileges();
    }
    let case = CASES.iter().chain(HELPERS).find(|case| case.0 == name);
    let Some((_, run)) = case else {
        eprintln!("no case {name}");
        return ExitCode::FAILURE;
    };
    run();
    ExitCode::SUCCESS
}

/// Becomes a user without privileges on a machine where every user may open /dev/net/tun.
fn drop_privileges() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), MsFlags::empty(), none).expect("an empty /dev/net");
    mknod("/dev/net/tun", SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).expect("a device node");
    std::fs::set_permissions("/dev/net/tun", PermissionsExt::from_mode(0o666)).expect("open to all");
    setgroups(&[]).expect("no groups");
    setgid(Gid::from_raw(NOBODY)).expect("its group");
    setuid(Uid::from_raw(NOBODY)).expect("the user");
    // As if this user had started the program: its files in /proc belong to it.
    prctl::set_dumpable(true).expect("dumpable");
    prctl::set_pdeathsig(Signal::SIGKILL).expect("a signal");
}

/// Gets into a private namespace as `weir serve` does.
fn enter() -> PrivateNamespace {
    namespace::become_user_root().expect("root");
    namespace::enter_private().expect("a private namespace")
}

/// A pool of TAPs in a private namespace.
fn pool() -> TapPool {
    TapPool::new(&enter(), "10.88.0.0/16".parse().expect("a network"), 1500).expect("a pool")
}
