//! Whole rollouts of a pool that the tests play: VMs become READY, end, and lose their requests when they please.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A pool, and what befalls it.
struct Model {
    now: Instant,
    vms: Vec<VmView>,
    next: u64,
    max: u32,
    due: u32,
    target: u32,
    proven: bool,
    /// Fewest ready VMs so far.
    fewest: u32,
}

fn vm(id: u64, phase: Phase, new: bool, now: Instant) -> VmView {
    VmView { id: VmId(id), phase, in_flight: 0, new, ready_at: now }
}

impl Model {
    fn new(ready: u32, starting: u32, max: u32) -> Self {
        let now = Instant::now();
        let old = |id| vm(id, if id < u64::from(ready) { Phase::Ready } else { Phase::Starting }, false, now);
        let vms: Vec<_> = (0..u64::from(ready + starting)).map(old).collect();
        let target = ready + starting;
        Self { now, next: vms.len() as u64, vms, max, due: u32::MAX, target, proven: false, fewest: ready }
    }

    fn room(&self) -> u32 {
        self.max - u32::try_from(self.vms.len()).unwrap()
    }

    fn ready(&self) -> u32 {
        let ready = |vm: &&VmView| matches!(vm.phase, Phase::Ready | Phase::Resetting);
        u32::try_from(self.vms.iter().filter(ready).count()).unwrap()
    }

    /// Takes the next step, and holds it to what no step may do.
    fn step(&mut self, retry: Retry) -> Step {
        let view = View {
            target: self.target,
            vms: &self.vms,
            room: self.room(),
            due: self.due,
            retry,
            proven: self.proven,
        };
        let step = step(&view, self.now);
        assert!(step.start <= self.room(), "{step:?}");
        assert!(step.proven || !self.proven);
        let live =
            self.vms.iter().filter(|vm| !matches!(vm.phase, Phase::Draining | Phase::Stopping)).count();
        let surge = self.target.div_ceil(4).max(1);
        assert!(step.start == 0 || u32::try_from(live).unwrap() + step.start <= self.target + surge);
        self.proven = step.proven;
        for _ in 0..step.start {
            self.vms.push(vm(self.next, Phase::Starting, true, self.now));
            self.next += 1;
        }
        for id in &step.take_out {
            let vm = self.vms.iter_mut().find(|vm| vm.id == *id).unwrap();
            assert!(!vm.new, "a replacement is not replaced");
            vm.phase = match vm.phase {
                Phase::Ready | Phase::Resetting => Phase::Draining,
                Phase::Starting => Phase::Stopping,
                phase => panic!("{phase:?} is on its way out already"),
            };
        }
        self.fewest = self.fewest.min(self.ready());
        step
    }

    /// Something happens to the VM at this index, and a little time passes.
    fn happens(&mut self, index: usize, ms: u64) {
        self.now += MS(ms);
        if self.vms.is_empty() {
            return;
        }
        let index = index % self.vms.len();
        let vm = &mut self.vms[index];
        match vm.phase {
            Phase::Starting => {
                vm.phase = Phase::Ready;
                vm.ready_at = self.now;
            }
            Phase::Ready | Phase::Resetting => vm.in_flight = (vm.in_flight + 1) % 3,
            Phase::Draining if vm.in_flight > 0 => vm.in_flight -= 1,
            Phase::Draining | Phase::Stopping => drop(self.vms.remove(index)),
        }
    }
}

