//! What happens in the forked process: jail, a blank VM, what it becomes, last word.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::sys::exit_now;
use crate::event::{self, ExitReason, VmEvent};
use crate::jail::{self, JailSpec, limits};
use crate::machine;

/// Longest text of a panic that is reported, bytes.
const PANIC_MAX: usize = 1024;
/// How long the last word waits for room in the socket.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Exit status of a process that panicked, as Rust's own.
const PANICKED: i32 = 101;

/// What a child has: this, the three standard streams (/dev/null), and nothing else.
#[derive(Debug)]
pub struct Inherited {
    /// /dev/kvm.
    pub kvm: OwnedFd,
    /// The child's end of its control socket.
    pub control: OwnedFd,
}

/// What a child does inside the jail, to the end of its VM. What it returns becomes the last word on the control socket.
pub type Body = fn(Inherited) -> ExitReason;

/// The [`Body`] of real VMs.
pub(super) fn run_machine(inherited: Inherited) -> ExitReason {
    machine::serve(inherited.kvm, inherited.control, limits::set_memory)
}

impl Inherited {
    fn descriptors(&self) -> [RawFd; 2] {
        [&self.kvm, &self.control].map(AsRawFd::as_raw_fd)
    }
}

/// The whole life of the child after fork. Never returns, so nothing that belongs to the launcher is dropped here.
pub(super) fn run(inherited: Inherited, jail: JailSpec<'_>, body: Body) -> ! {
    let Ok(last_word) = inherited.control.try_clone() else { exit_now(1) };
    let last_word = Arc::new(last_word);
    report_panics(Arc::clone(&last_word));
    let keep: Vec<RawFd> = inherited.descriptors().into_iter().chain([last_word.as_raw_fd()]).collect();
    let reason = match jail::enter(&JailSpec { keep: &keep, ..jail }) {
        Ok(()) => body(inherited),
        Err(error) => ExitReason::Host(crate::message(&error)),
    };
    say(last_word.as_fd(), reason);
    exit_now(0)
}

/// A panic is a bug of ours or worse: it ends the process in the hook, before anything unwinds.
fn report_panics(last_word: Arc<OwnedFd>) {
    std::panic::set_hook(Box::new(move |panic| {
        let mut text = panic.to_string();
        text.truncate(text.floor_char_boundary(PANIC_MAX));
        say(last_word.as_fd(), ExitReason::Host(text));
        exit_now(PANICKED)
    }));
}

/// Best effort: weir may be gone, or not reading; then the exit status must do.
fn say(control: BorrowedFd<'_>, reason: ExitReason) {
    let _ = event::send_within(control, &VmEvent::Exit(reason), LAST_WORD);
}
