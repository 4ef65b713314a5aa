//! How fast a bridge and the hooks on both of its sides may go on.
//!
//! ```text
//!  ask_switch ──> asked ──switched──> tunnel: silence is nobody's fault
//!                  └──miss──> late: the bridge breaks, and the VM is to blame
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Polls of a client until the end of an empty body has surely been passed on, in whatever order pingora's task polls its
/// futures: one in which it is sent, one in which it is received, one to tell.
pub(super) const TURNS: u8 = 3;
/// How long they may take; a client that sends before the switch may not be polled at all.
const TURNS_TIMEOUT: Duration = Duration::from_millis(50);

/// What a bridge and the hooks tell each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<PaceState>);

#[derive(Debug, Default)]
struct PaceState {
    /// The bridge is behind with the body.
    behind: AtomicBool,
    /// Who reads from the client.
    reader: AtomicWaker,
    /// Polls of the client that the VM's answer waits for.
    turns: AtomicU8,
    no_turns: Notify,
    answer: Mutex<Answer>,
    /// The VM was asked for a tunnel.
    tunnel: AtomicBool,
    /// Since when the VM has all of the body that has come; `None`: it does not take it.
    hungry_since: Mutex<Option<Instant>>,
    /// How long a tunnel may be silent.
    tunnel_silence: Mutex<Option<Duration>>,
}

/// What is known of the answer to a request for a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    /// Nobody has asked, or the VM has switched.
    #[default]
    Free,
    /// The VM may be silent for so long.
    Due(Duration),
    /// It was silent for longer.
    Late,
}

impl Pace {
    /// Ready while more of the body may be read from the client.
    pub(crate) fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.take_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.0.behind.load(Acquire) {
            return Poll::Ready(());
        }
        self.0.reader.register(cx.waker());
        // It may have been set free before the waker was there to be called.
        if self.0.behind.load(Acquire) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// The VM will be asked for a tunnel: its answer is to wait until pingora is ready for it, and may not be silent for
    /// longer than `patience`; the tunnel itself may be for `silence`. Before the VM has been asked.
    pub(crate) fn ask_switch(&self, patience: Duration, silence: Duration) {
        *self.0.tunnel_silence.lock() = Some(silence);
        self.0.tunnel.store(true, Release);
        self.0.turns.store(TURNS, Release);
        *self.0.answer.lock() = Answer::Due(patience);
    }

    /// Whether the VM was asked for a tunnel.
    pub(super) fn asks_tunnel(&self) -> bool {
        self.0.tunnel.load(Acquire)
    }

    /// There is a tunnel.
    pub(crate) fn switched(&self) {
        *self.0.answer.lock() = Answer::Free;
    }

    /// Whether the bridge broke because the VM was silent for too long.
    pub(crate) fn is_late(&self) -> bool {
        *self.0.answer.lock() == Answer::Late
    }

    /// How long a tunnel may be silent, once there is one.
    pub(super) fn tunnel_silence(&self) -> Option<Duration> {
        if *self.0.answer.lock() == Answer::Free { *self.0.tunnel_silence.lock() } else { None }
    }

    /// Since when it is for the client to send more; `None`: it is for the VM to take what he has sent.
    pub(crate) fn hungry_since(&self) -> Option<Instant> {
        *self.0.hungry_since.lock()
    }

    /// Whether the VM has all that has come, as of `now`.
    pub(super) fn set_hungry(&self, hungry: bool, now: impl FnOnce() -> Instant) {
        let mut since = self.0.hungry_since.lock();
        if since.is_some() != hungry {
            *since = hungry.then(now);
        }
    }

    /// How long the VM may be silent, if that is for the bridge to see to.
    pub(super) fn patience(&self) -> Option<Duration> {
        match *self.0.answer.lock() {
            Answer::Due(patience) => Some(patience),
            Answer::Free | Answer::Late => None,
        }
    }

    /// The VM was silent for so long; whether it may not be, for it may have switched meanwhile.
    pub(super) fn miss(&self) -> bool {
        let mut answer = self.0.answer.lock();
        let missed = matches!(*answer, Answer::Due(_));
        if missed {
            *answer = Answer::Late;
        }
        missed
    }

    /// Whether one was to be taken.
    fn take_turn(&self) -> bool {
        let turns = self.0.turns.fetch_update(AcqRel, Acquire, |turns| turns.checked_sub(1));
        if turns == Ok(1) {
            self.0.no_turns.notify_one();
        }
        turns.is_ok()
    }

    pub(super) async fn answer_free(&self) {
        if self.0.turns.load(Acquire) > 0 {
            // Late or not, it is time.
            let _ = timeout(TURNS_TIMEOUT, self.0.no_turns.notified()).await;
            self.0.turns.store(0, Release);
        }
    }

    pub(super) fn set_behind(&self, behind: bool) {
        if self.0.behind.swap(behind, AcqRel) && !behind {
            self.0.reader.wake();
        }
    }
}
