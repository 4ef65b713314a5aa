//! One VM's process.

use super::*;

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
