//! The launcher's event loop: requests in, children out.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::Setup;
use super::child::{self, Inherited};
use super::confine::Confined;
use super::protocol::{ChildId, LauncherReply, LauncherRequest};
use super::slots::Slots;
use super::status::describe;
use super::sys::{Fork, fork};
use crate::channel::{self, ChannelError};
use crate::jail::{JailSpec, identity};

/// Events taken from the kernel at a time.
const EVENTS: usize = 64;
/// How long children that were killed may take to go. Tearing a VM down takes milliseconds.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// The request socket among the events; children have their pid, which is never zero.
const SOCKET: u64 = 0;

/// Why the launcher ends other than by weir's end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("watch a file descriptor")]
    Watch(#[source] io::Error),
    #[error("wait for events")]
    Wait(#[source] io::Error),
    #[error("{0} children outlive their kill")]
    Survivors(usize),
}

struct Child {
    id: ChildId,
    pidfd: OwnedFd,
    slot: u32,
}

/// The launcher at work.
pub(super) struct Server {
    socket: OwnedFd,
    setup: Setup,
    confined: Confined,
    events: OwnedFd,
    children: HashMap<u64, Child>,
    slots: Slots,
}

impl Server {
    pub(super) fn new(socket: OwnedFd, setup: Setup, confined: Confined) -> Result<Self, ServeError> {
        let events =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| ServeError::Watch(error.into()))?;
        watch(&events, &socket, SOCKET).map_err(ServeError::Watch)?;
        let slots = Slots::new(identity::BLOCK);
        Ok(Self { socket, setup, confined, events, children: HashMap::new(), slots })
    }

    /// Serves until weir closes its end of the socket; then ends every child.
    pub(super) fn run(mut self) -> Result<(), ServeError> {
        loop {
            for event in self.wait(None)? {
                let open = if event == SOCKET { self.request() } else { self.reap(event) };
                if !open {
                    return self.shut_down();
                }
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> Result<Vec<u64>, ServeError> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = Vec::with_capacity(EVENTS);
        retry_on_intr(|| {
            epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut events), timeout.as_ref())
        })
        .map_err(|error| ServeError::Wait(error.into()))?;
        Ok(events.into_iter().map(|event: epoll::Event| event.data.u64()).collect())
    }

    /// Takes one request. False: weir is gone.
    fn request(&mut self) -> bool {
        match channel::recv(self.socket.as_fd()) {
            Ok(Some((LauncherRequest::Fork(child), files))) => self.start(child, files),
            Ok(None) => false,
            Err(error) if error.is_message() || error.would_block() => {
                eprintln!("launcher: ignored a request: {}", crate::message(&error));
                true
            }
            Err(_) => false,
        }
    }

    fn start(&mut self, child: ChildId, files: Vec<OwnedFd>) -> bool {
        match self.fork(child, files) {
            Ok(pid) => {
                let pidfd = self.children.get(&key(pid)).map(|child| child.pidfd.as_fd());
                let files: Vec<_> = pidfd.into_iter().collect();
                self.reply(&LauncherReply::Forked { child, pid }, &files)
            }
            Err(error) => self.reply(&LauncherReply::Failed { child, error }, &[]),
        }
    }

    /// Makes the child and keeps its pidfd; on failure nothing is left of it.
    fn fork(&mut self, id: ChildId, files: Vec<OwnedFd>) -> Result<i32, String> {
        if self.children.values().any(|child| child.id == id) {
            return Err(format!("child {id} is already running"));
        }
        let inherited = self.inheritance(files)?;
        let slot = self.slots.take().ok_or("all vm users are taken")?;
        let forked = match fork() {
            Ok(Fork::Child) => {
                let jail = JailSpec {
                    null: self.confined.null.as_fd(),
                    keep: &[],
                    identity: self.confined.users.identity(slot),
                    set_groups: self.confined.users.set_groups,
                    launcher: self.confined.own.as_fd(),
                    filter: self.setup.filter.as_ref(),
                };
                child::run(inherited, jail, self.setup.body)
            }
            Ok(Fork::Parent { pid, pidfd }) => match watch(&self.events, &pidfd, key(pid)) {
                Ok(()) => Ok((pid, pidfd)),
                Err(error) => {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                    Err(format!("watch process {pid}: {error}"))
                }
            },
            Err(error) => Err(format!("fork vm process: {error}")),
        };
        match forked {
            Ok((pid, pidfd)) => {
                self.children.insert(key(pid), Child { id, pidfd, slot });
                Ok(pid)
            }
            Err(error) => {
                self.slots.give_back(slot);
                Err(error)
            }
        }
    }

    fn inheritance(&self, files: Vec<OwnedFd>) -> Result<Inherited, String> {
        let kvm = self.setup.kvm.as_ref().map_err(Clone::clone)?;
        let kvm = kvm.try_clone().map_err(|error| format!("duplicate /dev/kvm: {error}"))?;
        let count = files.len();
        match <[OwnedFd; 1]>::try_from(files) {
            Ok([control]) => Ok(Inherited { kvm, control }),
            Err(_) => Err(format!("{count} file descriptors instead of 1")),
        }
    }

    /// Takes the status of a child that has ended. False: weir is gone.
    fn reap(&mut self, key: u64) -> bool {
        let Some(child) = self.children.get(&key) else { return true };
        let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let status = match ended {
            Ok(Some(status)) => describe(status.exit_status(), status.terminating_signal()),
            Ok(None) | Err(Errno::INTR) => return true,
            Err(error) => format!("unknown ({error})"),
        };
        let Some(Child { id, pidfd, slot }) = self.children.remove(&key) else { return true };
        // All of it is gone before weir hears of it.
        drop(pidfd);
        self.slots.give_back(slot);
        self.reply(&LauncherReply::Exited { child: id, status }, &[])
    }

    /// False: weir is gone.
    fn reply(&self, reply: &LauncherReply, files: &[std::os::fd::BorrowedFd<'_>]) -> bool {
        match channel::send(self.socket.as_fd(), reply, files) {
            Ok(()) => true,
            Err(ChannelError::Send(_)) => false,
            Err(error) => {
                eprintln!("launcher: lost a reply: {}", crate::message(&error));
                true
            }
        }
    }

    /// Kills every child and waits until they are gone.
    fn shut_down(mut self) -> Result<(), ServeError> {
        for child in self.children.values() {
            // It may be gone already; then there is nothing to do.
            let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
        }
        epoll::delete(&self.events, &self.socket).map_err(|error| ServeError::Watch(error.into()))?;
        let deadline = Instant::now() + SHUTDOWN;
        while !self.children.is_empty() {
            let ended = self.wait(Some(deadline.saturating_duration_since(Instant::now())))?;
            if ended.is_empty() {
                return Err(ServeError::Survivors(self.children.len()));
            }
            for key in ended {
                self.reap(key);
            }
        }
        Ok(())
    }
}

fn key(pid: i32) -> u64 {
    pid.unsigned_abs().into()
}

fn watch(events: &OwnedFd, file: &OwnedFd, key: u64) -> io::Result<()> {
    Ok(epoll::add(events, file, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
}
