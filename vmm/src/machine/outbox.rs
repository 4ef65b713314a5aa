//! Events on their way to weir. The VM never waits for weir: what does not fit is kept (READY) or dropped and counted
//! (log lines).

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::console::{LineLimiter, printable};
use crate::channel::ChannelError;
use crate::event::{self, VmEvent};

/// Weir's end of the control socket is gone; the VM has to stop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WeirGone;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    limiter: LineLimiter,
    ready: Ready,
}

/// ```text
/// Booting ──READY──> Pending ──room in the socket──> Told
/// ```
#[derive(Debug, PartialEq, Eq)]
enum Ready {
    Booting,
    Pending,
    Told,
}

impl Outbox {
    /// Nothing said yet.
    pub(crate) fn new(now: Instant, log_lines: u32) -> Self {
        Self { limiter: LineLimiter::new(now, log_lines), ready: Ready::Booting }
    }

    /// The guest has said that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready != Ready::Booting
    }

    /// The guest is ready, as another incarnation.
    pub(crate) fn ready_again(&mut self, socket: BorrowedFd<'_>) -> Result<(), WeirGone> {
        self.ready = Ready::Booting;
        self.ready(socket)
    }

    /// The guest is ready; only the first time counts.
    pub(crate) fn ready(&mut self, socket: BorrowedFd<'_>) -> Result<(), WeirGone> {
        if self.ready == Ready::Booting {
            self.ready = Ready::Pending;
        }
        self.flush(socket)
    }

    /// Passes on what the guest logged.
    pub(crate) fn log(&mut self, socket: BorrowedFd<'_>, line: &[u8], now: Instant) -> Result<(), WeirGone> {
        if !self.limiter.admit(now) {
            return Ok(());
        }
        self.report_dropped(socket)?;
        if !deliver(socket, &VmEvent::Log(printable(line)))? {
            self.limiter.count_dropped();
        }
        Ok(())
    }

    /// Answers a question. Whoever asked and hears nothing, because there is no room, asks again.
    pub(crate) fn report(&self, socket: BorrowedFd<'_>, quiet: Duration) -> Result<(), WeirGone> {
        deliver(socket, &VmEvent::Report { quiet }).map(drop)
    }

    /// True while [`Self::flush`] waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        self.ready == Ready::Pending
    }

    /// Tries again what must not be lost.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), WeirGone> {
        if self.ready == Ready::Pending && deliver(socket, &VmEvent::Ready)? {
            self.ready = Ready::Told;
        }
        Ok(())
    }

    /// Says how many lines are missing here, if any are.
    pub(crate) fn report_dropped(&mut self, socket: BorrowedFd<'_>) -> Result<(), WeirGone> {
        let dropped = self.limiter.dropped();
        if dropped > 0 && deliver(socket, &VmEvent::Log(format!("[weir: {dropped} log lines dropped]")))? {
            self.limiter.reported();
        }
        Ok(())
    }
}

/// True: sent. False: no room now.
fn deliver(socket: BorrowedFd<'_>, event: &VmEvent) -> Result<bool, WeirGone> {
    match event::send(socket, event) {
        Ok(()) => Ok(true),
        Err(error) if error.would_block() => Ok(false),
        // The socket works, this one message does not: nothing to be gained by trying again.
        Err(ChannelError::Encode(_) | ChannelError::TooLong) => Ok(true),
        Err(_) => Err(WeirGone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel;
    use rustix::fs::{OFlags, fcntl_setfl};
    use std::os::fd::{AsFd, OwnedFd};

    fn sockets() -> (OwnedFd, OwnedFd) {
        let (vm, weir) = channel::pair().unwrap();
        fcntl_setfl(&vm, OFlags::NONBLOCK).unwrap();
        fcntl_setfl(&weir, OFlags::NONBLOCK).unwrap();
        (vm, weir)
    }

    fn received(weir: &OwnedFd) -> Vec<VmEvent> {
        std::iter::from_fn(|| event::recv(weir).ok().flatten()).collect()
    }

    #[test]
    fn ready_is_told_once() {
        let (vm, weir) = sockets();
        let mut outbox = Outbox::new(Instant::now(), 100);
        outbox.ready(vm.as_fd()).unwrap();
        outbox.ready(vm.as_fd()).unwrap();
        outbox.flush(vm.as_fd()).unwrap();
        assert_eq!(received(&weir), [VmEvent::Ready]);
    }

    #[test]
    fn a_full_socket_costs_log_lines_but_never_ready() {
        let (vm, weir) = sockets();
        let mut now = Instant::now();
        let mut outbox = Outbox::new(now, 100);
        // More than any socket buffer holds, slowly enough for the limiter.
        for _ in 0..20_000 {
            now += Duration::from_millis(10);
            outbox.log(vm.as_fd(), &[b'x'; 4000], now).unwrap();
        }
        outbox.ready(vm.as_fd()).unwrap();
        assert!(outbox.is_waiting());
        let lines = received(&weir).len();
        assert!(lines < 20_000);
        outbox.flush(vm.as_fd()).unwrap();
        assert!(!outbox.is_waiting());
        outbox.report_dropped(vm.as_fd()).unwrap();
        let report = format!("[weir: {} log lines dropped]", 20_000 - lines);
        assert_eq!(received(&weir), [VmEvent::Ready, VmEvent::Log(report)]);
    }

    #[test]
    fn a_flood_is_dropped_and_reported_before_the_next_line() {
        let (vm, weir) = sockets();
        let start = Instant::now();
        let mut outbox = Outbox::new(start, 100);
        for _ in 0..500 {
            outbox.log(vm.as_fd(), b"flood\n", start).unwrap();
        }
        let admitted = received(&weir);
        assert!(admitted.iter().all(|event| *event == VmEvent::Log("flood".into())));
        outbox.log(vm.as_fd(), b"later", start + Duration::from_secs(1)).unwrap();
        let report = format!("[weir: {} log lines dropped]", 500 - admitted.len());
        assert_eq!(received(&weir), [VmEvent::Log(report), VmEvent::Log("later".into())]);
    }

    #[test]
    fn weir_being_gone_is_noticed() {
        let (vm, weir) = sockets();
        drop(weir);
        let mut outbox = Outbox::new(Instant::now(), 100);
        assert_eq!(outbox.ready(vm.as_fd()), Err(WeirGone));
        assert_eq!(outbox.log(vm.as_fd(), b"x", Instant::now()), Err(WeirGone));
    }
}
