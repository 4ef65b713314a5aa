//! What happens in the forked process: jail, VM, last word.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::sys::exit_now;
use crate::channel;
use crate::event::{ExitReason, VmEvent};
use crate::jail::{self, JailSpec};
use crate::spec::VmSpec;

/// Longest text of a panic that is reported, bytes.
const PANIC_MAX: usize = 1024;
/// Exit status of a process that panicked, as Rust's own.
const PANICKED: i32 = 101;

/// What a VM's process has: this, the three standard streams (/dev/null), and nothing else.
#[derive(Debug)]
pub struct Inherited {
    /// /dev/kvm.
    pub kvm: OwnedFd,
    /// What to run.
    pub spec: VmSpec,
    /// The image: a sealed memfd.
    pub image: OwnedFd,
    /// The TAP, if the spec has a network.
    pub tap: Option<OwnedFd>,
    /// The VM's end of its control socket.
    pub control: OwnedFd,
}

/// Runs a VM to its end, inside the jail. What it returns becomes the last word on the control socket.
pub type Body = fn(Inherited) -> ExitReason;

impl Inherited {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let fixed = [&self.kvm, &self.image, &self.control].map(AsRawFd::as_raw_fd);
        fixed.into_iter().chain(self.tap.as_ref().map(AsRawFd::as_raw_fd))
    }
}

/// The whole life of the child after fork. Never returns, so nothing that belongs to the launcher is dropped here.
pub(super) fn run(inherited: Inherited, jail: JailSpec<'_>, body: Body) -> ! {
    let Ok(last_word) = inherited.control.try_clone() else { exit_now(1) };
    let last_word = Arc::new(last_word);
    report_panics(Arc::clone(&last_word));
    let keep: Vec<RawFd> = inherited.descriptors().chain([last_word.as_raw_fd()]).collect();
    let reason = match jail::enter(&JailSpec { keep: &keep, ..jail }) {
        Ok(()) => body(inherited),
        Err(error) => ExitReason::Host(with_sources(&error)),
    };
    say(last_word.as_fd(), &VmEvent::Exit(reason));
    exit_now(0)
}

/// A panic is a bug of ours or worse: it ends the process in the hook, before anything unwinds.
fn report_panics(last_word: Arc<OwnedFd>) {
    std::panic::set_hook(Box::new(move |panic| {
        let mut text = panic.to_string();
        text.truncate(text.floor_char_boundary(PANIC_MAX));
        say(last_word.as_fd(), &VmEvent::Exit(ExitReason::Host(text)));
        exit_now(PANICKED)
    }));
}

/// Best effort: weir may be gone, or not reading; then the exit status must do.
fn say(control: BorrowedFd<'_>, event: &VmEvent) {
    let sent = channel::send(control, event, &[]);
    if sent.is_err_and(|error| error.would_block()) {
        let mut fds = [PollFd::from_borrowed_fd(control, PollFlags::OUT)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut fds, Some(&second)) == Ok(1) {
            let _ = channel::send(control, event, &[]);
        }
    }
}

/// An error and its causes in one line.
pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
