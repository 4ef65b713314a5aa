//! Starts a guest on a thread of its own and listens to it as weir does.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use weir_abi::layout;
use weir_vmm::{ExitReason, VmEvent, VmId, VmSpec, channel as socket, event, kvm, machine};

use super::elf::{PF_R, PF_W, PF_X, TestElf, TestSegment};
use super::guests::{self, CODE, DATA, RODATA, RUNTIME};

/// Far beyond what any test needs: only a broken machine takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running guest.
pub(crate) struct Vm {
    pub(crate) weir: OwnedFd,
    reason: Receiver<ExitReason>,
}

/// The spec of a small guest.
pub(crate) fn spec() -> VmSpec {
    VmSpec {
        id: VmId(7),
        pool: "test".into(),
        memory: 4 << 20,
        vcpus: 1,
        net: None,
        env: vec![("NAME".into(), "value".into())],
        args: vec!["one".into()],
        log_lines: 100,
    }
}

/// An image with `code`, the runtime and some data.
pub(crate) fn image(code: &[u8]) -> TestElf {
    TestElf::guest(CODE, code)
        .with(TestSegment::load(RUNTIME, PF_R | PF_X, guests::common::runtime::code()))
        .with(TestSegment { memory_size: 0x2000, ..TestSegment::load(DATA, PF_R | PF_W, &[]) })
        .with(TestSegment::load(RODATA, PF_R, &[0x90; 64]))
}

/// `bytes` as the launcher gets them.
pub(crate) fn sealed(bytes: &[u8]) -> File {
    let mut file = File::from(
        memfd_create("image", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("create memfd"),
    );
    file.write_all(bytes).expect("write image");
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).expect("seal memfd");
    file
}

impl Vm {
    /// Starts `code` as a small guest.
    pub(crate) fn start(code: &[u8]) -> Self {
        Self::with(spec(), sealed(&image(code).build()), |_| {})
    }

    /// Starts `image` as `spec` says; `before` may use weir's end of the control socket first.
    pub(crate) fn with(spec: VmSpec, image: File, before: impl FnOnce(&OwnedFd)) -> Self {
        Self::with_tap(spec, image, None, before)
    }

    /// The same with a network: `tap` keeps message boundaries and does not block.
    pub(crate) fn with_tap(
        spec: VmSpec,
        image: File,
        tap: Option<OwnedFd>,
        before: impl FnOnce(&OwnedFd),
    ) -> Self {
        let kvm = kvm::open().unwrap_or_else(|error| panic!("{error}"));
        let (control, weir) = socket::pair().expect("make control socket");
        set_socket_timeout(&weir, Timeout::Recv, Some(PATIENCE)).expect("bound the wait for events");
        before(&weir);
        let (sender, reason) = channel();
        // Not scoped: a machine that does not stop must fail its test, not hang it.
        thread::spawn(move || sender.send(machine::run(kvm, &spec, image, tap, control)));
        Self { weir, reason }
    }

    /// A VM that does not know yet what it is.
    pub(crate) fn blank() -> Self {
        let kvm = kvm::open().unwrap_or_else(|error| panic!("{error}"));
        let (control, weir) = socket::pair().expect("make control socket");
        set_socket_timeout(&weir, Timeout::Recv, Some(PATIENCE)).expect("bound the wait for events");
        let (sender, reason) = channel();
        // As above.
        thread::spawn(move || sender.send(machine::serve(kvm, control, |_| Ok(()))));
        Self { weir, reason }
    }

    /// A way to wait for the guest's end, and weir's end of the control socket.
    pub(crate) fn split(self) -> (impl FnOnce() -> ExitReason, OwnedFd) {
        let Self { weir, reason } = self;
        (move || reason.recv_timeout(PATIENCE).expect("the machine stops in bounded time"), weir)
    }

    /// The next event; `None`: the VM ended.
    pub(crate) fn event(&self) -> Option<VmEvent> {
        event::recv(&self.weir).expect("receive event")
    }

    /// Waits for the guest's end; its reason, and the events that were not taken before.
    pub(crate) fn finish(self) -> (ExitReason, Vec<VmEvent>) {
        let events = std::iter::from_fn(|| self.event()).collect();
        (self.reason(), events)
    }

    /// Waits for the guest's end without reading its events.
    pub(crate) fn reason(&self) -> ExitReason {
        self.reason.recv_timeout(PATIENCE).expect("the machine stops in bounded time")
    }
}

/// What [`guests::REPORT_FAULT`] reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) cr2: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
    pub(crate) r15: u64,
    pub(crate) handler_rsp: u64,
}

/// Numbers that a guest reported.
pub(crate) fn numbers(reason: &ExitReason) -> Vec<u64> {
    let ExitReason::Faulted(text) = reason else { panic!("the guest reports: {reason:?}") };
    text.split_whitespace().map(|word| u64::from_str_radix(word, 16).expect("a number in hex")).collect()
}

/// Runs `code` until its fault handler reports.
pub(crate) fn fault(code: &[u8]) -> Facts {
    let (reason, _) = Vm::start(code).finish();
    let [vector, error, cr2, rip, cs, rflags, rsp, ss, r15, handler_rsp] = numbers(&reason)[..] else {
        panic!("ten facts: {reason:?}")
    };
    assert_eq!(handler_rsp, layout::FAULT_STACK + layout::FAULT_STACK_SIZE - 8);
    Facts { vector, error, cr2, rip, cs, rflags, rsp, ss, r15, handler_rsp }
}
