//! The machine's one loop: run the guest until it asks for something, do it, run on.
//!
//! ```text
//!            KVM_RUN returns                  PARK, queues served, nothing for the guest
//! Running ───────────────────> Handling ─────────────────────────────────────────────────> Parked (ppoll)
//!    ^                          │  │  ^                                                       │
//!    └──────────────────────────┘  │  └─────── TAP, deadline, control socket ─────────────────┘
//!                                  └──> ended: EXIT, crash, Stop or end of file on the control socket
//! ```
//! One thread, no locks: queues are served only here, while the guest stands still.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use kvm_ioctls::VcpuExit;
use vm_memory::GuestMemoryMmap;

use super::access::load;
use super::activity::Activity;
use super::error::BuildError;
use super::interrupt;
use super::network::Network;
use super::outbox::{Outbox, WeirGone};
use super::refusals::Refusals;
use super::thaw::Origin;
use super::vcpu::Vcpu;
use crate::event::{CrashReason, ExitReason};
use crate::sys::{self, KickTarget, MappedVm};
use crate::virtio::DeviceError;

/// A VM. Fields are dropped in this order: kicks end before the vCPU, and memory goes last.
#[derive(Debug)]
pub(crate) struct Machine {
    _kick: KickTarget,
    pub(super) vcpu: Vcpu,
    _vm: MappedVm,
    pub(super) memory: GuestMemoryMmap,
    pub(super) network: Option<Network>,
    pub(super) control: OwnedFd,
    pub(super) outbox: Outbox,
    pub(super) activity: Activity,
    refusals: Refusals,
    /// A clone has one.
    pub(super) origin: Option<Origin>,
    /// To be frozen at the first PARK after READY.
    pub(super) template: bool,
}

/// What a machine is put together from.
pub(crate) struct Parts {
    pub(crate) vcpu: Vcpu,
    pub(crate) vm: MappedVm,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) network: Option<Network>,
    pub(crate) control: OwnedFd,
    pub(crate) log_lines: u32,
    pub(crate) template: bool,
}

impl From<WeirGone> for ExitReason {
    fn from(_: WeirGone) -> Self {
        Self::Stopped
    }
}

impl From<DeviceError> for ExitReason {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::Violation(violation) => Self::Crashed(CrashReason::Virtio(violation.to_string())),
            other => Self::Host(crate::message(&other)),
        }
    }
}

/// What KVM_RUN returned with, freed from the vCPU's memory.
enum Stop {
    /// A store of the first `size` bytes.
    Write { address: u64, data: [u8; 8], size: usize },
    /// It was answered; run on.
    Done,
    /// KVM could not run it now.
    Again,
    /// A signal.
    Kicked,
    /// The guest cannot go on.
    Crash(CrashReason),
    /// KVM cannot go on.
    Host(String),
}

impl Machine {
    /// A machine that is about to run, on the calling thread.
    pub(crate) fn new(parts: Parts) -> Result<Self, BuildError> {
        let Parts { mut vcpu, vm, memory, network, control, log_lines, template } = parts;
        let kick = interrupt::arm(&mut vcpu.fd, &control).map_err(BuildError::Interrupt)?;
        Ok(Self {
            _kick: kick,
            vcpu,
            _vm: vm,
            memory,
            network,
            control,
            outbox: Outbox::new(Instant::now(), log_lines),
            activity: Activity::new(Instant::now()),
            refusals: Refusals::default(),
            origin: None,
            template,
        })
    }

    /// The machine as a clone, which is READY from the start.
    pub(crate) fn cloned(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// Runs the guest to its end.
    pub(crate) fn run(mut self) -> ExitReason {
        // A command that came before the kick was armed sent no signal.
        let mut end = self.hear().map(drop);
        if let Some(origin) = self.origin.as_ref().filter(|_| end.is_ok()) {
            end = self.outbox.ready(self.control.as_fd()).map_err(ExitReason::from);
            origin.warm(&self.memory);
        }
        while end.is_ok() {
            end = self.step();
        }
        // If weir is gone nobody misses them.
        let _ = self.outbox.report_dropped(self.control.as_fd());
        end.err().unwrap_or(ExitReason::Stopped)
    }

    fn step(&mut self) -> Result<(), ExitReason> {
        let stop = self.enter()?;
        if !matches!(stop, Stop::Again) {
            self.refusals.over();
        }
        match stop {
            Stop::Again => self.refusals.again(),
            Stop::Write { address, data, size } => self.store(address, &data[..size]),
            Stop::Done => Ok(()),
            Stop::Kicked => {
                // Cleared before the socket is read: what arrives after that kicks again.
                self.vcpu.fd.set_kvm_immediate_exit(0);
                self.hear()?;
                Ok(self.outbox.flush(self.control.as_fd())?)
            }
            Stop::Crash(CrashReason::UnexpectedExit(text)) => Err(self.unexpected(&text)),
            Stop::Crash(CrashReason::Emulation(_)) => {
                let (suberror, data) = sys::internal_error(&mut self.vcpu.fd);
                let text = self.located(&format!("suberror {suberror}, data {data:x?}"));
                Err(ExitReason::Crashed(CrashReason::Emulation(text)))
            }
            Stop::Crash(reason) => Err(ExitReason::Crashed(reason)),
            Stop::Host(text) => Err(ExitReason::Host(self.located(&text))),
        }
    }

    /// Runs the guest until it stops; loads from devices are answered here, where KVM keeps their buffer.
    fn enter(&mut self) -> Result<Stop, ExitReason> {
        let unexpected = |text: String| Stop::Crash(CrashReason::UnexpectedExit(text));
        Ok(match self.vcpu.fd.run() {
            Ok(VcpuExit::MmioWrite(address, bytes)) => {
                let mut data = [0; 8];
                data[..bytes.len()].copy_from_slice(bytes);
                Stop::Write { address, data, size: bytes.len() }
            }
            Ok(VcpuExit::MmioRead(address, data)) => match load(self.network.as_mut(), address, data) {
                Ok(()) => Stop::Done,
                Err(text) => unexpected(text),
            },
            Ok(VcpuExit::Intr) => Stop::Kicked,
            Ok(VcpuExit::Shutdown) => Stop::Crash(CrashReason::TripleFault),
            Ok(VcpuExit::InternalError) => Stop::Crash(CrashReason::Emulation(String::new())),
            Ok(VcpuExit::IoIn(port, data)) => {
                unexpected(format!("read of {} bytes from port {port:#x}", data.len()))
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                unexpected(format!("write of {} bytes to port {port:#x}", data.len()))
            }
            Ok(VcpuExit::Hlt) => unexpected("HLT".to_owned()),
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                Stop::Host(format!("enter guest: hardware refused with {reason:#x} on cpu {cpu}"))
            }
            Ok(other) => unexpected(format!("{other:?}")),
            Err(error) if error.errno() == libc::EINTR => Stop::Kicked,
            Err(error) if error.errno() == libc::EAGAIN => Stop::Again,
            Err(error) => Stop::Host(format!("run guest: {error}")),
        })
    }

    pub(super) fn unexpected(&self, text: &str) -> ExitReason {
        ExitReason::Crashed(CrashReason::UnexpectedExit(self.located(text)))
    }

    /// `text` with the place in the guest's code.
    fn located(&self, text: &str) -> String {
        match self.vcpu.fd.get_regs() {
            Ok(registers) => format!("{text} (rip {:#x}, rsp {:#x})", registers.rip, registers.rsp),
            Err(error) => format!("{text} (registers unknown: {error})"),
        }
    }
}
