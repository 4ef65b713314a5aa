//! A client's end, noticed without reading from it.
//!
//! A body that waits for its VM stays in the client's socket, so that flow control holds the client up and not weir's
//! memory. Reading would find the connection's end only behind it. The kernel tells of the end apart from what is
//! unread (EPOLLRDHUP), but pingora owns the socket and lends out neither it nor its readiness. So it is watched
//! through a second descriptor, which lives as long as the wait.

use std::io;
use std::net;
use std::os::fd::RawFd;

use pingora::protocols::http::ServerSession;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Resolves when `session`'s client has closed or reset its connection; never, if that cannot be found out.
pub(crate) fn hangup(session: &ServerSession) -> impl Future<Output = ()> + Send + use<> {
    let watched = session.stream().map(|stream| watch(stream.id()));
    async move {
        match watched {
            Some(Ok(socket)) if closed(&socket).await.is_ok() => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "cannot watch a client that waits");
                std::future::pending().await
            }
            _ => std::future::pending().await,
        }
    }
}

fn watch(socket: RawFd) -> io::Result<TcpStream> {
    // `dup` wants a borrowed descriptor, which pingora does not give; this takes its number.
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let second = pidfd_getfd(&this_process, socket, PidfdGetfdFlags::empty())?;
    // It shares the first one's being non-blocking.
    TcpStream::from_std(net::TcpStream::from(second))
}

async fn closed(socket: &TcpStream) -> io::Result<()> {
    // Of what is reported of a stream, this waits for the end only: unread bytes do not satisfy it.
    socket.ready(Interest::PRIORITY).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn unread_bytes_are_no_end_and_hide_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b"unread").await.unwrap();
        server.readable().await.unwrap();
        let watched = watch(server.as_raw_fd()).unwrap();
        watched.readable().await.unwrap();
        let waiting = tokio::spawn(async move { closed(&watched).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        client.shutdown().await.unwrap();
        waiting.await.unwrap().unwrap();
        assert_eq!(server.try_read(&mut [0; 16]).unwrap(), 6, "it was not read");
    }
}
