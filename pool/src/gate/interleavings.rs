//! Every order in which a few requests, an owner and a reset can do their steps, on the real gate.
//!
//! Each operation of a [`Gate`] is one atomic step, all of them sequentially consistent, and the queue is behind a lock; so
//! the threads of [`crate::shared`] can only interleave between the steps below, and all ways in which they do are tried.
//! A state that was seen already is not followed again, which keeps it to some thousands.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{Gate, Left};

/// How a request gets in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    /// With others, up to so many.
    Shared(u32),
    /// As the only one, until the VM is reset.
    Isolated,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// A request: whether anybody waits.
    LookAtQueue,
    /// It tries the gate.
    TryGate,
    /// It takes a place in the queue.
    Enqueue,
    /// Gives out what room there is: after a place was taken, after a leave, after a reset.
    Dispatch {
        then: Then,
    },
    /// Nothing, until it is given a lease.
    Wait,
    /// Has a lease, and gives it back.
    Leave,
    /// Whether anybody waits for the place that it left.
    LookAfterLeave,
    /// The VM is clean again.
    Renew,
    /// An owner: lets nobody in any more.
    Close,
    /// An owner: lets nobody in any more if nobody is inside.
    CloseIfIdle,
    /// An owner: stops the VM if nobody is inside.
    Look,
    /// An owner: until it is told that the VM is empty.
    Sleep,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    Wait,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    gate: u64,
    queue: VecDeque<usize>,
    threads: Vec<Step>,
    /// Requests that have been given a lease and do not know yet.
    granted: Vec<bool>,
    /// Tells the owner to look again.
    wake: bool,
    stopped: bool,
    /// Generations that a request has had the VM in.
    used: Vec<u32>,
}

struct Model {
    entry: Entry,
    /// Requests that may go away while they wait or have a lease.
    may_give_up: bool,
}

impl Model {
    /// One step of the thread, on a state of its own; `None` if it has to wait. What must never be is asserted.
    fn step(&self, mut state: State, thread: usize) -> Option<State> {
        let gate = Gate(AtomicU64::new(state.gate));
        let queue_is_empty = state.queue.is_empty();
        let step = state.threads[thread];
        let next = match step {
            Step::LookAtQueue if queue_is_empty => Step::TryGate,
            Step::TryGate if self.enter(&gate, &mut state) => Step::Leave,
            Step::LookAtQueue | Step::TryGate => Step::Enqueue,
            Step::Enqueue => {
                state.queue.push_back(thread);
                Step::Dispatch { then: Then::Wait }
            }
            // One that is found to be closed or full ends it, as does an empty queue.
            Step::Dispatch { .. } if !queue_is_empty && self.enter(&gate, &mut state) => {
                let first = state.queue.pop_front().expect("it is not empty");
                state.granted[first] = true;
                step
            }
            Step::Dispatch { then: Then::Wait } => Step::Wait,
            Step::Dispatch { then: Then::Done } => Step::Done,
            Step::Wait if std::mem::take(&mut state.granted[thread]) => Step::Leave,
            Step::Leave => match gate.leave() {
                Left::ClosedEmpty => {
                    state.wake = true;
                    Step::LookAfterLeave
                }
                Left::Dirty => Step::Renew,
                Left::Idle => panic!("nobody keeps a tenancy here"),
                Left::Open => Step::LookAfterLeave,
            },
            Step::Renew => {
                gate.renew();
                Step::LookAfterLeave
            }
            Step::LookAfterLeave if queue_is_empty => Step::Done,
            Step::LookAfterLeave => Step::Dispatch { then: Then::Done },
            Step::Close => {
                gate.close();
                Step::Look
            }
            Step::CloseIfIdle if gate.close_if_idle() => Step::Look,
            Step::CloseIfIdle => Step::Done,
            Step::Look if gate.in_flight() == 0 => {
                state.stopped = true;
                Step::Done
            }
            Step::Look => Step::Sleep,
            Step::Sleep if std::mem::take(&mut state.wake) => Step::Look,
            Step::Sleep | Step::Wait | Step::Done => return None,
        };
        state.threads[thread] = next;
        state.gate = gate.0.load(SeqCst);
        self.check(&state);
        Some(state)
    }

