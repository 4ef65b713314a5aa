//! The client against a launcher and VMs that the tests play themselves; the VMs' processes are `cat`s.

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

#[tokio::test]
async fn vm_is_heard_to_its_last_word_and_then_killed_before_its_link_is_given_back() {
    let (_peer, vm, mut process, mut lent) = running().await;
    assert_eq!(process.address(), ([10, 0, 0, 1], 80).into());
    let said = [VmEvent::Log("hello".into()), VmEvent::Ready, VmEvent::Log("world".into())];
    for each in &said {
        vm.say(each.clone()).await;
        assert_eq!(event(&mut process).await, *each);
    }
    assert!(!lent.is_given_back());
    // The process does not end by itself: a last word alone proves nothing.
    vm.say(VmEvent::Exit(ExitReason::Exited(3))).await;
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Exited(3)));
    vm.killed().await;
    lent.given_back().await;
}

#[tokio::test]
async fn killed_vm_has_the_launchers_word_for_it() {
    let (peer, mut vm, mut process, lent) = running().await;
    vm.process.kill().unwrap();
    peer.exited("signal 9 (SIGKILL)").await;
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Died("signal 9 (SIGKILL)".into())));
    vm.killed().await;
    lent.given_back().await;
}

#[tokio::test]
async fn what_a_dead_vm_left_unread_is_heard() {
    let (_peer, mut vm, mut process, _lent) = running().await;
    vm.say(VmEvent::Log("last".into())).await;
    vm.say(VmEvent::Exit(ExitReason::Panicked("why".into()))).await;
    vm.process.kill().unwrap();
    vm.killed().await;
    assert_eq!(event(&mut process).await, VmEvent::Log("last".into()));
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Panicked("why".into())));
}

#[tokio::test]
async fn vm_that_talks_nonsense_or_hangs_up_is_killed() {
    let (_peer, vm, mut process, _lent) = running().await;
    vm.control.send(&vec![0xffu8; 40], &[]).await.unwrap();
    let VmEvent::Exit(ExitReason::Died(reason)) = event(&mut process).await else { panic!("not its end") };
    assert!(reason.starts_with("control socket: "), "{reason}");
    vm.killed().await;

    let (peer, Vm { control, process: child }, mut process, lent) = running().await;
    drop(control);
    peer.exited("signal 9").await;
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Died("signal 9".into())));
    Vm { control: peer.socket, process: child }.killed().await;
    lent.given_back().await;
}

#[tokio::test]
async fn stop_reaches_the_vm_and_a_dropped_handle_kills_it() {
    let (_peer, vm, process, lent) = running().await;
    process.stop();
    let (command, _) = within(vm.control.receive::<VmCommand>()).await.unwrap().unwrap();
    assert_eq!(command, VmCommand::Stop);
    drop(process);
    vm.killed().await;
    lent.given_back().await;
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

#[tokio::test]
async fn a_vm_that_cannot_be_held_to_its_limits_is_killed() {
    for add in [true, false] {
        let (connection, peer) = connect();
        let forking = forking(connection);
        let vm = peer.fork().await;
        let mut child = within(forking).await.unwrap().unwrap();
        child.group = Some(Group::around(Box::new(Broken { add }), &child.process, child.pid));
        let mut process = Process::new(([10, 0, 0, 1], 80).into(), child, StartKind::Cold, Box::new(()));
        process.limit(&crate::fake::pool("p"));
        vm.say(VmEvent::Ready).await;
        let reason = loop {
            if let VmEvent::Exit(reason) = event(&mut process).await {
                break reason.to_string();
            }
        };
        assert!(reason.contains("limits") && reason.contains("permission denied"), "{reason}");
        assert!(process.is_without_limits());
        vm.killed().await;
    }
}

#[tokio::test]
async fn a_spare_that_is_in_no_group_is_not_used() {
    let (connection, peer) = connect();
    let forking = forking(connection);
    let _vm = peer.fork().await;
    let mut child = within(forking).await.unwrap().unwrap();
    child.is_waiting().unwrap();
    let group = Group::around(Box::new(Broken { add: true }), &child.process, child.pid);
    within(group.failed()).await;
    child.group = Some(group);
    assert!(child.is_waiting().unwrap_err().contains("/cgroup/7/knob"));
}

#[tokio::test]
async fn a_child_that_nobody_waits_for_any_more_is_killed_when_it_comes_into_being() {
    let (connection, peer) = connect();
    let mut waiting = forking(connection);
    let (child, control) = peer.request().await;
    waiting.abort();
    assert!(within(&mut waiting).await.is_err());
    let process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    peer.forked(child, &process).await;
    Vm { control, process }.killed().await;
}

#[tokio::test(start_paused = true)]
async fn a_launcher_that_does_not_answer_is_killed() {
    let mut launcher = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&launcher), PidfdFlags::empty()).unwrap();
    let (connection, peer) = connect_to(pidfd);
    assert!(matches!(connection.fork().await, Err(StartError::LauncherDied)));
    // With its input closed it would end by itself.
    let _input = launcher.stdin.take();
    assert_eq!(launcher.wait().unwrap().signal(), Some(9));
    drop(peer);
}

