//! What goes wrong, and what it leaves behind.

use std::fs;
use std::sync::mpsc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir_net::namespace::{self, NamespaceError};
use weir_net::tap::{TapError, TapPool};

use crate::{enter, pool};

/// Puts an empty directory in front of `path`, for this process only.
fn hide(path: &str) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), none).expect("an empty directory");
}

fn tap_count() -> usize {
    fs::read_to_string("/proc/net/dev").expect("devices").matches("weir").count()
}

pub(crate) fn exhausted_network_is_an_error_until_a_release() {
    let pool = TapPool::new(&enter(), "10.88.0.0/31".parse().expect("a network"), 1500).expect("a pool");
    let tap = pool.acquire().expect("the only tap");
    let error = pool.acquire().expect_err("exhausted");
    assert!(matches!(&error, TapError::Address { name, .. } if name == "weir1"), "{error:?}");
    assert_eq!(tap_count(), 1);
    drop(tap);
    assert_eq!(pool.acquire().expect("the tap again").name(), "weir0");
}

pub(crate) fn missing_driver_is_named() {
    let pool = pool();
    let tap = pool.acquire().expect("a tap");
    hide("/dev/net");
    let error = pool.acquire().expect_err("no driver");
    assert!(matches!(&error, TapError::Missing { name, .. } if name == "weir1"), "{error:?}");
    assert!(weir_net::doctor::tun().expect_err("no driver").fix.contains("modprobe tun"));
    // An idle tap needs no driver.
    drop(tap);
    assert_eq!(pool.acquire().expect("the tap again").name(), "weir0");
}

/// An MTU that the kernel refuses makes a device fail half-way.
pub(crate) fn failed_setup_leaves_nothing() {
    let pool = TapPool::new(&enter(), "10.88.0.0/31".parse().expect("a network"), 1).expect("a pool");
    // Each failure gives the only link back: it is never exhausted.
    for number in 0..3 {
        let error = pool.acquire().expect_err("no such mtu");
        assert_eq!(error.to_string(), format!("set mtu 1 of weir{number} and bring it up"));
    }
    assert_eq!(tap_count(), 0);
}

pub(crate) fn second_thread_is_refused() {
    let (end, wait) = mpsc::channel::<()>();
    let thread = thread::spawn(move || wait.recv());
    let error = namespace::enter_private().expect_err("two threads");
    assert!(matches!(error, NamespaceError::Threaded { threads: 2, expected: 1 }), "{error:?}");
    if !nix::unistd::geteuid().is_root() {
        let error = namespace::become_user_root().expect_err("two threads");
        assert!(matches!(error, NamespaceError::Threaded { threads: 2, expected: 1 }), "{error:?}");
    }
    drop(end);
    // Its end: the channel is closed.
    assert!(thread.join().expect("no panic").is_err());
}

/// Isolation rests on the settings: where they cannot be seen, there is no namespace.
pub(crate) fn unseen_settings_are_refused() {
    namespace::become_user_root().expect("root");
    hide("/proc/sys");
    let error = namespace::enter_private().expect_err("no settings");
    assert!(matches!(&error, NamespaceError::Setting { name, .. } if name.starts_with("ipv4/")), "{error:?}");
}