    /// A request that waits goes away; a lease that it has been given meanwhile it gives back.
    fn give_up(&self, mut state: State, thread: usize) -> Option<State> {
        if !self.may_give_up || state.threads[thread] != Step::Wait {
            return None;
        }
        state.queue.retain(|waiting| *waiting != thread);
        let granted = std::mem::take(&mut state.granted[thread]);
        state.threads[thread] = if granted { Step::Leave } else { Step::Done };
        Some(state)
    }

    fn enter(&self, gate: &Gate, state: &mut State) -> bool {
        let entered = match self.entry {
            Entry::Shared(limit) => gate.enter(limit).is_some(),
            Entry::Isolated => gate.occupy(),
        };
        if entered {
            assert!(!state.stopped, "a request got a VM that was told to stop");
        }
        if entered && self.entry == Entry::Isolated {
            let generation = gate.generation();
            assert!(!state.used.contains(&generation), "two requests had the VM without a reset in between");
            state.used.push(generation);
        }
        entered
    }

    fn check(&self, state: &State) {
        let granted = state.granted.iter().filter(|granted| **granted).count();
        let inside = granted + state.threads.iter().filter(|step| **step == Step::Leave).count();
        let limit = match self.entry {
            Entry::Shared(limit) => limit as usize,
            Entry::Isolated => 1,
        };
        assert!(inside <= limit, "{inside} inside, the limit is {limit}");
        assert!(!state.stopped || inside == 0, "a VM with a lease was stopped: {state:?}");
    }

    /// Nobody can do anything any more.
    fn check_end(&self, state: &State) {
        let gate = Gate(AtomicU64::new(state.gate));
        assert_eq!(gate.in_flight(), 0, "{state:?}");
        let is_closed = !gate.close().first;
        let waits = state.threads.contains(&Step::Wait);
        assert!(is_closed || !waits, "a request waits though there is room: {state:?}");
        assert!(
            !state.threads.contains(&Step::Sleep),
            "the owner was not told that the VM is empty: {state:?}"
        );
        assert!(!is_closed || state.stopped, "closed, empty and not stopped: {state:?}");
    }

    /// Tries all orders; how many states there are.
    fn explore(&self, requests: usize, owner: Option<Step>) -> usize {
        let threads: Vec<_> = std::iter::repeat_n(Step::LookAtQueue, requests).chain(owner).collect();
        let granted = vec![false; threads.len()];
        let (queue, used) = (VecDeque::new(), Vec::new());
        let start = State { gate: 0, queue, threads, granted, wake: false, stopped: false, used };
        let (mut seen, mut open) = (HashSet::from([start.clone()]), vec![start]);
        while let Some(state) = open.pop() {
            let threads = 0..state.threads.len();
            let steps = threads.clone().filter_map(|thread| self.step(state.clone(), thread));
            let steps: Vec<_> = steps.collect();
            if steps.is_empty() {
                self.check_end(&state);
            }
            let gone = threads.filter_map(|thread| self.give_up(state.clone(), thread));
            open.extend(steps.into_iter().chain(gone).filter(|next| seen.insert(next.clone())));
        }
        seen.len()
    }
}

#[test]
fn no_request_is_with_a_vm_that_is_stopped_and_none_is_forgotten() {
    for entry in [Entry::Shared(1), Entry::Shared(2), Entry::Isolated] {
        for owner in [None, Some(Step::Close), Some(Step::CloseIfIdle)] {
            for may_give_up in [false, true] {
                let states = Model { entry, may_give_up }.explore(3, owner);
                assert!(states > 100, "only {states} states of {entry:?} with {owner:?}");
            }
        }
    }
}