proptest! {
    #[test]
    fn a_rollout_ends_and_never_has_fewer_ready_vms_than_room_forces(
        (ready, starting, spare) in (0..9u32, 0..4u32, 0..4u32),
        events in proptest::collection::vec((0..64usize, 0..400u64), 0..200),
    ) {
        let mut model = Model::new(ready, starting, (ready + starting + spare).max(1));
        for (index, ms) in events {
            if model.step(Retry::Free).done {
                break;
            }
            model.happens(index, ms);
        }
        // From here on everything comes about sooner or later.
        let mut turns = 0;
        while !model.step(Retry::Free).done {
            (0..model.vms.len()).for_each(|index| model.happens(index, 1));
            model.now += LASTING;
            turns += 1;
            prop_assert!(turns < 200, "{:?}", model.vms);
        }
        prop_assert!(model.vms.iter().all(|vm| vm.new || matches!(vm.phase, Phase::Draining | Phase::Stopping)));
        prop_assert_eq!(model.ready(), ready + starting);
        let forced = u32::from(spare == 0);
        prop_assert!(model.fewest + forced >= ready, "{} of {ready}", model.fewest);
    }

    #[test]
    fn vms_that_are_never_ready_replace_none(
        (ready, spare) in (1..9u32, 0..4u32),
        events in proptest::collection::vec((0..64usize, 0..400u64), 0..100),
    ) {
        let mut model = Model::new(ready, 0, ready + spare);
        for (index, ms) in events {
            prop_assert!(!model.step(Retry::Free).done);
            let index = index % model.vms.len();
            if !(model.vms[index].new && model.vms[index].phase == Phase::Starting) {
                model.happens(index, ms);
            }
        }
        prop_assert!(model.ready() + u32::from(spare == 0) >= ready);
    }
}

#[test]
fn a_quarter_is_replaced_at_a_time_and_the_first_have_to_last() {
    let mut model = Model::new(8, 0, 64);
    let first = model.step(Retry::Free);
    assert_eq!((first.start, first.take_out, first.look_again), (2, vec![], None));
    for vm in &mut model.vms[8..] {
        vm.phase = Phase::Ready;
    }
    let early = model.step(Retry::Free);
    assert_eq!((early.start, early.take_out, early.look_again), (0, vec![], Some(model.now + LASTING)));
    model.now += LASTING;
    model.vms[0].in_flight = 1;
    let second = model.step(Retry::Free);
    assert_eq!((second.start, second.take_out), (0, vec![VmId(1), VmId(2)]), "the busy one last");
    assert!(second.proven && !second.done);
    assert_eq!(model.step(Retry::Free).start, 2, "what takes no requests is no part of the pool");
}

#[test]
fn where_there_is_no_room_one_goes_first() {
    let mut model = Model::new(3, 0, 3);
    assert_eq!(model.step(Retry::Free).take_out, [VmId(0)]);
    assert_eq!(model.step(Retry::Free), Step::default(), "its room is waited for");
    model.happens(0, 0);
    assert_eq!(model.step(Retry::Free).start, 1);
    assert_eq!(model.step(Retry::Free), Step::default());
    model.happens(2, 1);
    assert_eq!(model.step(Retry::Free).take_out, [], "it has to last");
    model.now += LASTING;
    assert_eq!(model.step(Retry::Free).take_out, [VmId(1)]);
}

#[test]
fn room_that_others_have_taken_costs_no_second_vm() {
    let mut model = Model::new(3, 0, 3);
    model.step(Retry::Free);
    model.happens(0, 0);
    model.max = 2;
    assert_eq!(model.step(Retry::Free), Step::default());
    model.max = 3;
    assert_eq!(model.step(Retry::Free).start, 1);
}

#[test]
fn room_that_is_due_to_others_is_not_waited_for() {
    let mut model = Model::new(3, 0, 3);
    model.step(Retry::Free);
    model.happens(0, 0);
    (model.max, model.due) = (2, 2);
    assert_eq!(model.step(Retry::Free).take_out, [VmId(1)], "as from a pool of two");
    model.happens(0, 0);
    (model.max, model.due) = (1, 0);
    assert_eq!(model.step(Retry::Free).take_out, []);
    model.vms.clear();
    assert!(model.step(Retry::Free).done, "nothing is left of it");
}

#[test]
fn failures_hold_starts_back() {
    let mut model = Model::new(8, 0, 64);
    let at = model.now + MS(100);
    let held_back = model.step(Retry::At(at));
    assert_eq!((held_back.start, held_back.look_again), (0, Some(at)));
    assert_eq!(model.step(Retry::Probe).start, 1);
    assert_eq!(model.step(Retry::Probe).start, 0);
}

#[test]
fn a_pool_without_vms_is_done_at_once() {
    assert!(Model::new(0, 0, 4).step(Retry::Free).done);
}
