//! Children that are there beforehand, and launchers one after the other.

use super::*;

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
