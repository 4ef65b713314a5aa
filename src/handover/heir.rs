//! The later weir's side.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use weir_proxy::Handed;
use weir_vmm::channel::{self, ChannelError};

use super::{FromEarlier, FromLater, VARIABLE, VERSION, role};

/// What a weir before this one has left to it.
#[derive(Debug)]
pub(crate) struct Inheritance {
    channel: OwnedFd,
    handed: Vec<Handed>,
}

/// Why nothing can be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    /// Standard input is not to be had.
    #[error("take over standard input")]
    Input(#[source] io::Error),
    /// What comes over it makes no sense.
    #[error("hear of the weir before")]
    Hear(#[source] ChannelError),
    /// It does not listen.
    #[error("answer the weir before")]
    Answer(#[source] ChannelError),
    /// A socket came without its descriptor: there are none left.
    #[error("no descriptor came with the socket of {0}")]
    NoSocket(String),
    /// It says something else than is its turn.
    #[error("the weir before says {0} out of turn")]
    OutOfTurn(&'static str),
    /// It has ended, or does not wait any longer.
    #[error("the weir before has given up or ended")]
    Gone,
}

impl Inheritance {
    /// What there is for this process; `None`: nothing, it was started by itself. To be called once, before anything else
    /// reads standard input, which is empty afterwards.
    ///
    /// # Errors
    /// If there is something and it cannot be had.
    pub(crate) fn take() -> Result<Option<Self>, InheritError> {
        if std::env::var_os(VARIABLE).is_none_or(|version| version != VERSION) {
            return Ok(None);
        }
        let channel = io::stdin().as_fd().try_clone_to_owned().map_err(InheritError::Input)?;
        // Else whatever this process starts would hold the socket open.
        let empty = File::open("/dev/null").map_err(InheritError::Input)?;
        rustix::stdio::dup2_stdin(&empty).map_err(|error| InheritError::Input(error.into()))?;
        Self::receive(channel).map(Some)
    }

    /// Takes all sockets from `channel`.
    pub(super) fn receive(channel: OwnedFd) -> Result<Self, InheritError> {
        let mut handed = Vec::new();
        loop {
            match hear(&channel)? {
                (FromEarlier::Socket { admin, address }, files) => {
                    let [socket] = <[OwnedFd; 1]>::try_from(files)
                        .map_err(|_| InheritError::NoSocket(address.clone()))?;
                    handed.push(Handed { role: role(admin), address, socket });
                }
                (FromEarlier::Complete, _) => return Ok(Self { channel, handed }),
                (FromEarlier::Accept, _) => return Err(InheritError::OutOfTurn("accept")),
            }
        }
    }

    /// The sockets, the first time.
    pub(crate) fn sockets(&mut self) -> Vec<Handed> {
        std::mem::take(&mut self.handed)
    }

    /// Everything is there but the accepting: waits until it may begin. Blocks.
    ///
    /// # Errors
    /// If it may not.
    pub(crate) fn prepared(&self) -> Result<(), InheritError> {
        self.say(&FromLater::Prepared)?;
        match hear(&self.channel)? {
            (FromEarlier::Accept, _) => Ok(()),
            (FromEarlier::Socket { .. }, _) => Err(InheritError::OutOfTurn("socket")),
            (FromEarlier::Complete, _) => Err(InheritError::OutOfTurn("complete")),
        }
    }

    /// Connections are accepted: the weir before may go.
    ///
    /// # Errors
    /// If it is gone already.
    pub(crate) fn serving(self) -> Result<(), InheritError> {
        self.say(&FromLater::Serving)
    }

    fn say(&self, what: &FromLater) -> Result<(), InheritError> {
        channel::send(self.channel.as_fd(), what, &[]).map_err(InheritError::Answer)
    }
}

fn hear(channel: &OwnedFd) -> Result<(FromEarlier, Vec<OwnedFd>), InheritError> {
    channel::recv(channel.as_fd()).map_err(InheritError::Hear)?.ok_or(InheritError::Gone)
}
