//! The host's network, from within weir's own.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;

use futures::future::{BoxFuture, FutureExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use weir_net::host::HostThread;

use crate::network::Network;

/// Names that are looked up at once; others wait for their turn. Each takes a thread, and may take many seconds.
const LOOKUPS: usize = 8;

/// The network of a thread that has stayed in the host's namespace. It makes the sockets; who then connects and uses them
/// may be anywhere.
#[derive(Debug)]
pub struct HostNetwork {
    thread: Arc<HostThread>,
    lookups: Arc<Semaphore>,
}

impl HostNetwork {
    /// The network that `thread` is in.
    pub fn new(thread: impl Into<Arc<HostThread>>) -> Self {
        Self { thread: thread.into(), lookups: Arc::new(Semaphore::new(LOOKUPS)) }
    }
}

impl Network for HostNetwork {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        let (reply, made) = oneshot::channel();
        self.thread.run(move || {
            // Whoever waits no more needs no socket.
            drop(reply.send(socket_for(address)));
        });
        async move { made.await.map_err(|_| no_answer())??.connect(address).await }.boxed()
    }

    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (thread, lookups, name) = (self.thread.clone(), self.lookups.clone(), name.to_owned());
        async move {
            // A lookup cannot be given up, so its turn ends when it does, whoever still waits.
            let turn = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let (reply, found) = oneshot::channel();
            let look_up = move || {
                let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
                drop(turn);
                // Whoever waits no more needs no answer.
                let _ = reply.send(addresses);
            };
            // In a thread of its own, which is where the one is that starts it.
            thread.run(move || {
                // Without a thread there is no answer, which is one.
                drop(thread::Builder::new().name("resolve".to_owned()).spawn(look_up));
            });
            found.await.map_err(|_| no_answer())?
        }
        .boxed()
    }
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn no_answer() -> io::Error {
    io::Error::other("the host's network does not answer")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_reached_by_way_of_the_thread() {
        let network = HostNetwork::new(HostThread::start().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = network.connect(address).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, stream.local_addr().unwrap());
        drop(listener);
        assert_eq!(network.connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        // As many as there are turns, and one more.
        for _ in 0..=LOOKUPS {
            let found = network.resolve("localhost", 80).await.unwrap();
            assert!(!found.is_empty() && found.iter().all(|one| one.ip().is_loopback() && one.port() == 80));
        }
        network.resolve("no name", 80).await.unwrap_err();
    }
}
