//! What the service manager is told (sd_notify(3)), where there is one that wants to know (`NOTIFY_SOCKET`).
//!
//! Its socket may have an abstract name, which means something else in another network namespace: so it is told by the
//! thread that has stayed in the host's.

use sd_notify::NotifyState;
use weir_net::host::HostThread;

/// This weir serves.
pub(super) fn ready(outside: &HostThread) {
    notify(outside, NotifyState::Ready);
}

/// Another process is weir from now on.
pub(super) fn main_process(outside: &HostThread, pid: u32) {
    notify(outside, NotifyState::MainPid(pid));
}

fn notify(outside: &HostThread, state: NotifyState<'static>) {
    outside.run(move || {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "the service manager cannot be told how weir is");
        }
    });
}
