//! The client against a launcher and VMs that the tests play themselves; the VMs' processes are `cat`s.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use weir_vmm::launcher::protocol::{LauncherReply, LauncherRequest};
use weir_vmm::{ExitReason, VmCommand, VmEvent, VmId, channel};

use super::connection::Connection;
use super::process::Process;
use super::socket::Socket;
use super::*;

const ID: VmId = VmId(7);

/// A launcher as the client sees it, with one VM at most.
struct Peer {
    socket: Socket,
}

/// A VM in its process.
struct Vm {
    control: Socket,
    process: Child,
}

/// A start that was asked for, and whether what it borrowed was given back.
struct Ordered {
    start: JoinHandle<Result<Process, StartError>>,
    given_back: oneshot::Receiver<()>,
}

fn connect() -> (Arc<Connection>, Peer) {
    let (ours, theirs) = channel::pair().unwrap();
    let connection = Arc::new(Connection::new(ours).unwrap());
    let serving = connection.clone();
    tokio::spawn(async move { serving.serve().await });
    (connection, Peer { socket: Socket::new(theirs).unwrap() })
}

fn spec() -> VmSpec {
    VmSpec { id: ID, pool: "p".into(), memory: 1 << 24, vcpus: 1, net: None, env: vec![], args: vec![] }
}

fn order(connection: Arc<Connection>) -> Ordered {
    let (borrowed, given_back) = oneshot::channel::<()>();
    let start = tokio::spawn(async move {
        let image = seal("image", b"image").unwrap();
        let address = ([10, 0, 0, 1], 80).into();
        connection.start(spec(), address, image.as_fd(), None, Box::new(borrowed)).await
    });
    Ordered { start, given_back }
}

impl Ordered {
    fn is_given_back(&mut self) -> bool {
        self.given_back.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    async fn given_back(self) {
        assert!(within(self.given_back).await.is_err(), "the sender was dropped");
    }
}

impl Peer {
    /// The VM's end of the control socket that came with a request.
    async fn request(&self) -> Socket {
        let (request, mut files) = self.socket.receive::<LauncherRequest>().await.unwrap().unwrap();
        assert_eq!((request, files.len()), (LauncherRequest::Start(Box::new(spec())), 2));
        Socket::new(files.pop().unwrap()).unwrap()
    }

    async fn start(&self) -> Vm {
        let control = self.request().await;
        let process = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&process), PidfdFlags::empty()).unwrap();
        let pid = Pid::from_child(&process).as_raw_nonzero().get();
        self.socket.send(&LauncherReply::Started { id: ID, pid }, &[pidfd.as_fd()]).await.unwrap();
        Vm { control, process }
    }

    async fn exited(&self, status: &str) {
        let reply = LauncherReply::Exited { id: ID, status: status.into() };
        self.socket.send(&reply, &[]).await.unwrap();
    }
}

impl Vm {
    async fn say(&self, event: VmEvent) {
        self.control.send(&event, &[]).await.unwrap();
    }

    /// Until the process has been killed, by whomever.
    async fn killed(mut self) {
        let status = within(tokio::task::spawn_blocking(move || self.process.wait().unwrap())).await.unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}

async fn running() -> (Peer, Vm, Process, Ordered) {
    let (connection, peer) = connect();
    let mut ordered = order(connection);
    let vm = peer.start().await;
    let process = within(&mut ordered.start).await.unwrap().unwrap();
    (peer, vm, process, ordered)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("takes 10 s")
}

async fn event(process: &mut Process) -> VmEvent {
    within(process.next_event()).await
}

#[tokio::test]
async fn vm_is_heard_to_its_last_word_and_then_killed_before_its_link_is_given_back() {
    let (_peer, vm, mut process, mut ordered) = running().await;
    assert_eq!(process.address(), ([10, 0, 0, 1], 80).into());
    let said = [VmEvent::Log("hello".into()), VmEvent::Ready, VmEvent::Log("world".into())];
    for each in &said {
        vm.say(each.clone()).await;
        assert_eq!(event(&mut process).await, *each);
    }
    assert!(!ordered.is_given_back());
    // The process does not end by itself: a last word alone proves nothing.
    vm.say(VmEvent::Exit(ExitReason::Exited(3))).await;
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Exited(3)));
    vm.killed().await;
    ordered.given_back().await;
}

#[tokio::test]
async fn killed_vm_has_the_launchers_word_for_it() {
    let (peer, mut vm, mut process, ordered) = running().await;
    vm.process.kill().unwrap();
    peer.exited("signal 9 (SIGKILL)").await;
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Died("signal 9 (SIGKILL)".into())));
    vm.killed().await;
    ordered.given_back().await;
}

#[tokio::test]
async fn what_a_dead_vm_left_unread_is_heard() {
    let (_peer, mut vm, mut process, _ordered) = running().await;
    vm.say(VmEvent::Log("last".into())).await;
    vm.say(VmEvent::Exit(ExitReason::Panicked("why".into()))).await;
    vm.process.kill().unwrap();
    vm.killed().await;
    assert_eq!(event(&mut process).await, VmEvent::Log("last".into()));
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Panicked("why".into())));
}

