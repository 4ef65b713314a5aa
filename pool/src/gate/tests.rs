use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(u32),
    Occupy,
    Keep,
    EnterHeld { stale: bool },
    Leave,
    End { stale: bool },
    Revoke,
    Renew,
    Close,
    CloseIfIdle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..5u32).prop_map(Step::Enter),
        6 => Just(Step::Occupy),
        4 => Just(Step::Keep),
        4 => any::<bool>().prop_map(|stale| Step::EnterHeld { stale }),
        8 => Just(Step::Leave),
        2 => any::<bool>().prop_map(|stale| Step::End { stale }),
        2 => Just(Step::Revoke),
        4 => Just(Step::Renew),
        1 => Just(Step::Close),
        1 => Just(Step::CloseIfIdle),
    ];
    proptest::collection::vec(step, 0..96)
}

/// The gate in plain words.
#[derive(Debug)]
struct Model {
    inside: u32,
    closed: bool,
    state: State,
    generation: u32,
}

impl Model {
    fn open(&self, state: State) -> bool {
        !self.closed && self.state == state
    }

    /// Puts `state` in place if `condition`.
    fn turn(&mut self, condition: bool, state: State) -> bool {
        if condition {
            self.state = state;
        }
        condition
    }

    fn come_in(&mut self, condition: bool) -> bool {
        self.inside += u32::from(condition);
        condition
    }

    fn leave(&mut self) -> Left {
        self.inside -= 1;
        match self.state {
            _ if self.inside > 0 => Left::Open(self.inside),
            _ if self.closed => Left::ClosedEmpty,
            State::Ending => {
                self.state = State::Dirty;
                Left::Dirty
            }
            State::Held => Left::Idle,
            State::Free | State::Dirty => Left::Open(0),
        }
    }
}

proptest! {
    // Each operation is one atomic step, so every interleaving of threads is one of these sequences.
    #[test]
    fn gate_does_as_its_model(steps in steps()) {
        let gate = Gate::default();
        let mut model = Model { inside: 0, closed: false, state: State::Free, generation: 0 };
        for step in steps {
            let Model { inside, generation, .. } = model;
            let of = |stale: bool| if stale { generation.wrapping_sub(1) } else { generation };
            let empty = inside == 0;
            match step {
                Step::Enter(limit) => {
                    let may = model.open(State::Free) && inside < limit;
                    let expected = model.come_in(may).then_some(inside + 1);
                    prop_assert_eq!(gate.enter(limit), expected);
                }
                Step::Occupy => {
                    let may = model.open(State::Free) && empty;
                    model.turn(may, State::Ending);
                    prop_assert_eq!(gate.occupy(), model.come_in(may));
                }
                Step::Keep => {
                    let may = model.open(State::Ending);
                    prop_assert_eq!(gate.keep(), model.turn(may, State::Held));
                }
                Step::EnterHeld { stale } => {
                    let may = model.open(State::Held) && !stale;
                    prop_assert_eq!(gate.enter_held(of(stale)), model.come_in(may));
                }
                Step::Leave if empty => {}
                Step::Leave => prop_assert_eq!(gate.leave(), model.leave()),
                Step::End { stale } => {
                    let may = model.open(State::Held) && !stale;
                    model.turn(may, if empty { State::Dirty } else { State::Ending });
                    prop_assert_eq!(gate.end(of(stale)), may && empty);
                }
                Step::Revoke => {
                    let may = model.open(State::Held) && empty;
                    prop_assert_eq!(gate.revoke(), model.turn(may, State::Dirty));
                }
                Step::Renew => {
                    let may = model.open(State::Dirty);
                    model.generation += u32::from(may);
                    prop_assert_eq!(gate.renew(), model.turn(may, State::Free));
                }
                Step::Close => {
                    prop_assert_eq!(gate.close(), Closing { first: !model.closed, in_flight: inside });
                    model.closed = true;
                }
                Step::CloseIfIdle => {
                    let may = (model.open(State::Free) || model.open(State::Held)) && empty;
                    prop_assert_eq!(gate.close_if_idle(), may);
                    model.closed |= may;
                }
            }
            prop_assert_eq!(gate.state(), (model.inside, model.state));
            prop_assert_eq!((gate.in_flight(), gate.generation()), (model.inside, model.generation));
            prop_assert!(model.state != State::Dirty || model.inside == 0, "somebody is in a dirty VM");
        }
    }
}

#[test]
fn generations_come_round_without_touching_anything_else() {
    let gate = Gate(AtomicU64::new(DIRTY | GENERATION));
    assert!(gate.renew());
    assert_eq!((gate.state(), gate.generation()), ((0, State::Free), 0));
}

#[test]
fn threads_never_exceed_the_limit_and_exactly_one_sees_a_closed_gate_empty() {
    const LIMIT: u32 = 3;
    let gate = Gate::default();
    let (peak, last) = (AtomicU32::new(0), AtomicU32::new(0));
    let barrier = Barrier::new(5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..10_000 {
                    let Some(inside) = gate.enter(LIMIT) else { continue };
                    peak.fetch_max(inside, SeqCst);
                    if gate.leave() == Left::ClosedEmpty {
                        last.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        barrier.wait();
        let closing = gate.close();
        if closing.in_flight == 0 {
            last.fetch_add(1, SeqCst);
        }
    });
    assert!(peak.into_inner() <= LIMIT);
    assert_eq!(last.into_inner(), 1);
    assert_eq!(gate.enter(LIMIT), None);
}

// The flag is the VM's memory: a tenancy soils it, and only a reset cleans it.
#[test]
fn threads_never_find_another_tenancy_s_traces() {
    let (gate, soiled) = (Gate::default(), AtomicBool::new(false));
    let (tenancies, resets) = (AtomicU32::new(0), AtomicU32::new(0));
    let reset = || {
        assert!(soiled.swap(false, SeqCst), "a reset of what nobody used");
        resets.fetch_add(1, SeqCst);
        assert!(gate.renew());
    };
    std::thread::scope(|scope| {
        let (gate, soiled, tenancies, reset) = (&gate, &soiled, &tenancies, &reset);
        for thread in 0..4u32 {
            scope.spawn(move || {
                for round in 0..5_000 {
                    if !gate.occupy() {
                        continue;
                    }
                    assert!(!soiled.swap(true, SeqCst), "in a dirty VM");
                    tenancies.fetch_add(1, SeqCst);
                    let generation = gate.generation();
                    let kept = (round + thread).is_multiple_of(2) && gate.keep();
                    if gate.leave() == Left::Dirty {
                        reset();
                    }
                    if kept && gate.enter_held(generation) {
                        assert!(soiled.load(SeqCst), "another tenancy's VM");
                        let dirty_now = gate.end(generation);
                        assert!(!dirty_now, "with a request inside");
                        if gate.leave() == Left::Dirty {
                            reset();
                        }
                    } else if kept && gate.end(generation) {
                        reset();
                    }
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..20_000 {
                if gate.revoke() {
                    reset();
                }
            }
        });
    });
    assert_eq!(tenancies.into_inner(), resets.into_inner());
}

#[test]
fn a_gate_that_is_opened_again_has_those_inside_that_it_had() {
    let gate = Gate::default();
    gate.enter(2).unwrap();
    assert_eq!(gate.close(), Closing { first: true, in_flight: 1 });
    assert_eq!(gate.enter(2), None);
    gate.reopen();
    assert_eq!((gate.enter(2), gate.enter(2)), (Some(2), None));
    assert_eq!([gate.leave(), gate.leave()], [Left::Open(1), Left::Open(0)]);
    assert!(gate.close().first, "it can be closed again");
}
