//! The client against a launcher and VMs that the tests play themselves; the VMs' processes are `cat`s.

mod connection;
mod process;
mod spares;

use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use weir_vmm::cgroup::{CgroupError, CpuLimits};
use weir_vmm::launcher::protocol::{ChildId, LauncherReply, LauncherRequest};
use weir_vmm::{ExitReason, VmCommand, VmEvent, channel};

use super::connection::Connection;
use super::group::{Confine, Group};
use super::process::Process;
use super::socket::Socket;
use super::spares::Spares;
use super::*;
use crate::launcher::StartKind;

const CHILD: ChildId = ChildId(0);

/// A launcher as the client sees it, with one child at most.
struct Peer {
    socket: Socket,
}

/// A VM in its process.
struct Vm {
    control: Socket,
    process: Child,
}

/// Whether what a VM borrowed was given back.
struct Lent(oneshot::Receiver<()>);

fn connect() -> (Arc<Connection>, Peer) {
    // Nobody is to be killed.
    let nobody = File::open("/dev/null").unwrap();
    connect_to(nobody.into())
}

fn connect_to(launcher: OwnedFd) -> (Arc<Connection>, Peer) {
    let (ours, theirs) = channel::pair().unwrap();
    let connection = Arc::new(Connection::new(ours, launcher).unwrap());
    let serving = connection.clone();
    tokio::spawn(async move { serving.serve().await });
    (connection, Peer { socket: Socket::new(theirs).unwrap() })
}

fn forking(connection: Arc<Connection>) -> JoinHandle<Result<super::child::Child, StartError>> {
    tokio::spawn(async move { connection.fork().await })
}

impl Lent {
    fn is_given_back(&mut self) -> bool {
        self.0.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    async fn given_back(self) {
        assert!(within(self.0).await.is_err(), "the sender was dropped");
    }
}

impl Peer {
    /// The child's end of the control socket that came with a request.
    async fn request(&self) -> (ChildId, Socket) {
        let (LauncherRequest::Fork(child), mut files) = self.socket.receive().await.unwrap().unwrap();
        assert_eq!(files.len(), 1);
        (child, Socket::new(files.pop().unwrap()).unwrap())
    }

    async fn fork(&self) -> Vm {
        let (child, control) = self.request().await;
        let process = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        self.forked(child, &process).await;
        Vm { control, process }
    }

    async fn forked(&self, child: ChildId, process: &Child) {
        let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::empty()).unwrap();
        let pid = Pid::from_child(process).as_raw_nonzero().get();
        self.socket.send(&LauncherReply::Forked { child, pid }, &[pidfd.as_fd()]).await.unwrap();
    }

    async fn exited(&self, status: &str) {
        let reply = LauncherReply::Exited { child: CHILD, status: status.into() };
        self.socket.send(&reply, &[]).await.unwrap();
    }
}

impl Vm {
    async fn say(&self, event: VmEvent) {
        self.control.send(&event, &[]).await.unwrap();
    }

    /// Until nobody holds the other end of its control socket any more, at which a VM's process ends.
    async fn let_go(&self) {
        while within(self.control.receive::<VmCommand>()).await.unwrap().is_some() {}
    }

    /// Until the process has been killed, by whomever.
    async fn killed(mut self) {
        // With its input closed it would end by itself.
        let _input = self.process.stdin.take();
        let status = within(tokio::task::spawn_blocking(move || self.process.wait().unwrap())).await.unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}

async fn running() -> (Peer, Vm, Process, Lent) {
    let (connection, peer) = connect();
    let forking = forking(connection);
    let vm = peer.fork().await;
    let child = within(forking).await.unwrap().unwrap();
    let (borrowed, lent) = oneshot::channel::<()>();
    let address = ([10, 0, 0, 1], 80).into();
    (peer, vm, Process::new(address, child, StartKind::Cold, Box::new(borrowed)), Lent(lent))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("takes 10 s")
}

async fn event(process: &mut Process) -> VmEvent {
    within(process.next_event()).await
}

/// A control group of a host that lets nobody in, or sets no limit.
#[derive(Debug)]
struct Broken {
    add: bool,
}

impl Broken {
    fn error<T>() -> Result<T, CgroupError> {
        let (file, text) = ("/cgroup/7/knob".into(), String::new());
        Err(CgroupError::Write { file, text, source: std::io::ErrorKind::PermissionDenied.into() })
    }
}

impl Confine for Broken {
    fn add(&self, _: i32) -> Result<(), CgroupError> {
        if self.add { Self::error() } else { Ok(()) }
    }

    fn set(&mut self, _: CpuLimits, _: u64) -> Result<(), CgroupError> {
        Self::error()
    }
}
