//! decide() in a loop with a pool that does what it says, in virtual time.

use proptest::prelude::*;

use super::*;

/// Time from one look to the next; events come in between in reality, and make it look more often.
const STEP: Duration = Duration::from_millis(100);

struct Loop {
    limits: Limits,
    windows: Windows,
    panic: Option<Panic>,
    vms: Vec<VmView>,
    now: Instant,
    next: u64,
    started: u32,
}

impl Loop {
    fn new(limits: Limits) -> Self {
        let windows = Windows::new(&limits);
        Self { limits, windows, panic: None, vms: vec![], now: Instant::now(), next: 0, started: 0 }
    }

    /// `demand` requests are there for one step, spread over the VMs that are ready.
    fn step(&mut self, demand: u32) -> Decision {
        for vm in &mut self.vms {
            vm.phase = Phase::Ready;
        }
        let count = u32::try_from(self.vms.len()).unwrap();
        for (nth, vm) in (0..).zip(&mut self.vms) {
            vm.in_flight = demand / count + u32::from(nth < demand % count);
            if vm.in_flight > 0 {
                vm.idle_since = self.now + STEP;
            }
        }
        let queued = if count == 0 { demand as usize } else { 0 };
        let seen = super::demand(&self.limits, queued, &self.vms, self.now);
        let averages = self.windows.observe(seen, live(&self.vms), self.now);
        let view = View { averages, panic: self.panic, ..View::new(&self.limits, queued, &self.vms) };
        let decision = decide(&view, self.now);
        self.panic = decision.panic;
        self.vms.retain(|vm| !decision.retire.contains(&vm.id) && !decision.drain.contains(&vm.id));
        for _ in 0..decision.start {
            self.next += 1;
            self.vms.push(vm(self.next, Phase::Starting, 0, self.now));
        }
        self.started += decision.start;
        self.now += STEP;
        decision
    }

    fn steps(&mut self, seconds: u32, demand: u32) {
        for _ in 0..seconds * 10 {
            self.step(demand);
        }
    }
}

fn any_limits() -> impl Strategy<Value = Limits> {
    ((0..4u32, 4..40u32), 1..9u32, 1..60u64, 1001..5000u64, 1..60u64).prop_map(
        |((min, max), soft_limit, stable, down, idle)| Limits {
            stable_window: Duration::from_secs(stable),
            panic_window: Duration::from_millis(stable * 100),
            max_down_rate: Thousandths(down),
            idle_timeout: Duration::from_secs(idle),
            ..limits(min, max, soft_limit)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn constant_load_is_met_by_a_constant_number(
        limits in any_limits(),
        before in 0..200u32,
        demand in 0..200u32,
    ) {
        let mut world = Loop::new(limits.clone());
        world.steps(20, before);
        // The windows and the timeout, and the slow way down.
        world.steps(200, demand);
        let (vms, started) = (world.vms.len(), world.started);
        world.steps(200, demand);
        prop_assert_eq!(world.vms.len(), vms);
        prop_assert_eq!(world.started, started, "what is stopped is started again");
        let needed = demand.div_ceil(limits.soft_limit).max(limits.min).min(limits.max) as usize;
        prop_assert!(vms >= needed);
        let roomy = (demand * 5 / 4 + 1).div_ceil(limits.soft_limit).max(limits.min).min(limits.max) as usize;
        prop_assert!(vms <= roomy, "{vms} VMs for what {roomy} could do");
    }

    #[test]
    fn without_load_the_minimum_is_what_is_left(limits in any_limits(), loads in proptest::collection::vec(0..300u32, 1..9)) {
        let mut world = Loop::new(limits.clone());
        for load in loads {
            world.steps(5, load);
        }
        world.steps(300, 0);
        prop_assert_eq!(world.vms.len(), limits.min as usize);
    }

    #[test]
    fn the_way_down_is_never_steeper_than_the_rate(limits in any_limits(), loads in proptest::collection::vec(0..300u32, 1..9)) {
        let mut world = Loop::new(limits.clone());
        let mut counts = Vec::new();
        for load in loads.into_iter().chain([0, 0, 0]) {
            for _ in 0..50 {
                world.step(load);
                counts.push(world.vms.len());
            }
        }
        let window = usize::try_from(limits.panic_window.as_millis() / STEP.as_millis()).unwrap();
        for (at, count) in counts.iter().enumerate() {
            let peak = *counts[at.saturating_sub(window)..=at].iter().max().unwrap() as u64;
            let least = peak * 1000 / limits.max_down_rate.0;
            // Those that drain are beyond it: they are as many as the rate leaves, and one in eight.
            prop_assert!(*count as u64 >= least, "{count} of {peak}");
        }
    }
}

#[test]
fn load_is_met_at_once_whatever_it_was_before() {
    let mut world = Loop::new(limits(0, 99, 4));
    world.steps(60, 0);
    assert_eq!(world.step(40).start, 10);
    world.steps(60, 40);
    assert_eq!(world.vms.len(), 10);
    assert_eq!(world.step(80).start, 10);
}
