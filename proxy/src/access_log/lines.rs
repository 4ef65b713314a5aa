//! Lines on their way from requests to the writer.
//!
//! To wake a thread costs a request more than all the rest of its line. So the writer, once woken, lets lines gather
//! for [`GATHER`] before it takes them all: it is woken once in that time at most, whatever the load.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Bytes that may wait for the writer.
pub(super) const WAITING_MAX: usize = 4 << 20;

/// How long a line may wait for others.
const GATHER: Duration = Duration::from_millis(10);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The writer sleeps until something comes.
    idle: bool,
    /// The writer is to come, lines or not.
    nudged: bool,
    closed: bool,
}

impl Lines {
    /// Leaves a line for the writer, or returns false: it is behind by too much, or gone.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.waiting.len() + line.len() > WAITING_MAX {
            return false;
        }
        state.waiting.extend_from_slice(line);
        if std::mem::take(&mut state.idle) {
            drop(state);
            self.came.notify_one();
        }
        true
    }

    /// Has the writer come though there may be no lines.
    pub(super) fn nudge(&self) {
        self.state.lock().nudged = true;
        self.came.notify_one();
    }

    /// Replaces `batch` by the lines that have come, and waits for the first, or a nudge. False: there will be none any more.
    pub(super) fn take(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !std::mem::take(&mut state.nudged) {
            if state.closed {
                return false;
            }
            state.idle = true;
            self.came.wait(&mut state);
        }
        if !state.closed {
            // Whether it is the end or the time that is over, what is there is taken.
            let _ = self.came.wait_for(&mut state, GATHER);
        }
        std::mem::swap(&mut state.waiting, batch);
        true
    }

    /// No line comes any more, or none is taken.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        drop(state);
        self.came.notify_all();
    }
}
