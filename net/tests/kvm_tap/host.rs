//! What stays in the host's network namespace.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use weir_net::host::HostThread;
use weir_net::namespace::{self, NamespaceError};

/// A socket that the host's thread makes reaches the host's loopback; one that weir makes itself does not.
pub(crate) fn only_the_hosts_thread_reaches_the_host() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = server.local_addr().expect("its address");
    namespace::become_user_root().expect("root");
    let host = HostThread::start().expect("a thread");
    let error = namespace::enter_private().expect_err("a thread that is not said to stay");
    assert!(matches!(error, NamespaceError::Threaded { threads: 2, expected: 1 }), "{error:?}");
    namespace::enter_private_beside(&[&host]).expect("a private namespace");

    let (connected, socket) = mpsc::channel();
    host.run(move || connected.send(TcpStream::connect(address)).expect("the test waits"));
    let socket = socket.recv().expect("an answer").expect("a connection");
    let (accepted, peer) = server.accept().expect("the same connection");
    assert_eq!(socket.local_addr().expect("it has one"), peer);
    assert_eq!(accepted.peer_addr().expect("it has one"), peer);
    TcpStream::connect(address).expect_err("nobody listens in the private namespace");
    // Threads are where the one that starts them is.
    let (connected, late) = mpsc::channel();
    host.run(move || {
        let connect = move || connected.send(TcpStream::connect(address)).expect("the test waits");
        std::thread::spawn(connect);
    });
    late.recv().expect("an answer").expect("a connection");
}
