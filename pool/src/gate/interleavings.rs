//! Every order in which a few requests, an owner and a reset can do their steps, on the real gate.
//!
//! Each operation of a [`Gate`] is one atomic step, all of them sequentially consistent, and the queue is behind a lock; so
//! the threads of [`crate::shared`] can only interleave between the steps below, and all ways in which they do are tried.
//! A state that was seen already is not followed again, which keeps them countable.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{Gate, Left};

const VMS: usize = 2;

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
    /// It tries a gate.
    TryGate {
        vm: usize,
    },
    /// It takes a place in the queue.
    Enqueue,
    /// As the first who waits, looks for a place, gate by gate, and gives it to whose turn it is.
    Dispatch {
        vm: usize,
    },
    /// Nothing, until it is given a lease.
    Wait,
    /// Has a lease, and gives it back.
    Leave {
        vm: usize,
    },
    /// The VM is clean again.
    Renew {
        vm: usize,
    },
    /// Whether anybody waits for the place that has become free.
    LookAfterLeave {
        vm: usize,
    },
    /// Gives it to whose turn it is.
    HandOver {
        vm: usize,
    },
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Of the VMs; an owner drains the first.
    gates: [u64; VMS],
    queue: VecDeque<usize>,
    threads: Vec<Step>,
    /// Requests that have been given a lease and do not know yet.
    granted: Vec<Option<usize>>,
    /// Tells the owner to look again.
    wake: bool,
    stopped: bool,
    /// Generations in which a request has had a VM.
    used: BTreeSet<(usize, u32)>,
}

struct Model {
    entry: Entry,
    /// Requests that may go away while they wait or have a lease.
    may_give_up: bool,
}

impl Model {
    /// One step of the thread, on a state of its own; `None` if it has to wait. What must never be is asserted.
    fn step(&self, mut state: State, thread: usize) -> Option<State> {
        let queue_is_empty = state.queue.is_empty();
        let step = state.threads[thread];
        let next = match step {
            Step::LookAtQueue if queue_is_empty => Step::TryGate { vm: 0 },
            Step::LookAtQueue => Step::Enqueue,
            Step::TryGate { vm } if self.enter(&mut state, vm) => Step::Leave { vm },
            Step::TryGate { vm } if vm + 1 < VMS => Step::TryGate { vm: vm + 1 },
            Step::TryGate { .. } => Step::Enqueue,
            Step::Enqueue => {
                state.queue.push_back(thread);
                if queue_is_empty { Step::Dispatch { vm: 0 } } else { Step::Wait }
            }
            Step::Dispatch { vm } if self.give(&mut state, vm) => Step::Dispatch { vm },
            Step::Dispatch { vm } if vm + 1 < VMS => Step::Dispatch { vm: vm + 1 },
            Step::Dispatch { .. } => Step::Wait,
            Step::Wait => Step::Leave { vm: state.granted[thread].take()? },
            Step::Leave { vm } => match on(&mut state, vm, Gate::leave) {
                Left::ClosedEmpty => {
                    state.wake = true;
                    Step::LookAfterLeave { vm }
                }
                Left::Dirty => Step::Renew { vm },
                Left::Idle => panic!("nobody keeps a tenancy here"),
                Left::Open => Step::LookAfterLeave { vm },
            },
            Step::Renew { vm } => {
                on(&mut state, vm, Gate::renew);
                Step::LookAfterLeave { vm }
            }
            Step::LookAfterLeave { vm } if !queue_is_empty => Step::HandOver { vm },
            Step::LookAfterLeave { .. } => Step::Done,
            Step::HandOver { vm } => {
                self.give(&mut state, vm);
                Step::Done
            }
            Step::Close => {
                on(&mut state, 0, Gate::close);
                Step::Look
            }
            Step::CloseIfIdle if on(&mut state, 0, Gate::close_if_idle) => Step::Look,
            Step::CloseIfIdle => Step::Done,
            Step::Look if on(&mut state, 0, Gate::in_flight) == 0 => {
                state.stopped = true;
                Step::Done
            }
            Step::Look => Step::Sleep,
            Step::Sleep if std::mem::take(&mut state.wake) => Step::Look,
            Step::Sleep | Step::Done => return None,
        };
        state.threads[thread] = next;
        self.check(&state);
        Some(state)
    }