#[tokio::test]
async fn vm_that_talks_nonsense_or_hangs_up_is_killed() {
    let (_peer, vm, mut process, _ordered) = running().await;
    vm.control.send(&vec![0xffu8; 40], &[]).await.unwrap();
    let VmEvent::Exit(ExitReason::Died(reason)) = event(&mut process).await else { panic!("not its end") };
    assert!(reason.starts_with("control socket: "), "{reason}");
    vm.killed().await;

    let (peer, Vm { control, process: child }, mut process, ordered) = running().await;
    drop(control);
    peer.exited("signal 9").await;
    assert_eq!(event(&mut process).await, VmEvent::Exit(ExitReason::Died("signal 9".into())));
    Vm { control: peer.socket, process: child }.killed().await;
    ordered.given_back().await;
}

#[tokio::test]
async fn stop_reaches_the_vm_and_a_dropped_handle_kills_it() {
    let (_peer, vm, process, ordered) = running().await;
    process.stop();
    let (command, _) = within(vm.control.receive::<VmCommand>()).await.unwrap().unwrap();
    assert_eq!(command, VmCommand::Stop);
    drop(process);
    vm.killed().await;
    ordered.given_back().await;
}

#[tokio::test]
async fn start_that_was_given_up_is_killed_when_it_comes_into_being() {
    let (connection, peer) = connect();
    let mut ordered = order(connection);
    let control = peer.request().await;
    ordered.start.abort();
    assert!(within(&mut ordered.start).await.is_err());
    assert!(!ordered.is_given_back(), "the process may come yet");
    let process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&process), PidfdFlags::empty()).unwrap();
    peer.socket.send(&LauncherReply::Started { id: ID, pid: 1 }, &[pidfd.as_fd()]).await.unwrap();
    Vm { control, process }.killed().await;
    ordered.given_back().await;
}

#[tokio::test]
async fn refused_start_says_why_and_gives_back() {
    let (connection, peer) = connect();
    let mut ordered = order(connection);
    let _control = peer.request().await;
    let reply = LauncherReply::Failed { id: ID, error: "open /dev/kvm: no such file".into() };
    peer.socket.send(&reply, &[]).await.unwrap();
    let error = within(&mut ordered.start).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "launcher: open /dev/kvm: no such file");
    ordered.given_back().await;
}

#[tokio::test]
async fn launcher_that_dies_fails_starts_but_keeps_their_links_until_the_process_is_gone() {
    let (connection, peer) = connect();
    let mut ordered = order(connection.clone());
    let control = peer.request().await;
    drop(peer);
    let error = within(&mut ordered.start).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "launcher died");
    assert!(!ordered.is_given_back(), "somebody holds the control socket");
    drop(control);
    ordered.given_back().await;

    let mut late = order(connection);
    assert_eq!(within(&mut late.start).await.unwrap().unwrap_err().to_string(), "launcher died");
    late.given_back().await;
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
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        Ok(LauncherHandle { socket, pid: 1, pidfd })
    };
    let supervisor = Supervisor::start(Arc::new(spawn)).unwrap();
    let first = supervisor.current().connection().await.unwrap();
    drop(spawned.recv().await.unwrap());
    within(first.serve()).await;
    let second = loop {
        let current = within(supervisor.current().connection()).await.unwrap();
        if !Arc::ptr_eq(&first, &current) {
            break current;
        }
        tokio::task::yield_now().await;
    };
    let peer = Peer { socket: Socket::new(spawned.recv().await.unwrap()).unwrap() };
    let mut ordered = order(second);
    let vm = peer.start().await;
    let process = within(&mut ordered.start).await.unwrap().unwrap();
    drop((supervisor, process));
    vm.killed().await;
    assert!(
        within(peer.socket.receive::<LauncherRequest>()).await.unwrap().is_none(),
        "the launcher is let go"
    );
}

#[tokio::test]
async fn first_launcher_that_cannot_be_spawned_is_an_error() {
    let spawn = || Err(SpawnError::Run(std::io::ErrorKind::NotFound.into()));
    assert_eq!(Supervisor::start(Arc::new(spawn)).unwrap_err().to_string(), "run the launcher");
}

#[tokio::test]
async fn a_start_whose_pidfd_is_lost_fails_alone_and_keeps_its_link_until_it_is_reaped() {
    let (connection, peer) = connect();
    let mut ordered = order(connection.clone());
    let control = peer.request().await;
    peer.socket.send(&LauncherReply::Started { id: ID, pid: 1 }, &[]).await.unwrap();
    let error = within(&mut ordered.start).await.unwrap().expect_err("no process to watch");
    assert!(error.to_string().contains("pidfd"), "{error}");
    let (command, _) = within(control.receive::<VmCommand>()).await.unwrap().unwrap();
    assert_eq!(command, VmCommand::Stop);
    drop(control);
    assert!(!ordered.is_given_back(), "the process may still have its link");
    peer.exited("exit code 0").await;
    ordered.given_back().await;
    // The launcher is still believed.
    let again = order(connection);
    drop(peer.request().await);
    drop(again);
}
