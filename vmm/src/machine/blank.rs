//! A VM without memory, waiting for what it is to become.
//!
//! ```text
//!  prepare ──> Blank ──Boot──> booting an image ──┐
//!                │ └──Clone─> continuing a template's snapshot ──> Machine ──> ended
//!                └──Stop, or end of the control socket──> ended
//! ```
//! Making a VM and its vCPU takes most of a millisecond and is the same for all, so it is done before anybody waits
//! for it. A blank knows nothing of any tenant.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use kvm_ioctls::{Cap, Kvm, VmFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::error::BuildError;
use super::gates::Gates;
use super::vcpu::{self, Vcpu, step};
use super::{Limit, boot, thaw};
use crate::event::{ExitReason, VmCommand, VmEvent};
use crate::{channel, memory, sys};

/// Three pages that no kernel of ours uses; KVM on Intel wants them for real mode, and nobody else minds.
const KVM_TSS: usize = 0xfffb_d000;

/// See the module's documentation.
pub(crate) struct Blank {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: VmFd,
    pub(crate) gates: Gates,
    /// Frequency of the guest's time-stamp counter, Hz.
    pub(crate) tsc_hz: u64,
}

/// What came over the control socket.
enum Order {
    Become(VmCommand, Vec<OwnedFd>),
    End(ExitReason),
}

impl Blank {
    /// Makes a VM on an open /dev/kvm. The calling thread has to be the one that runs it.
    pub(crate) fn prepare(kvm: OwnedFd) -> Result<Self, BuildError> {
        let kvm: Kvm = sys::kvm(kvm);
        let vm = kvm.create_vm().map_err(step("create vm"))?;
        if kvm.check_extension(Cap::SetTssAddr) {
            vm.set_tss_address(KVM_TSS).map_err(step("set tss address"))?;
        }
        let gates = Gates::load();
        let mut vcpu = vcpu::create(&kvm, &vm, &gates)?;
        // What KVM does at a VM's first run (it starts a thread, for one) it does now. If it cannot, the real run says so,
        // which is more patient.
        let _ = vcpu::complete_exit(&mut vcpu.fd);
        let tsc_hz = vcpu::tsc_hz(&vcpu.fd)?;
        Ok(Self { vcpu, vm, gates, tsc_hz })
    }

    /// Waits for an order on `control` and carries it out to the guest's end.
    pub(crate) fn serve(self, control: OwnedFd, limit: Limit) -> ExitReason {
        let (command, files) = match receive(&control) {
            Order::Become(command, files) => (command, files),
            Order::End(reason) => return reason,
        };
        let memory = match &command {
            VmCommand::Boot(order) => order.spec.memory,
            VmCommand::Clone(order) => order.memory,
            VmCommand::Stop | VmCommand::Reset | VmCommand::Report => return ExitReason::Stopped,
        };
        let limited = memory::check_size(memory).map_err(BuildError::from).and_then(|()| Ok(limit(memory)?));
        let machine = limited.and_then(|()| match command {
            VmCommand::Boot(order) => boot::from_order(self, &order, files, control),
            VmCommand::Clone(order) => thaw::from_order(self, *order, files, control),
            VmCommand::Stop | VmCommand::Reset | VmCommand::Report => unreachable!("returned above"),
        });
        match machine {
            Ok(machine) => machine.run(),
            Err(error) => error.reason(),
        }
    }
}

/// Waits for one command.
fn receive(control: &OwnedFd) -> Order {
    loop {
        match channel::recv(control.as_fd()) {
            // Whether it answers is all that there is to know of it. If it cannot, weir will take it for stuck, and be right.
            Ok(Some((VmCommand::Report, _))) => {
                let _ = channel::send(control.as_fd(), &VmEvent::Report { quiet: Duration::MAX }, &[]);
            }
            Ok(Some((command, files))) => return Order::Become(command, files),
            Err(error) if error.would_block() => {
                match poll(&mut [PollFd::new(control, PollFlags::IN)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Order::End(ExitReason::Host(format!("wait for an order: {error}"))),
                }
            }
            Err(error) if error.is_message() => return Order::End(ExitReason::Host(crate::message(&error))),
            // weir is gone.
            Ok(None) | Err(_) => return Order::End(ExitReason::Stopped),
        }
    }
}
