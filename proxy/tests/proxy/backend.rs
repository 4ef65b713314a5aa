//! What runs in the stand-ins for VMs.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::client::{find, header};

/// A server on loopback; it ends when dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

/// One connection to it.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Backend {
    /// Runs `handle` on every connection.
    pub(crate) async fn start<F: Future<Output = ()> + Send + 'static>(
        handle: impl Fn(Connection) -> F + Send + 'static,
    ) -> Self {
        // Small buffers, as a guest has.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        socket.set_send_buffer_size(32 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                tokio::spawn(handle(Connection { stream, buffer: Vec::new() }));
            }
        });
        Self { address, connections, accepting }
    }

    /// Answers every request with 200 and what it got: the request's head and body, or `name` for `/name`.
    pub(crate) async fn echo(name: &'static str) -> Self {
        Self::start(move |mut connection| async move {
            while let Some((head, body)) = connection.request().await {
                let echo = match head.starts_with("GET /name ") {
                    true => name.as_bytes().to_vec(),
                    false => [head.as_bytes(), &body].concat(),
                };
                if !connection.answer(&echo).await {
                    return;
                }
            }
        })
        .await
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Connection {
    /// The next request's head, up to the empty line; `None` at the connection's end.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).ok();
            }
            self.more().await?;
        }
    }

    /// The next request, with a body if it has a length.
    pub(crate) async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head().await?;
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            self.more().await?;
        }
        Some((head, self.buffer.drain(..length).collect()))
    }

    /// Whatever is there of a body.
    pub(crate) async fn some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(text.as_ref()).await.is_ok()
    }

    pub(crate) async fn answer(&mut self, body: &[u8]) -> bool {
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())).await
            && self.send(body).await
    }

    async fn more(&mut self) -> Option<()> {
        let mut chunk = vec![0; 64 * 1024];
        let read = self.stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Some(())
    }
}
