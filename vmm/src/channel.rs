//! One postcard-encoded message per datagram of a Unix seqpacket socket, with file descriptors.
//!
//! Both of weir's private protocols travel this way: weir and its launcher, weir and a VM's process. Seqpacket keeps
//! message boundaries and reports the peer's death as end of file, which a datagram socket would not. The functions
//! neither block by themselves nor know a runtime: on a non-blocking socket they report
//! [`ChannelError::would_block`], so a thread may sleep in `poll` and an async client in its reactor.
//!
//! A peer is not trusted: what does not fit, does not decode or brings too many descriptors is an error of that one
//! message, and descriptors that came with it are closed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

/// Longest message, bytes.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Most file descriptors with one message.
pub const FILES_MAX: usize = 8;

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The socket refused; see [`Self::would_block`].
    #[error("send message")]
    Send(#[source] std::io::Error),
    /// The socket refused; see [`Self::would_block`].
    #[error("receive message")]
    Receive(#[source] std::io::Error),
    /// A value that postcard cannot express.
    #[error("encode message")]
    Encode(#[source] postcard::Error),
    /// The peer sent something else than the expected type.
    #[error("decode message")]
    Decode(#[source] postcard::Error),
    /// The peer sent more than its message.
    #[error("message has {0} bytes too many")]
    Trailing(usize),
    /// Longer than [`MESSAGE_MAX`].
    #[error("message is longer than {MESSAGE_MAX} bytes")]
    TooLong,
    /// More than [`FILES_MAX`] file descriptors, or no room for them in this process.
    #[error("message has more file descriptors than fit")]
    TooManyFiles,
}

impl ChannelError {
    /// True if the socket is non-blocking and would have blocked: wait until it is ready and try again.
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Send(error) | Self::Receive(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// True if the socket itself still works, so that only this one message is lost.
    pub fn is_message(&self) -> bool {
        !matches!(self, Self::Send(_) | Self::Receive(_))
    }
}

/// Two connected ends, both blocking and close-on-exec.
///
/// # Errors
/// The process or the system has no more file descriptors.
pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends `message` with duplicates of `files`. Never raises SIGPIPE: a peer that is gone is an error.
///
/// # Errors
/// See [`ChannelError`]; nothing was sent.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let bytes = postcard::to_stdvec(message).map_err(ChannelError::Encode)?;
    if bytes.len() > MESSAGE_MAX {
        return Err(ChannelError::TooLong);
    }
    if files.len() > FILES_MAX {
        return Err(ChannelError::TooManyFiles);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(ChannelError::TooManyFiles);
    }
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))
        .map(|_| ())
        .map_err(|error| ChannelError::Send(error.into()))
}

/// Receives one message and its file descriptors, which are close-on-exec. `None`: the peer closed its end.
///
/// A receiver that is out of descriptors gets the message with none at all, never with some: the sender did nothing wrong,
/// and every receiver has to count them anyway.
///
/// # Errors
/// See [`ChannelError`]. Unless [`ChannelError::would_block`], one message was consumed or the socket is broken.
pub fn recv<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || {
        retry_on_intr(|| {
            recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })
    };
    let received = match receive() {
        // With unread messages of ours in its queue, a dying peer resets the connection. The kernel says so once, before
        // it hands out what the peer had sent until then, which may be its last word.
        Err(Errno::CONNRESET) => match receive() {
            Err(Errno::CONNRESET) => return Ok(None),
            other => other,
        },
        other => other,
    };
    let received = received.map_err(|error| ChannelError::Receive(error.into()))?;
    // Taken out first: whatever is wrong with the message, its descriptors are then closed.
    let mut files = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            files.extend(rights);
        }
    }
    // The buffer's alignment leaves room for some more descriptors than were asked for.
    let decoded = if received.flags.contains(ReturnFlags::TRUNC) {
        Err(ChannelError::TooLong)
    } else if files.len() > FILES_MAX
        || (received.flags.contains(ReturnFlags::CTRUNC) && files.len() == FILES_MAX)
    {
        Err(ChannelError::TooManyFiles)
    } else {
        if received.flags.contains(ReturnFlags::CTRUNC) {
            files.clear();
        }
        decode(&bytes[..received.bytes])
    };
    // A launcher's memory is copied into the processes of other tenants: leave nothing of this one.
    bytes[..received.bytes].zeroize();
    Ok(decoded?.map(|message| (message, files)))
}

/// `None`: nothing, which no message is.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, ChannelError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    match postcard::take_from_bytes(bytes).map_err(ChannelError::Decode)? {
        (message, []) => Ok(Some(message)),
        (_, rest) => Err(ChannelError::Trailing(rest.len())),
    }
}

#[cfg(test)]
mod tests;
