//! A message socket in tokio's reactor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use weir_vmm::channel::{self, ChannelError};

/// One end of a seqpacket connection; see [`channel`].
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Makes `end` non-blocking. Inside a tokio runtime.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&end, fcntl_getfl(&end)? | OFlags::NONBLOCK)?;
        Ok(Self(watch(end)?))
    }

    /// Sends one message. Cancel-safe: it was sent whole or not at all.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        loop {
            let mut ready = self.0.writable().await.map_err(ChannelError::Send)?;
            match channel::send(self.0.as_fd(), message, files) {
                Err(error) if error.would_block() => ready.clear_ready(),
                sent => return sent,
            }
        }
    }

    /// Sends one message if there is room for it.
    pub(super) fn send_now(&self, message: &impl Serialize) -> Result<(), ChannelError> {
        channel::send(self.0.as_fd(), message, &[])
    }

    /// Receives one message; `None`: the peer is gone. Cancel-safe.
    pub(super) async fn receive<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        loop {
            let mut ready = self.0.readable().await.map_err(ChannelError::Receive)?;
            match channel::recv(self.0.as_fd()) {
                Err(error) if error.would_block() => ready.clear_ready(),
                received => return received,
            }
        }
    }

    /// Receives one message if it is there already.
    pub(super) fn receive_now<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
        channel::recv(self.0.as_fd())
    }
}

/// Puts `fd` into the reactor. Inside a tokio runtime.
#[expect(deprecated, reason = "unsound for types that may change their descriptor; an OwnedFd cannot")]
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
