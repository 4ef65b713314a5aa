//! Every order in which a few requests, connections, an owner and resets can do their steps, on the real gates.
//!
//! Each operation of a [`Gate`] is one atomic step, all of them sequentially consistent, and the queue is behind a lock; so
//! the threads of [`crate::shared`] can only interleave between the steps below, and all ways in which they do are tried.
//! A state that was seen already is not followed again, which keeps them countable.

use std::collections::{BTreeMap, HashSet, VecDeque};
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
    /// As the first request of a connection, which has another one, and then ends or stays.
    Connection { ends: bool },
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
    /// Tells the owner that somebody waits.
    Tell,
    /// Nothing, until it is given a lease.
    Wait,
    /// Has a lease, and keeps the VM for its connection.
    Keep {
        vm: usize,
    },
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
    /// Has left the VM to its connection: whether anybody waits, whom the owner is to help.
    LookAfterIdle {
        vm: usize,
    },
    /// Another request of the connection.
    EnterHeld {
        vm: usize,
    },
    /// The connection ends.
    End {
        vm: usize,
    },
    /// An owner: takes the VM from a connection without a request, if anybody waits.
    Revoke {
        vm: usize,
    },
    /// An owner: has the VM that it took reset, and gives it to whose turn it is.
    RenewRevoked {
        vm: usize,
    },
    /// An owner: until it is told that somebody waits.
    Watch,
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
    /// Who has had a VM in a generation.
    used: BTreeMap<(usize, u32), usize>,
    /// Of the connections: the generation of their VM, once they keep one.
    generations: Vec<Option<u32>>,
}

struct Model {
    /// At most [`VMS`].
    vms: usize,
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
            Step::TryGate { vm } if self.enter(&mut state, vm, thread) => self.entered(vm),
            Step::TryGate { vm } if vm + 1 < self.vms => Step::TryGate { vm: vm + 1 },
            Step::TryGate { .. } => Step::Enqueue,
            Step::Enqueue => {
                state.queue.push_back(thread);
                if queue_is_empty { Step::Dispatch { vm: 0 } } else { Step::Tell }
            }
            Step::Dispatch { vm } if self.give(&mut state, vm) => Step::Dispatch { vm },
            Step::Dispatch { vm } if vm + 1 < self.vms => Step::Dispatch { vm: vm + 1 },
            Step::Dispatch { .. } => Step::Tell,
            Step::Tell => {
                state.wake = true;
                Step::Wait
            }
            Step::Wait => self.entered(state.granted[thread].take()?),
            Step::Leave { vm } => match on(&mut state, vm, Gate::leave) {
                Left::ClosedEmpty => {
                    state.wake = true;
                    Step::LookAfterLeave { vm }
                }
                Left::Dirty => Step::Renew { vm },
                Left::Idle => Step::LookAfterIdle { vm },
                Left::Open(_) => Step::LookAfterLeave { vm },
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
            of_connection => self.step_of_connection(&mut state, thread, of_connection)?,
        };
        state.threads[thread] = next;
        self.check(&state);
        Some(state)
    }

    fn step_of_connection(&self, state: &mut State, thread: usize, step: Step) -> Option<Step> {
        let queue_is_empty = state.queue.is_empty();
        let next = match step {
            Step::Keep { vm } => {
                state.generations[thread] = Some(on(state, vm, Gate::generation));
                assert!(on(state, vm, Gate::keep), "nobody closes it here");
                Step::Leave { vm }
            }
            Step::LookAfterIdle { vm } => {
                state.wake |= !queue_is_empty;
                // A second request is the last one.
                match state.generations[thread] {
                    Some(_) => Step::EnterHeld { vm },
                    None if self.entry == (Entry::Connection { ends: true }) => Step::End { vm },
                    None => Step::Done,
                }
            }
            Step::EnterHeld { vm } => {
                let generation = state.generations[thread].take()?;
                let again = on(state, vm, |gate| gate.enter_held(generation));
                let owner = state.used.get(&(vm, generation));
                assert!(!again || owner == Some(&thread), "another connection's VM");
                if again { Step::Leave { vm } } else { Step::Done }
            }
            Step::End { vm } => {
                let own = state.used.iter().rfind(|((of, _), owner)| (*of, **owner) == (vm, thread));
                let generation = own.map(|((_, generation), _)| *generation)?;
                if on(state, vm, |gate| gate.end(generation)) { Step::Renew { vm } } else { Step::Done }
            }
            Step::Watch if std::mem::take(&mut state.wake) => Step::Revoke { vm: 0 },
            Step::Revoke { vm } if vm == self.vms => Step::Watch,
            Step::Revoke { vm } if !queue_is_empty && on(state, vm, Gate::revoke) => {
                Step::RenewRevoked { vm }
            }
            Step::Revoke { vm } => Step::Revoke { vm: vm + 1 },
            Step::RenewRevoked { vm } => {
                on(state, vm, Gate::renew);
                self.give(state, vm);
                Step::Revoke { vm: vm + 1 }
            }
            _ => return None,
        };
        Some(next)
    }

    /// A request has a place in the VM.
    fn entered(&self, vm: usize) -> Step {
        match self.entry {
            Entry::Connection { .. } => Step::Keep { vm },
            Entry::Shared(_) | Entry::Isolated => Step::Leave { vm },
        }
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
        let Some(first) = state.queue.front().copied() else { return false };
        let given = self.enter(state, vm, first);
        if given {
            state.queue.pop_front();
            state.granted[first] = Some(vm);
        }
        given
    }

    fn enter(&self, state: &mut State, vm: usize, who: usize) -> bool {
        let entered = match self.entry {
            Entry::Shared(limit) => on(state, vm, |gate| gate.enter(limit).is_some()),
            Entry::Isolated | Entry::Connection { .. } => on(state, vm, Gate::occupy),
        };
        assert!(!entered || vm > 0 || !state.stopped, "a request got a VM that was told to stop");
        if entered && !matches!(self.entry, Entry::Shared(_)) {
            let generation = on(state, vm, Gate::generation);
            let before = state.used.insert((vm, generation), who);
            assert_eq!(before, None, "two requests had a VM without a reset in between");
        }
        entered
    }

    fn check(&self, state: &State) {
        let limit = match self.entry {
            Entry::Shared(limit) => limit as usize,
            Entry::Isolated | Entry::Connection { .. } => 1,
        };
        for vm in 0..VMS {
            let granted = state.granted.iter().filter(|granted| **granted == Some(vm)).count();
            let has = |step: &&Step| [Step::Leave { vm }, Step::Keep { vm }].contains(step);
            let inside = granted + state.threads.iter().filter(has).count();
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
        let generations = vec![None; threads.len()];
        let (queue, used, wake, stopped) = (VecDeque::new(), BTreeMap::new(), false, false);
        let start = State { gates: [0; VMS], queue, threads, granted, wake, stopped, used, generations };
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
                let states = Model { vms: VMS, entry, may_give_up }.explore(3, owner);
                assert!(states > 100, "only {states} states of {entry:?} with {owner:?}");
            }
        }
    }
}

#[test]
fn no_connection_finds_another_s_vm_and_who_waits_gets_that_of_an_idle_one() {
    for (vms, ends, may_give_up) in [(1, false, true), (1, true, false), (1, true, true), (2, false, false)] {
        let entry = Entry::Connection { ends };
        let states = Model { vms, entry, may_give_up }.explore(3, Some(Step::Watch));
        assert!(states > 1000, "only {states} states of {entry:?}");
    }
}
