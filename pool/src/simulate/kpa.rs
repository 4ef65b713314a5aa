//! Knative's pod autoscaler, by its published rules, to be compared with.
//!
//! The rules are those of Knative Serving's documentation ("Additional autoscaling configuration for Knative Pod
//! Autoscaler", "Configuring scale to zero", "Configuring targets") and of its `Scale` function: every 2 s the stable and
//! the panic window's averages of the concurrency are divided by the target, kept within the rates of change, and, while
//! it panics, not lowered. Requests that find no pod wait in the activator, which is this simulation's queue.
//!
//! Where Knative's machinery costs time of which the rules say nothing, it is given none: averages are exact instead of
//! scraped once a second, a decision takes effect at once, the first request to a pool at zero is decided upon when it
//! comes (the activator pokes the autoscaler), and pods start and route as fast as weir's VMs do.

mod window;

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::Pool;
use weir_vmm::VmId;

use self::window::History;
use super::policy::{Actions, Policy, Seen};
use crate::scale::{Phase, VmView};

/// Time between decisions (`tick-interval`).
const TICK: Duration = Duration::from_secs(2);

/// What Knative's `config-autoscaler` and a revision's annotations say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    stable_window: Duration,
    panic_window: Duration,
    /// Times the pods that are ready.
    panic_threshold: f64,
    max_scale_up_rate: f64,
    max_scale_down_rate: f64,
    /// Requests in flight per pod that are aimed at.
    target: f64,
    /// How long the last pod stays after the decision for zero.
    scale_to_zero_grace: Duration,
    min: u32,
    max: u32,
}

impl Rules {
    /// Knative's defaults, with `pool`'s limits. Its soft limit is what the target of 70 % is of.
    pub(crate) fn defaults(pool: &Pool) -> Self {
        Self {
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            panic_threshold: 2.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            target: f64::from(pool.soft_limit) * 0.7,
            scale_to_zero_grace: Duration::from_secs(30),
            min: pool.scale.min,
            max: pool.scale.max,
        }
    }

    /// The same with `pool`'s own windows, threshold and rates, and without the grace period, which is an upper limit: it
    /// ends as soon as the activator is in the requests' way.
    pub(crate) fn tuned(pool: &Pool) -> Self {
        let ratio = |thousandths: u64| thousandths as f64 / 1e3;
        Self {
            stable_window: pool.scale.stable_window,
            panic_window: pool.scale.panic_window,
            panic_threshold: ratio(pool.scale.panic_threshold.0),
            max_scale_up_rate: ratio(pool.scale.max_up_rate.0),
            max_scale_down_rate: ratio(pool.scale.max_down_rate.0),
            scale_to_zero_grace: Duration::ZERO,
            ..Self::defaults(pool)
        }
    }
}

/// One pool's autoscaler.
#[derive(Debug)]
pub(crate) struct Kpa {
    rules: Rules,
    history: History,
    /// The pods that are wanted, as the last decision has it.
    desired: u32,
    next_tick: Instant,
    panicking: Option<Panic>,
    /// Since when zero has been wanted.
    zero_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Panic {
    /// The last time that the threshold was reached.
    last: Instant,
    most_pods: f64,
}

impl Kpa {
    pub(crate) fn new(rules: Rules, begin: Instant) -> Self {
        Self {
            history: History::new(rules.stable_window.max(rules.panic_window)),
            desired: rules.min,
            next_tick: begin + TICK,
            panicking: None,
            zero_since: Some(begin),
            rules,
        }
    }

    fn tick(&mut self, ready: usize, now: Instant) {
        let wanted = whole(self.scale(ready.max(1) as f64, now)).max(self.rules.min).min(self.rules.max);
        if wanted > 0 {
            self.zero_since = None;
            self.desired = wanted;
            return;
        }
        let since = *self.zero_since.get_or_insert(now);
        // Down to the last one at once, which stays for the grace period.
        self.desired = u32::from(self.desired > 0 && now < since + self.rules.scale_to_zero_grace);
    }

    /// Knative's `Scale`.
    fn scale(&mut self, ready: f64, now: Instant) -> f64 {
        let Rules { max_scale_up_rate, max_scale_down_rate, panic_threshold, .. } = self.rules;
        // To six digits, as Knative's averages are: the target is no exact number.
        let wanted = |window| (self.history.average(window, now) / self.rules.target * 1e6).round() / 1e6;
        let wanted = |window| f64::ceil(wanted(window));
        let (stable, panic) = (wanted(self.rules.stable_window), wanted(self.rules.panic_window));
        let (least, most) = ((ready / max_scale_down_rate).floor(), (ready * max_scale_up_rate).ceil());
        let within = |pods: f64| pods.max(least).min(most);
        if panic / ready >= panic_threshold {
            self.panicking.get_or_insert(Panic { last: now, most_pods: 0.0 }).last = now;
        } else if self.panicking.is_some_and(|panic| panic.last + self.rules.stable_window < now) {
            self.panicking = None;
        }
        match &mut self.panicking {
            Some(state) => {
                state.most_pods = within(stable).max(within(panic)).max(state.most_pods);
                state.most_pods
            }
            None => within(stable),
        }
    }
}

impl Policy for Kpa {
    fn demand(&mut self, requests: u32, now: Instant) {
        self.history.record(requests, now);
    }

    fn decide(&mut self, seen: &Seen<'_>, now: Instant) -> Actions {
        let poked = self.desired == 0 && seen.queued > 0;
        if poked || now >= self.next_tick {
            let ready =
                seen.vms.iter().filter(|vm| matches!(vm.phase, Phase::Ready | Phase::Resetting)).count();
            self.tick(ready, now);
        }
        while self.next_tick <= now {
            self.next_tick += TICK;
        }
        let mut live: Vec<_> = seen.vms.iter().filter(|vm| is_live(vm)).collect();
        let count = u32::try_from(live.len()).unwrap_or(u32::MAX);
        let surplus = count.saturating_sub(self.desired) as usize;
        // As a ReplicaSet does: who is not ready goes first, then the youngest. (`false` is before `true`.)
        live.sort_unstable_by_key(|vm| (vm.phase != Phase::Starting, Reverse(vm.id)));
        let drain: Vec<VmId> = live.iter().take(surplus).map(|vm| vm.id).collect();
        Actions { start: self.desired.saturating_sub(count), drain, look_again: Some(self.next_tick) }
    }
}

/// A number of pods; more than there are numbers for is as many as there are.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and is whole already")]
fn whole(pods: f64) -> u32 {
    pods as u32
}

fn is_live(vm: &VmView) -> bool {
    matches!(vm.phase, Phase::Starting | Phase::Ready | Phase::Resetting)
}

#[cfg(test)]
mod tests;
