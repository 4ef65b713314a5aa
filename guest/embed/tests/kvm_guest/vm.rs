//! A VM on a thread of this process.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use weir_net::tap::{TapLink, TapPool};
use weir_vmm::{
    BootOrder, CloneOrder, ExitReason, NetLimits, NetSpec, Sharing, VmCommand, VmEvent, VmId, VmSpec,
    channel as socket, event, kvm, machine,
};

/// Port that guests listen on.
pub(crate) const PORT: u16 = 9000;
/// Identity of every VM here: each case has one.
pub(crate) const ID: u64 = 42;
const MTU: u16 = 1500;
const MEMORY: u64 = 16 << 20;

/// A running guest.
pub(crate) struct Vm {
    weir: OwnedFd,
    reason: Receiver<ExitReason>,
    tap: TapLink,
}

impl Vm {
    /// Starts `image` with `args` in 16 MiB.
    pub(crate) fn start(taps: &TapPool, image: &[u8], args: &[&str]) -> Self {
        let kvm = kvm::open().unwrap_or_else(|error| panic!("{error}"));
        let (control, weir) = socket::pair().unwrap();
        let tap = taps.acquire().unwrap_or_else(|error| panic!("{error}"));
        let fd = tap.fd().try_clone_to_owned().unwrap();
        let (spec, image) = (spec(&tap, args), sealed(image));
        let (sender, reason) = channel();
        // Not joined: a machine that does not stop must fail its test, not hang it.
        thread::spawn(move || sender.send(machine::run(kvm, &spec, image, Some(fd), control)));
        Self { weir, reason, tap }
    }

    /// Starts `image` and waits until it is READY.
    pub(crate) fn ready(taps: &TapPool, image: &[u8], args: &[&str]) -> Self {
        let vm = Self::start(taps, image, args);
        match event::recv(&vm.weir).unwrap() {
            Some(VmEvent::Ready) => vm,
            other => panic!("{other:?}, {:?}", vm.reason()),
        }
    }

    /// A VM that is nothing yet, for the link of `tap`.
    fn blank(tap: TapLink) -> Self {
        let kvm = kvm::open().unwrap_or_else(|error| panic!("{error}"));
        let (control, weir) = socket::pair().unwrap();
        let (sender, reason) = channel();
        // As above.
        thread::spawn(move || sender.send(machine::serve(kvm, control, |_| Ok(()))));
        Self { weir, reason, tap }
    }

    /// Takes it back to its snapshot.
    pub(crate) fn reset(&self) {
        event::command(&self.weir, &VmCommand::Reset, &[]).unwrap();
        assert_eq!(self.event(), Some(VmEvent::Ready));
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (self.tap.link().guest, PORT).into()
    }

    /// Why it ended, once it has.
    pub(crate) fn reason(&self) -> ExitReason {
        self.reason.recv_timeout(Duration::from_secs(8)).expect("the machine stops in bounded time")
    }

    /// The next event; `None`: it has ended.
    pub(crate) fn event(&self) -> Option<VmEvent> {
        event::recv(&self.weir).unwrap()
    }

    /// Ends it, and says why it ended.
    pub(crate) fn stop(self) -> ExitReason {
        event::command(&self.weir, &VmCommand::Stop, &[]).unwrap();
        self.reason()
    }
}

/// A frozen guest.
pub(crate) struct Snapshot {
    memory: File,
    state: Vec<u8>,
}

impl Snapshot {
    /// Boots `image` with `args` as a template, to the moment when it is READY and idle.
    pub(crate) fn of(taps: &TapPool, image: &[u8], args: &[&str]) -> Self {
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
        let memory = File::from(memfd_create("memory", flags).unwrap());
        memory.set_len(MEMORY).unwrap();
        let tap = taps.acquire().unwrap_or_else(|error| panic!("{error}"));
        let order = VmCommand::Boot(Box::new(BootOrder { spec: spec(&tap, args), template: true }));
        let (image, template) = (sealed(image), Vm::blank(tap));
        let tap = template.tap.fd();
        event::command(&template.weir, &order, &[image.as_fd(), tap, memory.as_fd()]).unwrap();
        assert_eq!(template.event(), Some(VmEvent::Ready));
        let Some(VmEvent::Frozen(state)) = template.event() else { panic!("{:?}", template.reason()) };
        assert_eq!(template.reason(), ExitReason::Stopped);
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)
            .unwrap();
        Self { memory, state }
    }

    /// Continues it as VM `id`.
    pub(crate) fn thaw(&self, taps: &TapPool, id: u64) -> Vm {
        let tap = taps.acquire().unwrap_or_else(|error| panic!("{error}"));
        let order = CloneOrder {
            id: VmId(id),
            memory: MEMORY,
            net: Some(net(&tap)),
            sharing: Sharing::Private,
            state: self.state.clone(),
            log_lines: 100,
            working_set: Vec::new(),
        };
        let vm = Vm::blank(tap);
        let files = [self.memory.as_fd(), vm.tap.fd()];
        event::command(&vm.weir, &VmCommand::Clone(Box::new(order)), &files).unwrap();
        match vm.event() {
            Some(VmEvent::Ready) => vm,
            other => panic!("{other:?}, {:?}", vm.reason()),
        }
    }
}

fn net(tap: &TapLink) -> NetSpec {
    let link = tap.link();
    NetSpec {
        mac: link.guest_mac,
        address: link.guest,
        prefix: link.prefix,
        gateway: link.host,
        gateway_mac: link.host_mac,
        mtu: MTU,
        limits: NetLimits::NONE,
    }
}

fn spec(tap: &TapLink, args: &[&str]) -> VmSpec {
    VmSpec {
        id: VmId(ID),
        pool: "test".into(),
        memory: MEMORY,
        vcpus: 1,
        net: Some(net(tap)),
        env: vec![("PORT".into(), PORT.to_string()), ("GREETING".into(), "good morning".into())],
        args: args.iter().map(ToString::to_string).collect(),
        log_lines: 100,
    }
}

fn sealed(bytes: &[u8]) -> File {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let mut file = File::from(memfd_create("image", flags).unwrap());
    file.write_all(bytes).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL).unwrap();
    file
}
