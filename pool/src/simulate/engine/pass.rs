//! What follows an event: looks at the pools that it concerns, and what those look for.

use tokio::time::Instant;
use weir_vmm::VmId;

use super::pool::SimVm;
use super::{Engine, Event};
use crate::choice::Latency;
use crate::scale::{Phase, VmView};
use crate::simulate::policy::{Actions, Seen};

impl Engine<'_> {
    /// Looks at pools until none is left to be looked at.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(index) = self.passes.pop_front() {
            self.pass(index, now);
        }
    }

    /// What a pool's owner task does whenever it looks.
    pub(super) fn pass(&mut self, index: usize, now: Instant) {
        let site = &mut self.sites[index];
        let vms: Vec<VmView> = site.pool.vms.iter().map(|vm| vm.view).collect();
        let seen = Seen { vms: &vms, queued: site.pool.queue.len() };
        let Actions { start, drain, look_again } = site.policy.decide(&seen, now);
        for id in drain {
            if let Some(vm) = self.sites[index].pool.vm(id) {
                match vm.view.phase {
                    Phase::Starting => vm.view.phase = Phase::Stopping,
                    Phase::Ready | Phase::Resetting => vm.view.phase = Phase::Draining,
                    Phase::Draining | Phase::Stopping => {}
                }
            }
        }
        self.stop_drained(index, now);
        self.start(index, start, now);
        let spread_until = self.sites[index].pool.spread(now);
        self.dispatch(index, now);
        let look_at = look_again.into_iter().chain(spread_until).min();
        let site = &mut self.sites[index];
        if look_at != site.look_at {
            site.look_at = look_at;
            if let Some(at) = look_at {
                self.at(at.max(now), index, Event::Look);
            }
        }
    }

    fn stop_drained(&mut self, index: usize, now: Instant) {
        let site = &mut self.sites[index];
        let over = |vm: &SimVm| match vm.view.phase {
            Phase::Draining => vm.view.in_flight == 0,
            phase => phase == Phase::Stopping,
        };
        let over: Vec<_> = site.pool.vms.iter().filter(|vm| over(vm)).map(|vm| vm.view.id).collect();
        for id in &over {
            let Some(vm) = site.pool.remove(*id) else { continue };
            site.measures.vm_time += now - vm.started_at;
            if vm.ready_at.is_none() {
                self.room.started();
            }
            self.room.give_back(site.pool.config, site.vms());
        }
        site.count_vms(now - self.begin);
        if !over.is_empty() {
            self.wake_starved();
        }
    }

    fn start(&mut self, index: usize, count: u32, now: Instant) {
        for _ in 0..count {
            let site = &mut self.sites[index];
            site.starved = !site.may_grow() || !self.room.take(site.pool.config, site.vms());
            if site.starved {
                break;
            }
            self.next_vm += 1;
            let id = VmId(self.next_vm);
            let view = VmView { id, phase: Phase::Starting, in_flight: 0, held: false, idle_since: now };
            let (slowness, latency) = (site.speeds.next(), Latency::default());
            site.pool.vms.push(SimVm { view, started_at: now, ready_at: None, slowness, latency });
            site.measures.starts += 1;
            let takes = site.draws.next();
            self.at(now + takes, index, Event::Ready(id));
        }
        self.sites[index].count_vms(now - self.begin);
    }

    pub(super) fn dispatch(&mut self, index: usize, now: Instant) {
        while let Some((waiting, vm)) = self.sites[index].pool.enter_queued() {
            self.serve(index, vm, waiting, now);
        }
    }

    /// The pools that found no room look again.
    pub(super) fn wake_starved(&mut self) {
        for (index, site) in self.sites.iter_mut().enumerate() {
            if std::mem::take(&mut site.starved) {
                self.passes.push_back(index);
            }
        }
    }
}
