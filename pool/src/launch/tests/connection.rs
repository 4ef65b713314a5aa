//! One launcher.

use super::*;

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
