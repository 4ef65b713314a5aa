//! For how long a pool's last VM is kept, by when requests came back to it.
//!
//! One timeout for all is too long for a pool that is used twice a day, and too short for one that has a user each minute.
//! Shahrad et al. ("Serverless in the Wild", USENIX ATC 2020) keep by a histogram of a function's pauses. That needs many
//! of them; where requests come at random, as from people, an account does:
//!
//! ```text
//!  pause  ├── idle_timeout ──┤─────────────────── keep_last ───┤
//!           proves nothing     pays PRICE, costs its time        costs keep_last's time
//! ```
//!
//! A request that comes back between `idle_timeout` and `keep_last`, be the VM still there or not, pays for half of
//! `keep_last`; the time until then is what it costs to have kept it. What is left beyond the first payment, by which a
//! pool only shows that requests come back, is for how much longer the last VM is kept. So all the time in which VMs are
//! kept for longer is at most half of `keep_last` for each request that came back. `docs/SIMULATOR.md` has what it saves.
//!
//! When a pool was used is seen at its looks: each thirtieth of `panic_window` after demand, each `idle_timeout` while a VM
//! is kept for longer. Of several requests in between only the last is seen.

use std::time::Duration;

use tokio::time::Instant;

use super::{Limits, Phase, VmView};

/// What a request that comes back pays for: this part of `keep_last`.
const PRICE: u32 = 2;

/// One pool's account.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAlive {
    used_until: Option<Instant>,
    paid: Duration,
}

impl KeepAlive {
    /// How long the last of these VMs may be idle; `demand` is that of now. Calls are in the order of time.
    pub fn observe(&mut self, limits: &Limits, demand: u64, vms: &[VmView], now: Instant) -> Duration {
        let longest = limits.keep_last.saturating_sub(limits.idle_timeout);
        let price = limits.keep_last / PRICE;
        let ready = vms.iter().filter(|vm| vm.phase == Phase::Ready);
        let used_until = if demand > 0 { Some(now) } else { ready.map(|vm| vm.idle_since).max() };
        if let (Some(before), Some(until)) = (self.used_until, used_until) {
            let pause = until.saturating_duration_since(before).saturating_sub(limits.idle_timeout);
            let pays = if pause.is_zero() || pause > longest { Duration::ZERO } else { price };
            self.paid = self.paid.saturating_add(pays).saturating_sub(pause.min(longest));
        }
        self.used_until = self.used_until.max(used_until);
        self.paid = self.paid.min(price.saturating_add(longest));
        limits.idle_timeout.saturating_add(self.paid.saturating_sub(price))
    }
}

#[cfg(test)]
mod tests;
