//! weir's own network namespace, and how to get into it.
//!
//! ```text
//! root ─────────────────────────────────────┐
//!                                           ├─ enter_private() ──> no route out, nothing forwarded
//! other user ── become_user_root() ─────────┘
//! ```
//!
//! # What a VM can reach
//!
//! The only devices in there are `lo` and one TAP per VM, so whatever a VM sends arrives in this namespace's IP
//! stack and can end only there. `settings.rs` closes the ways on:
//!
//! * **Another VM.** Nothing is forwarded, and there is no bridge. Redirects and source routes are not obeyed.
//! * **The host, the outside, weir's listeners.** They are in another namespace; no device leads there.
//! * **In the name of another VM.** A packet whose source is not the VM's own address is dropped (strict reverse
//!   path filter), so a VM cannot speak into the connections that weir has with another one.
//! * **Loopback.** Packets from a TAP to or from 127.0.0.0/8 are dropped.
//! * **weir's end of another VM's link.** Linux accepts a packet for any address of the host on any device. So a
//!   VM does reach those addresses, but finds nothing: no socket in this namespace listens, and every connected one
//!   has another VM as its peer (see above). It learns only which addresses exist. *Nobody may listen in here.*
//! * **Neighbour tables.** TAPs are without ARP and IPv6 is off: no packet of a VM makes an entry.
//!
//! What remains: a VM may send ICMP errors about connections that are not its own. The kernel believes them only
//! if they quote ports and a sequence number inside the current window, as it does for anyone on the internet.

mod settings;

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::doctor;
use crate::host::HostThread;
use crate::process::Status;
use crate::route::{LOOPBACK, Route};

/// Why a namespace could not be made or set up. The process may be half inside: end it.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// `/proc` does not tell what this process is.
    #[error("read /proc/self/status")]
    Status(#[source] io::Error),
    /// Namespaces are made before any thread: one made before would stay behind in the old namespace.
    #[error("this process has {threads} threads, not {expected}; namespaces are entered before others start")]
    Threaded {
        /// Its threads.
        threads: u32,
        /// This one, and those that are to stay behind.
        expected: u32,
    },
    /// No user namespace.
    #[error("create a user namespace: {hint}")]
    User {
        /// What to do.
        hint: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The user namespace has no root.
    #[error("map root of the user namespace in {file}")]
    Map {
        /// The file that maps it.
        file: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No network namespace.
    #[error("create a network namespace: {hint}")]
    Network {
        /// What to do.
        hint: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A setting that isolation rests on.
    #[error("set /proc/sys/net/{name} to {value}; in a container, /proc/sys/net must be there and writable")]
    Setting {
        /// Its path below /proc/sys/net.
        name: String,
        /// The value that it must have.
        value: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `lo` stays down.
    #[error("bring lo up")]
    Loopback(#[source] io::Error),
}

/// Shows that this process has entered its private network namespace.
///
/// The namespace ends, and all devices in it, when the last process in it and the last TAP descriptor of it are
/// gone.
#[derive(Debug)]
pub struct PrivateNamespace(());

/// Makes this process root of a new user namespace, in which it may make other namespaces. Does nothing if it is
/// root with the capabilities for that already.
///
/// # Errors
/// [`NamespaceError`], also if this process has more than one thread.
pub fn become_user_root() -> Result<(), NamespaceError> {
    let status = Status::read().map_err(NamespaceError::Status)?;
    if status.is_capable_root() {
        return Ok(());
    }
    has_threads(status, 1)?;
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| NamespaceError::User { hint: user_namespace_hint(), source: errno.into() })?;
    // The kernel wants groups denied before an unprivileged user may map one (user_namespaces(7)).
    map("/proc/self/setgroups", "deny")?;
    map("/proc/self/uid_map", &format!("0 {user} 1"))?;
    map("/proc/self/gid_map", &format!("0 {group} 1"))
}

/// Moves the calling thread, which must be the only one, into a new network namespace, and closes it off.
///
/// Sockets made before stay in the namespace they were made in: bind listeners first.
///
/// # Errors
/// [`NamespaceError`], also if this process has more than one thread.
pub fn enter_private() -> Result<PrivateNamespace, NamespaceError> {
    enter_private_beside(&[])
}

/// As [`enter_private`], but these threads may be there, too: they stay in the namespace that is left.
///
/// # Errors
/// [`NamespaceError`], also if this process has any other thread.
pub fn enter_private_beside(staying: &[&HostThread]) -> Result<PrivateNamespace, NamespaceError> {
    let expected = u32::try_from(staying.len()).unwrap_or(u32::MAX).saturating_add(1);
    has_threads(Status::read().map_err(NamespaceError::Status)?, expected)?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| NamespaceError::Network { hint: network_namespace_hint(), source: errno.into() })?;
    settings::apply()?;
    Route::open().and_then(|mut route| route.set_up(LOOPBACK)).map_err(NamespaceError::Loopback)?;
    Ok(PrivateNamespace(()))
}

fn has_threads(status: Status, expected: u32) -> Result<(), NamespaceError> {
    match status.threads {
        threads if threads == expected => Ok(()),
        threads => Err(NamespaceError::Threaded { threads, expected }),
    }
}

fn map(file: &'static str, text: &str) -> Result<(), NamespaceError> {
    fs::write(file, text).map_err(|source| NamespaceError::Map { file, source })
}

fn user_namespace_hint() -> String {
    match doctor::user_namespaces() {
        Err(finding) => finding.to_string(),
        Ok(()) => "run as root, or allow unshare(2) (in a container: its seccomp profile)".to_owned(),
    }
}

fn network_namespace_hint() -> String {
    match doctor::network_namespaces() {
        Err(finding) => finding.to_string(),
        Ok(()) => "it takes root, or a user namespace made before".to_owned(),
    }
}
