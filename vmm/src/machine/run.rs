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
use std::time::{Duration, Instant};

use kvm_ioctls::VcpuExit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use weir_abi::control::{EXIT_MAX, LOG_MAX, PageRange, Slice};
use weir_abi::layout;

use super::activity::Activity;
use super::control::{self, Request};
use super::error::BuildError;
use super::interrupt::Heard;
use super::network::Network;
use super::outbox::{Outbox, WeirGone};
use super::refusals::Refusals;
use super::thaw::Origin;
use super::vcpu::Vcpu;
use super::{exit, interrupt};
use crate::event::{CrashReason, ExitReason};
use crate::memory::{self, PAGE};
use crate::sys::{self, BootInfoBytes, KickTarget, MappedVm};
use crate::virtio::{DeviceError, Progress, Transport};

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
    template: bool,
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

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slept {
    /// A device, the time, or nothing.
    Woken,
    /// The machine is where it began, its guest not in a PARK any more.
    Reset,
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

    /// The guest stored `data` at an address without memory.
    fn store(&mut self, address: u64, data: &[u8]) -> Result<(), ExitReason> {
        match (device_at(address, data.len()), &mut self.network) {
            (Some((layout::CONTROL, offset)), _) => match control::write(offset, data) {
                Ok(request) => self.serve(request),
                Err(error) => Err(self.unexpected(&error.to_string())),
            },
            (Some((layout::VIRTIO_NET, offset)), Some(network)) => {
                Ok(network.write(offset, data, &self.memory)?)
            }
            _ => Err(self.unexpected(&format!("write of {} bytes to {address:#x}", data.len()))),
        }
    }

    fn serve(&mut self, request: Request) -> Result<(), ExitReason> {
        match request {
            Request::Park(wait) => self.park(wait),
            Request::Ready => Ok(self.outbox.ready(self.control.as_fd())?),
            Request::Log(slice) => {
                let line = self.read("LOG", slice, LOG_MAX)?;
                Ok(self.outbox.log(self.control.as_fd(), &line, Instant::now())?)
            }
            Request::Discard(pages) => self.discard(pages),
            Request::Exit(slice) => Err(exit::reason(&self.read("EXIT", slice, EXIT_MAX)?)),
            Request::DoubleFault => Err(ExitReason::Crashed(CrashReason::DoubleFault)),
        }
    }

    /// Gives the host's memory behind pages of the heap back.
    fn discard(&self, pages: PageRange) -> Result<(), ExitReason> {
        let (start, length) = (pages.address(), pages.bytes());
        // The guest cannot write this page.
        let info = self.memory.read_obj(GuestAddress(layout::BOOT_INFO));
        let BootInfoBytes(info) = info.map_err(|error| ExitReason::Host(error.to_string()))?;
        let in_heap = info.heap.start <= start && start + length <= info.heap.end;
        if length == 0 || start % PAGE != 0 || !in_heap {
            let text = format!("DISCARD of {length} bytes at {start:#x}, not pages of the heap");
            return Err(self.unexpected(&text));
        }
        let kept = if self.template { memory::Kept::File } else { memory::Kept::Process };
        memory::discard(&self.memory, start..start + length, kept)
            .map_err(|error| ExitReason::Host(crate::message(&error)))
    }

    /// Copies a message of at most `longest` bytes out of guest memory; what is longer is cut.
    fn read(&self, register: &str, slice: Slice, longest: usize) -> Result<Vec<u8>, ExitReason> {
        let mut bytes = vec![0; usize::from(slice.length()).min(longest)];
        match self.memory.read_slice(&mut bytes, GuestAddress(slice.address())) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(self.unexpected(&format!(
                "{register} of {} bytes at {:#x}, outside of memory",
                slice.length(),
                slice.address()
            ))),
        }
    }

    /// Serves the queues until there is something for the guest or `wait` is over.
    fn park(&mut self, wait: Option<Duration>) -> Result<(), ExitReason> {
        let begin = Instant::now();
        let deadline = wait.and_then(|wait| begin.checked_add(wait));
        let yields = wait == Some(Duration::ZERO);
        if !yields {
            self.activity.parks(begin);
        }
        loop {
            let now = Instant::now();
            let progress = self.service(now)?;
            if progress.wake && !yields {
                self.activity.served(&progress, now);
            }
            if progress.wake || yields {
                return Ok(());
            }
            if self.template && self.outbox.is_ready() && !progress.more {
                return Err(self.freeze());
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.activity.wakes(now);
                return Ok(());
            }
            // What a limit of the link keeps waiting is served when its time has come.
            let device = self.network.as_ref().and_then(Transport::deadline);
            let until = deadline.into_iter().chain(device).min();
            let left = until.map(|until| until.saturating_duration_since(now));
            if self.sleep(if progress.more { Some(Duration::ZERO) } else { left })? == Slept::Reset {
                return Ok(());
            }
        }
    }

    fn service(&mut self, now: Instant) -> Result<Progress, ExitReason> {
        match &mut self.network {
            Some(network) => {
                let progress = network.service(&self.memory, now)?;
                self.activity.moved(&progress, now);
                Ok(progress)
            }
            None => Ok(Progress::default()),
        }
    }

    /// Waits until a device or weir has something, at most `timeout`. May return early.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<Slept, ExitReason> {
        let control = &self.control;
        let interest = if self.outbox.is_waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(control, interest)];
        if let Some(network) = &self.network {
            fds.extend(network.readable_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            fds.extend(network.writable_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        }
        // Longer than the clock can express is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(ExitReason::Host(format!("wait for devices: {error}"))),
        }
        let news = fds[0].revents();
        if news.contains(PollFlags::OUT) {
            self.outbox.flush(control.as_fd())?;
        }
        if news.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return self.hear();
        }
        Ok(Slept::Woken)
    }

    /// Does what weir said, to the last: one signal may stand for several messages, and a reset takes the vCPU out of
    /// KVM_RUN by its own means, with which goes the kick of a command that came meanwhile.
    fn hear(&mut self) -> Result<Slept, ExitReason> {
        let mut slept = Slept::Woken;
        loop {
            match interrupt::commands(&self.control)? {
                Heard::Nothing => return Ok(slept),
                Heard::Report => {
                    let quiet = self.activity.quiet(Instant::now());
                    self.outbox.report(self.control.as_fd(), quiet)?;
                }
                Heard::Reset => {
                    self.reset()?;
                    self.activity.is_asked(Instant::now());
                    slept = Slept::Reset;
                }
            }
        }
    }

    fn unexpected(&self, text: &str) -> ExitReason {
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

/// The guest loads from an address without memory.
fn load(network: Option<&mut Network>, address: u64, data: &mut [u8]) -> Result<(), String> {
    match (device_at(address, data.len()), network) {
        (Some((layout::CONTROL, offset)), _) => {
            control::read(offset, data).map_err(|error| error.to_string())
        }
        (Some((layout::VIRTIO_NET, offset)), Some(network)) => {
            network.read(offset, data);
            Ok(())
        }
        _ => Err(format!("read of {} bytes from {address:#x}", data.len())),
    }
}

/// Page and offset of an access that lies within one page of the MMIO window.
fn device_at(address: u64, size: usize) -> Option<(u64, u64)> {
    let offset = address % PAGE;
    let in_window = (layout::CONTROL..layout::MMIO_END).contains(&address);
    (in_window && offset + size as u64 <= PAGE).then_some((address - offset, offset))
}
