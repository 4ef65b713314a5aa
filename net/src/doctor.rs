//! What this machine lacks for weir's network, and how to mend it. For `weir doctor`, and for hints in errors.
//!
//! No check changes the calling process, and each may be called from any thread.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::process::Status;

/// The TUN driver's device node.
pub(crate) const TUN: &str = "/dev/net/tun";

/// Something that is missing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {fix}")]
pub struct Finding {
    /// What is wrong, lower case.
    pub problem: String,
    /// How to mend it: an instruction, lower case.
    pub fix: String,
}

impl Finding {
    fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into() }
    }
}

/// Whether TAP devices can be had: /dev/net/tun is there and may be opened.
///
/// # Errors
/// A [`Finding`] if not.
pub fn tun() -> Result<(), Finding> {
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(()),
        Err(error) => Err(Finding::new(format!("cannot open {TUN}: {error}"), tun_fix(&error))),
    }
}

/// What to do when /dev/net/tun cannot be opened because of `error`.
pub(crate) fn tun_fix(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "run `modprobe tun`; in a container, pass the device in (`--device /dev/net/tun`)"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "run as root, or allow this user (`chmod 0666 /dev/net/tun`); in a container, pass the device in"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the limit of open files (`ulimit -n`): one per VM and connection"
        }
        _ => "see the kernel's log (`dmesg`)",
    }
}

/// Whether a user without privileges can make a user namespace, which weir needs unless it is root.
///
/// # Errors
/// A [`Finding`] that names the setting in the way.
pub fn user_namespaces() -> Result<(), Finding> {
    user_namespace_settings(Path::new("/proc"))
}

fn user_namespace_settings(proc: &Path) -> Result<(), Finding> {
    if !proc.join("self/ns/user").exists() {
        return Err(Finding::new(
            "this kernel has no user namespaces",
            "run weir as root, or a kernel with CONFIG_USER_NS",
        ));
    }
    // Only those kernels have the setting that can be in the way: an absent one is not.
    let blocking = [
        ("user/max_user_namespaces", "0", "64"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    for (setting, off, on) in blocking {
        if read(&proc.join("sys").join(setting)).as_deref() == Some(off) {
            let name = setting.replace('/', ".");
            return Err(Finding::new(
                format!("{name} = {off} forbids unprivileged user namespaces"),
                format!("run weir as root, or `sysctl -w {name}={on}`"),
            ));
        }
    }
    Ok(())
}

/// Whether a network namespace can be made. As root one is made, and gone at once; otherwise only the settings
/// are looked at, since it takes a user namespace first, and that needs a process of its own.
///
/// # Errors
/// A [`Finding`] if not.
pub fn network_namespaces() -> Result<(), Finding> {
    network_namespace_settings(Path::new("/proc"))?;
    let status = Status::read()
        .map_err(|error| Finding::new(format!("cannot read /proc/self/status: {error}"), "mount /proc"))?;
    if status.is_capable_root() { make_network_namespace() } else { Ok(()) }
}

fn network_namespace_settings(proc: &Path) -> Result<(), Finding> {
    if !proc.join("self/ns/net").exists() {
        return Err(Finding::new("this kernel has no network namespaces", "use a kernel with CONFIG_NET_NS"));
    }
    if read(&proc.join("sys/user/max_net_namespaces")).as_deref() == Some("0") {
        return Err(Finding::new(
            "user.max_net_namespaces = 0 forbids network namespaces",
            "run `sysctl -w user.max_net_namespaces=64`",
        ));
    }
    Ok(())
}

/// Makes one for a thread that then ends: the namespace belongs to the thread alone and goes with it.
fn make_network_namespace() -> Result<(), Finding> {
    let made = thread::scope(|scope| scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join());
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Finding::new(
            format!("cannot make a network namespace: {}", error.desc()),
            "allow unshare(2) (in a container: its seccomp profile), or raise user.max_net_namespaces",
        )),
        Err(_) => Err(Finding::new("the probing thread panicked", "report this as a bug")),
    }
}

/// The trimmed text of a setting, if there is such a setting.
fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests;
