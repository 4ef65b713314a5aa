//! The two ways in which a machine leaves its guest's time: a template is frozen, and a clone goes back to where it began.
//!
//! ```text
//! template: Booting ──READY──> idle in a PARK ──freeze──> state sent, process ends
//! clone:    Running | Parked ──Reset──> exit completed ─> memory, device, registers, boot-info ─> READY ─> Running
//! ```
//! Either first completes the exit that the vCPU stopped with, so that its registers are those of the next instruction.

use std::os::fd::AsFd;
use std::time::Duration;

use super::error::BuildError;
use super::run::Machine;
use super::state::MachineState;
use super::vcpu;
use crate::event::{self, ExitReason, VmEvent};
use crate::memory;
use crate::virtio::Transport;

/// How long a template's state waits for room in the control socket.
const FROZEN_PATIENCE: Duration = Duration::from_secs(1);

impl Machine {
    /// Ends a template; its process's last word but one is its state.
    pub(super) fn freeze(&mut self) -> ExitReason {
        let frozen = vcpu::complete_exit(&mut self.vcpu.fd)
            .and_then(|()| vcpu::save(&self.vcpu.fd))
            .map_err(|error| crate::message(&error));
        let encoded = frozen.and_then(|cpu| {
            let network = self.network.as_ref().map(Transport::state);
            MachineState { cpu, network }.encode().map_err(|error| error.to_string())
        });
        let sent = encoded.and_then(|state| {
            event::send_within(&self.control, &VmEvent::Frozen(state), FROZEN_PATIENCE)
                .map_err(|error| crate::message(&error))
        });
        match sent {
            Ok(()) => ExitReason::Stopped,
            Err(text) => ExitReason::Host(format!("freeze: {text}")),
        }
    }

    /// Takes a clone back to where it began.
    pub(super) fn reset(&mut self) -> Result<(), ExitReason> {
        let Some(origin) = &mut self.origin else {
            // Without a snapshot to go back to, the end is the only clean state there is.
            return Err(ExitReason::Stopped);
        };
        let vcpu = &mut self.vcpu;
        let mut rewind = || {
            vcpu::complete_exit(&mut vcpu.fd)?;
            memory::restore(&self.memory)?;
            if let (Some(network), Some(state)) = (&mut self.network, &origin.state.network) {
                network.rewind(state, &self.memory)?;
            }
            origin.enter(vcpu, &self.memory)
        };
        rewind().map_err(|error: BuildError| error.reason())?;
        self.outbox.ready_again(self.control.as_fd())?;
        origin.warm(&self.memory);
        Ok(())
    }
}
