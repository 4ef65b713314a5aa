//! How weir gets a word in while the guest computes: whatever arrives on the control socket, end of file included,
//! sends this thread a signal, which ends KVM_RUN.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use kvm_ioctls::VcpuFd;
use nix::sys::signal::{SigSet, Signal};

use crate::channel;
use crate::event::{ExitReason, VmCommand};
use crate::sys::{self, KickTarget};

/// Arms the kick of `vcpu` by `control`. From then on the calling thread must be the one that runs it.
pub(crate) fn arm(vcpu: &mut VcpuFd, control: &OwnedFd) -> io::Result<KickTarget> {
    let target = KickTarget::new(vcpu);
    vmm_sys_util::signal::register_signal_handler(sys::KICK, sys::kick)?;
    let signal = Signal::try_from(sys::KICK)?;
    // The mask is inherited, and whoever started this process may have blocked anything.
    SigSet::from(signal).thread_unblock()?;
    sys::kick_on_input(control.as_fd())?;
    Ok(target)
}

/// What weir wants of a machine that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    Reset,
    Report,
}

/// Takes what weir said, without waiting.
///
/// # Errors
/// The reason to stop, if there is one.
pub(crate) fn commands(control: &OwnedFd) -> Result<Heard, ExitReason> {
    match channel::recv::<VmCommand>(control.as_fd()) {
        Ok(Some((VmCommand::Stop, _)) | None) => Err(ExitReason::Stopped),
        Ok(Some((VmCommand::Reset, _))) => Ok(Heard::Reset),
        Ok(Some((VmCommand::Report, _))) => Ok(Heard::Report),
        Ok(Some((VmCommand::Boot(_) | VmCommand::Clone(_), _))) => {
            Err(ExitReason::Host("a second order for one vm".to_owned()))
        }
        Err(error) if error.would_block() => Ok(Heard::Nothing),
        Err(error) if error.is_message() => Err(ExitReason::Host(crate::message(&error))),
        // A broken socket is weir's death.
        Err(_) => Err(ExitReason::Stopped),
    }
}