#[tokio::test]
async fn a_failed_fork_says_why() {
    let (connection, peer) = connect();
    let waiting = forking(connection);
    let (child, _control) = peer.request().await;
    let reply = LauncherReply::Failed { child, error: "fork: resource temporarily unavailable".into() };
    peer.socket.send(&reply, &[]).await.unwrap();
    let error = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "launcher: fork: resource temporarily unavailable");
}

#[tokio::test]
async fn a_launcher_that_dies_fails_forks() {
    let (connection, peer) = connect();
    let waiting = forking(connection.clone());
    let _control = peer.request().await;
    drop(peer);
    assert_eq!(within(waiting).await.unwrap().unwrap_err().to_string(), "launcher died");
    assert_eq!(within(forking(connection)).await.unwrap().unwrap_err().to_string(), "launcher died");
}

#[tokio::test]
async fn a_spare_is_taken_at_once_and_a_dead_one_is_not() {
    let (connection, peer) = connect();
    let spares = Spares::new(connection, None);
    let refilling = spares.clone();
    let refill = tokio::spawn(async move { refilling.refill().await });
    // Two are kept in any case.
    let (first, second) = (peer.fork().await, peer.fork().await);
    // It could not make its VM.
    first.say(VmEvent::Exit(ExitReason::Host("create vm: no memory".into()))).await;
    let taken = loop {
        // The second one may still be on its way.
        let taken = tokio::time::timeout(Duration::from_millis(1), spares.take()).await;
        match taken {
            Ok(taken) => break taken.unwrap(),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(taken.spare);
    taken.child.control.send(&VmCommand::Stop, &[]).await.unwrap();
    let (command, _) = within(second.control.receive::<VmCommand>()).await.unwrap().unwrap();
    assert_eq!(command, VmCommand::Stop);
    refill.abort();
    first.killed().await;
}

#[tokio::test]
async fn dead_launcher_has_a_successor_even_if_that_takes_several_tries() {
    let (peers, mut spawned) = mpsc::unbounded_channel();
    let tries = AtomicUsize::new(0);
    let spawn = move || {
        if (1..3).contains(&tries.fetch_add(1, Ordering::Relaxed)) {
            return Err(SpawnError::Run(std::io::ErrorKind::OutOfMemory.into()));
        }
        let (socket, theirs) = channel::pair().unwrap();
        peers.send(theirs).unwrap();
        // Nobody is to be killed.
        let pidfd = File::open("/dev/null").unwrap().into();
        Ok(LauncherHandle { socket, pid: 1, pidfd })
    };
    let supervisor = Supervisor::start(Arc::new(spawn), None).unwrap();
    let first = supervisor.current().spares().await.unwrap();
    drop(spawned.recv().await.unwrap());
    let second = loop {
        let current = within(supervisor.current().spares()).await.unwrap();
        if !Arc::ptr_eq(&first, &current) {
            break current;
        }
        tokio::task::yield_now().await;
    };
    let peer = Peer { socket: Socket::new(spawned.recv().await.unwrap()).unwrap() };
    let taking = tokio::spawn(async move { second.take().await });
    // One for who waits, or one of the two spares; the last of them certainly is not asked for before the first.
    let vms = [peer.fork().await, peer.fork().await, peer.fork().await];
    let taken = within(taking).await.unwrap().unwrap();
    drop((supervisor, taken));
    for vm in vms {
        vm.let_go().await;
    }
    assert!(
        within(peer.socket.receive::<LauncherRequest>()).await.unwrap().is_none(),
        "the launcher is let go"
    );
}

#[tokio::test]
async fn first_launcher_that_cannot_be_spawned_is_an_error() {
    let spawn = || Err(SpawnError::Run(std::io::ErrorKind::NotFound.into()));
    assert_eq!(Supervisor::start(Arc::new(spawn), None).unwrap_err().to_string(), "run the launcher");
}

#[tokio::test]
async fn a_child_whose_pidfd_is_lost_fails_alone_and_is_let_go() {
    let (connection, peer) = connect();
    let waiting = forking(connection.clone());
    let (child, control) = peer.request().await;
    peer.socket.send(&LauncherReply::Forked { child, pid: 1 }, &[]).await.unwrap();
    let error = within(waiting).await.unwrap().expect_err("no process to watch");
    assert!(error.to_string().contains("pidfd"), "{error}");
    assert!(within(control.receive::<VmCommand>()).await.unwrap().is_none(), "it is to end");
    // The launcher is still believed.
    let again = forking(connection);
    let _vm = peer.fork().await;
    within(again).await.unwrap().unwrap();
}
