//! TCP for applications: listeners and streams.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::Poll;

use embedded_io_async::{Error, ErrorKind, ErrorType, Read, Write};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::RecvError;

use super::sockets::Sockets;

/// Accepts connections on one port. Dropped: the port is free, waiting connections are reset.
pub struct TcpListener {
    port: u16,
    sockets: Rc<RefCell<Sockets>>,
}

/// One connection. Dropped: what was written is still sent, then the connection is closed.
pub struct TcpStream {
    handle: SocketHandle,
    sockets: Rc<RefCell<Sockets>>,
}

/// The connection is gone: reset by the peer, or timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLost;

impl TcpListener {
    /// Listens on `port`; `None`: it is taken.
    pub(crate) fn bind(sockets: &Rc<RefCell<Sockets>>, port: u16) -> Option<Self> {
        sockets.borrow_mut().listen(port).then(|| Self { port, sockets: Rc::clone(sockets) })
    }

    /// The next connection.
    pub async fn accept(&self) -> TcpStream {
        poll_fn(|context| match self.sockets.borrow_mut().accept(self.port, context.waker()) {
            Some(handle) => Poll::Ready(TcpStream { handle, sockets: Rc::clone(&self.sockets) }),
            None => Poll::Pending,
        })
        .await
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.sockets.borrow_mut().unlisten(self.port);
    }
}

impl TcpStream {
    /// The peer's address, while the connection lasts.
    pub fn peer(&self) -> Option<SocketAddr> {
        let remote = self.sockets.borrow_mut().socket(self.handle).remote_endpoint()?;
        Some(SocketAddr::new(IpAddr::from(remote.addr), remote.port))
    }

    /// Resets the connection.
    pub fn abort(self) {
        self.sockets.borrow_mut().socket(self.handle).abort();
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.sockets.borrow_mut().finish(self.handle);
    }
}

impl ErrorType for TcpStream {
    type Error = ConnectionLost;
}

impl Read for TcpStream {
    /// Cancel-safe.
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ConnectionLost> {
        if buffer.is_empty() {
            return Ok(0);
        }
        poll_fn(|context| {
            let mut sockets = self.sockets.borrow_mut();
            let socket = sockets.socket(self.handle);
            match socket.recv_slice(buffer) {
                Ok(0) => {
                    socket.register_recv_waker(context.waker());
                    Poll::Pending
                }
                Ok(length) => Poll::Ready(Ok(length)),
                Err(RecvError::Finished) => Poll::Ready(Ok(0)),
                Err(RecvError::InvalidState) => Poll::Ready(Err(ConnectionLost)),
            }
        })
        .await
    }
}

impl Write for TcpStream {
    /// Cancel-safe. What is written leaves at the next PARK.
    async fn write(&mut self, buffer: &[u8]) -> Result<usize, ConnectionLost> {
        if buffer.is_empty() {
            return Ok(0);
        }
        poll_fn(|context| {
            let mut sockets = self.sockets.borrow_mut();
            let socket = sockets.socket(self.handle);
            match socket.send_slice(buffer) {
                Ok(0) => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                Ok(length) => Poll::Ready(Ok(length)),
                Err(_) => Poll::Ready(Err(ConnectionLost)),
            }
        })
        .await
    }

    /// Nothing to do: the stack sends what is written without being asked.
    async fn flush(&mut self) -> Result<(), ConnectionLost> {
        Ok(())
    }
}

impl fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection lost")
    }
}

impl core::error::Error for ConnectionLost {}

impl Error for ConnectionLost {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConnectionReset
    }
}