    /// A request that waits goes away; a lease that it has been given meanwhile it gives back.
    fn give_up(&self, mut state: State, thread: usize) -> Option<State> {
        if !self.may_give_up || state.threads[thread] != Step::Wait {
            return None;
        }
        state.queue.retain(|waiting| *waiting != thread);
        let granted = state.granted[thread].take();
        state.threads[thread] = granted.map_or(Step::Done, |vm| Step::Leave { vm });
        Some(state)
    }

    /// Gives a place in the VM to whose turn it is; whether there are both.
    fn give(&self, state: &mut State, vm: usize) -> bool {
        let given = !state.queue.is_empty() && self.enter(state, vm);
        if given {
            let first = state.queue.pop_front().expect("it is not empty");
            state.granted[first] = Some(vm);
        }
        given
    }

    fn enter(&self, state: &mut State, vm: usize) -> bool {
        let entered = match self.entry {
            Entry::Shared(limit) => on(state, vm, |gate| gate.enter(limit).is_some()),
            Entry::Isolated => on(state, vm, Gate::occupy),
        };
        assert!(!entered || vm > 0 || !state.stopped, "a request got a VM that was told to stop");
        if entered && self.entry == Entry::Isolated {
            let generation = on(state, vm, Gate::generation);
            assert!(state.used.insert((vm, generation)), "two requests had a VM without a reset in between");
        }
        entered
    }

    fn check(&self, state: &State) {
        let limit = match self.entry {
            Entry::Shared(limit) => limit as usize,
            Entry::Isolated => 1,
        };
        for vm in 0..VMS {
            let granted = state.granted.iter().filter(|granted| **granted == Some(vm)).count();
            let leaving = state.threads.iter().filter(|step| **step == Step::Leave { vm }).count();
            let inside = granted + leaving;
            assert!(inside <= limit, "{inside} inside, the limit is {limit}: {state:?}");
            assert!(vm > 0 || !state.stopped || inside == 0, "a VM with a lease was stopped: {state:?}");
        }
    }

    /// Nobody can do anything any more.
    fn check_end(&self, state: &State) {
        let gates = state.gates.map(|gate| Gate(AtomicU64::new(gate)));
        assert!(gates.iter().all(|gate| gate.in_flight() == 0), "{state:?}");
        assert!(!state.threads.contains(&Step::Wait), "a request waits though there is room: {state:?}");
        assert!(
            !state.threads.contains(&Step::Sleep),
            "the owner was not told that the VM is empty: {state:?}"
        );
        let is_closed = !gates[0].close().first;
        assert!(!is_closed || state.stopped, "closed, empty and not stopped: {state:?}");
    }

    /// Tries all orders; how many states there are.
    fn explore(&self, requests: usize, owner: Option<Step>) -> usize {
        let threads: Vec<_> = std::iter::repeat_n(Step::LookAtQueue, requests).chain(owner).collect();
        let granted = vec![None; threads.len()];
        let (queue, used) = (VecDeque::new(), BTreeSet::new());
        let start = State { gates: [0; VMS], queue, threads, granted, wake: false, stopped: false, used };
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

/// Does one operation on the gate of a VM.
fn on<T>(state: &mut State, vm: usize, operation: impl FnOnce(&Gate) -> T) -> T {
    let gate = Gate(AtomicU64::new(state.gates[vm]));
    let result = operation(&gate);
    state.gates[vm] = gate.0.load(SeqCst);
    result
}

#[test]
fn no_request_is_with_a_vm_that_is_stopped_and_none_is_forgotten() {
    for entry in [Entry::Shared(1), Entry::Isolated] {
        for owner in [None, Some(Step::Close), Some(Step::CloseIfIdle)] {
            for may_give_up in [false, true] {
                let states = Model { entry, may_give_up }.explore(3, owner);
                assert!(states > 100, "only {states} states of {entry:?} with {owner:?}");
            }
        }
    }
}
