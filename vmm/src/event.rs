//! What a VM's process and weir say to each other over the VM's control socket.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::channel::{self, ChannelError};
use crate::order::{BootOrder, CloneOrder};

/// From a VM's process to weir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmEvent {
    /// The application listens.
    Ready,
    /// A line that the guest logged.
    Log(String),
    /// A template is frozen; its state, for [`crate::order::CloneOrder::state`] and for nobody else's eyes: it comes from
    /// a process that a guest may have taken over. Its memory is in the memfd of its order once the process is gone.
    Frozen(Vec<u8>),
    /// The answer to [`VmCommand::Report`]: for how long the guest has neither computed nor sent anything of its own
    /// accord. It comes from a process that a guest may have taken over.
    Report {
        /// Zero while it does.
        quiet: Duration,
    },
    /// The last message: why the VM ended.
    Exit(ExitReason),
}

/// From weir to a VM's process. End of file on the socket means [`VmCommand::Stop`] too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmCommand {
    /// To a blank process: boot an image.
    Boot(Box<BootOrder>),
    /// To a blank process: continue where a template stopped.
    Clone(Box<CloneOrder>),
    /// To a clone: back to where it began, as another incarnation of the same VM; answered by [`VmEvent::Ready`].
    Reset,
    /// Say whether the guest does anything; answered by [`VmEvent::Report`], if there is room for that. A blank process
    /// answers too.
    Report,
    /// End now.
    Stop,
}

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// weir asked for it.
    Stopped,
    /// The application ended with this code.
    Exited(i32),
    /// The application panicked.
    Panicked(String),
    /// The guest reported a CPU exception it did not expect.
    Faulted(String),
    /// The guest did what no working guest does.
    Crashed(CrashReason),
    /// The image or the spec cannot become a VM.
    Refused(String),
    /// The host could not run it (KVM missing, memory, a bug of ours).
    Host(String),
    /// The process ended without a last word (SIGKILL, seccomp, abort).
    Died(String),
}

/// How a guest broke its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrashReason {
    /// KVM_EXIT_SHUTDOWN: a fault that could not be delivered.
    TripleFault,
    /// A fault while another was being handled.
    DoubleFault,
    /// KVM_EXIT_INTERNAL_ERROR: an instruction that cannot be emulated.
    Emulation(String),
    /// It broke the rules of a virtqueue or of a device's registers.
    Virtio(String),
    /// An exit that this machine has no use for (port I/O, HLT, unknown address).
    UnexpectedExit(String),
}

impl ExitReason {
    /// Short stable word for the `reason` label of `weir_vm_exits_total`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Exited(_) => "exited",
            Self::Panicked(_) => "panic",
            Self::Faulted(_) => "fault",
            Self::Crashed(CrashReason::TripleFault) => "triple_fault",
            Self::Crashed(CrashReason::DoubleFault) => "double_fault",
            Self::Crashed(CrashReason::Emulation(_)) => "emulation",
            Self::Crashed(CrashReason::Virtio(_)) => "virtio",
            Self::Crashed(CrashReason::UnexpectedExit(_)) => "unexpected_exit",
            Self::Refused(_) => "refused",
            Self::Host(_) => "host",
            Self::Died(_) => "died",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Exited(code) => write!(f, "application exited with code {code}"),
            Self::Panicked(text) => write!(f, "application panicked: {text}"),
            Self::Faulted(text) => write!(f, "guest fault: {text}"),
            Self::Crashed(reason) => write!(f, "guest crashed: {reason}"),
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Host(text) => write!(f, "host failure: {text}"),
            Self::Died(text) => write!(f, "vm process died: {text}"),
        }
    }
}

impl fmt::Display for CrashReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => f.write_str("triple fault"),
            Self::DoubleFault => f.write_str("fault while handling a fault"),
            Self::Emulation(text) => write!(f, "instruction that cannot be emulated: {text}"),
            Self::Virtio(text) => write!(f, "virtio violation: {text}"),
            Self::UnexpectedExit(text) => write!(f, "unexpected exit: {text}"),
        }
    }
}

/// Sends `event` to weir. On a non-blocking socket it never waits: see [`ChannelError::would_block`].
///
/// # Errors
/// See [`ChannelError`].
pub fn send(socket: impl AsFd, event: &VmEvent) -> Result<(), ChannelError> {
    channel::send(socket.as_fd(), event, &[])
}

/// Sends `event` to weir and waits up to `patience` for room: for the last word, which must not be lost to a socket
/// that is full of log lines, nor keep the process of a dead VM alive.
///
/// # Errors
/// See [`ChannelError`]; would-block: there was no room in time.
pub fn send_within(socket: impl AsFd, event: &VmEvent, patience: Duration) -> Result<(), ChannelError> {
    let deadline = Instant::now() + patience;
    loop {
        match send(&socket, event) {
            Err(error) if error.would_block() => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !wait_for_room(socket.as_fd(), left) {
                    return Err(error);
                }
            }
            other => return other,
        }
    }
}

/// False if waiting is of no use.
fn wait_for_room(socket: BorrowedFd<'_>, timeout: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(timeout) else { return false };
    match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::OUT)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => true,
        Err(_) => false,
    }
}

/// Receives an event from a VM's process; `None`: it closed its end. For weir's side of the socket.
///
/// # Errors
/// See [`ChannelError`].
pub fn recv(socket: impl AsFd) -> Result<Option<VmEvent>, ChannelError> {
    Ok(channel::recv(socket.as_fd())?.map(|(event, _)| event))
}

/// Sends `command` to a VM's process, with the descriptors that belong to it. For weir's side of the socket.
///
/// # Errors
/// See [`ChannelError`].
pub fn command(socket: impl AsFd, command: &VmCommand, files: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
    channel::send(socket.as_fd(), command, files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{OFlags, fcntl_setfl};

    #[test]
    fn events_keep_their_order_and_end_with_the_sender() {
        let (vm, weir) = channel::pair().unwrap();
        let events = [VmEvent::Ready, VmEvent::Log("x".into()), VmEvent::Exit(ExitReason::Exited(3))];
        for event in &events {
            send(&vm, event).unwrap();
        }
        drop(vm);
        for event in events {
            assert_eq!(recv(&weir).unwrap(), Some(event));
        }
        assert_eq!(recv(&weir).unwrap(), None);
    }

    #[test]
    fn the_last_word_waits_for_room_but_not_for_ever() {
        let (vm, weir) = channel::pair().unwrap();
        fcntl_setfl(&vm, OFlags::NONBLOCK).unwrap();
        let line = VmEvent::Log("x".repeat(1000));
        let sent = (0..100_000).take_while(|_| send(&vm, &line).is_ok()).count();
        assert!(sent < 100_000, "the socket is full");
        let last = VmEvent::Exit(ExitReason::Stopped);
        assert!(send_within(&vm, &last, Duration::ZERO).unwrap_err().would_block());
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_within(&vm, &last, Duration::from_secs(60)));
            for _ in 0..sent {
                assert_eq!(recv(&weir).unwrap(), Some(line.clone()));
            }
            assert_eq!(recv(&weir).unwrap(), Some(last.clone()));
            sender.join().unwrap().unwrap();
        });
    }
}
