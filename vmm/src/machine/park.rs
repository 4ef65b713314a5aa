//! A guest that waits: its queues are served, and weir is heard, until there is something for it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::interrupt::{self, Heard};
use super::run::Machine;
use crate::event::ExitReason;
use crate::virtio::{Progress, Transport};

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slept {
    /// A device, the time, or nothing.
    Woken,
    /// The machine is where it began, its guest not in a PARK any more.
    Reset,
}

impl Machine {
    /// Serves the queues until there is something for the guest or `wait` is over.
    pub(super) fn park(&mut self, wait: Option<Duration>) -> Result<(), ExitReason> {
        let begin = Instant::now();
        let deadline = wait.and_then(|wait| begin.checked_add(wait));
        let yields = wait == Some(Duration::ZERO);
        if !yields {
            self.activity.parks(begin);
        }
        loop {
            let now = Instant::now();
            let progress = self.service(now)?;
            if progress.wake && !yields {
                self.activity.served(&progress, now);
            }
            if progress.wake || yields {
                return Ok(());
            }
            if self.template && self.outbox.is_ready() && !progress.more {
                return Err(self.freeze());
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.activity.wakes(now);
                return Ok(());
            }
            // What a limit of the link keeps waiting is served when its time has come.
            let device = self.network.as_ref().and_then(Transport::deadline);
            let until = deadline.into_iter().chain(device).min();
            let left = until.map(|until| until.saturating_duration_since(now));
            if self.sleep(if progress.more { Some(Duration::ZERO) } else { left })? == Slept::Reset {
                return Ok(());
            }
        }
    }

    fn service(&mut self, now: Instant) -> Result<Progress, ExitReason> {
        match &mut self.network {
            Some(network) => {
                let progress = network.service(&self.memory, now)?;
                self.activity.moved(&progress, now);
                Ok(progress)
            }
            None => Ok(Progress::default()),
        }
    }

    /// Waits until a device or weir has something, at most `timeout`. May return early.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<Slept, ExitReason> {
        let control = &self.control;
        let interest = if self.outbox.is_waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(control, interest)];
        if let Some(network) = &self.network {
            fds.extend(network.readable_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            fds.extend(network.writable_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
        }
        // Longer than the clock can express is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(ExitReason::Host(format!("wait for devices: {error}"))),
        }
        let news = fds[0].revents();
        if news.contains(PollFlags::OUT) {
            self.outbox.flush(control.as_fd())?;
        }
        if news.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return self.hear();
        }
        Ok(Slept::Woken)
    }

    /// Does what weir said, to the last: one signal may stand for several messages, and a reset takes the vCPU out of
    /// KVM_RUN by its own means, with which goes the kick of a command that came meanwhile.
    pub(super) fn hear(&mut self) -> Result<Slept, ExitReason> {
        let mut slept = Slept::Woken;
        loop {
            match interrupt::commands(&self.control)? {
                Heard::Nothing => return Ok(slept),
                Heard::Report => {
                    let quiet = self.activity.quiet(Instant::now());
                    self.outbox.report(self.control.as_fd(), quiet)?;
                }
                Heard::Reset => {
                    self.reset()?;
                    self.activity.is_asked(Instant::now());
                    slept = Slept::Reset;
                }
            }
        }
    }
}
