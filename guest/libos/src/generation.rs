//! What this VM is until it becomes another (`weir_abi::boot`, "Generations").
//!
//! ```text
//!            ┌──────────── same generation: one load, nothing else ───────────┐
//!            ▼                                                                │
//!  boot ──> runs ──> PARK ──> renew ──┤                                       │
//!                                     └─ another one: clock goes on, random numbers anew,
//!                                        addresses anew, connections gone ────┘
//! ```
//!
//! Nothing outside of this file may keep what a generation changes: that is asked for each time (`vm_id`) or kept here.
//! All of this is on the way from a clone's start to its first response, where each page first touched costs 4 to
//! 12 us: so nothing is allocated, and no buffer is looked at.

use core::cell::{Cell, RefCell};

use weir_abi::BootInfo;

use crate::clock::{Clock, Instant};
use crate::net::ethernet::{LinkAddress, Receive, Transmit};
use crate::net::stack::{IpAddress, Stack};
use crate::random::Random;

/// Everything that belongs to one generation.
pub(crate) struct Generation<R, T> {
    number: Cell<u64>,
    clock: Cell<Clock>,
    random: RefCell<Random>,
    /// Comes with the first listener.
    pub(crate) network: RefCell<Option<Stack<R, T>>>,
}

impl<R: Receive, T: Transmit> Generation<R, T> {
    /// The first one.
    pub(crate) fn new(info: &BootInfo) -> Self {
        Self {
            number: Cell::new(info.generation),
            clock: Cell::new(Clock::new(info)),
            random: RefCell::new(Random::new(info)),
            network: RefCell::new(None),
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number.get()
    }

    /// Its clock.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.get()
    }

    /// Random numbers that no other generation of any VM has.
    pub(crate) fn fill_random(&self, bytes: &mut [u8]) {
        self.random.borrow_mut().fill(bytes);
    }

    /// Becomes the generation of `info`, which begins where another one ended, at `last`.
    pub(crate) fn renew(&self, info: &BootInfo, last: Instant) {
        self.number.set(info.generation);
        self.clock.set(Clock::from(info, last));
        *self.random.borrow_mut() = Random::new(info);
        if let Some(network) = self.network.borrow_mut().as_mut() {
            let (link, ip) = addresses(info);
            network.renew(link, ip, self.seed(), last);
        }
    }

    /// A seed for the network stack.
    pub(crate) fn seed(&self) -> u64 {
        let mut seed = [0; 8];
        self.fill_random(&mut seed);
        u64::from_le_bytes(seed)
    }
}

/// This VM's end of the link.
pub(crate) fn addresses(info: &BootInfo) -> (LinkAddress, IpAddress) {
    let link = LinkAddress { mac: info.mac, gateway_mac: info.gateway_mac, mtu: info.mtu };
    (link, IpAddress { address: info.address, prefix: info.prefix, gateway: info.gateway })
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU16;
    use core::time::Duration;

    use super::*;
    use crate::net::ethernet::Frame;

    struct Nowhere;

    impl Receive for Nowhere {
        fn peek(&mut self) -> Option<Frame<'_>> {
            None
        }
        fn release(&mut self) {}
    }

    impl Transmit for Nowhere {
        fn has_room(&mut self) -> bool {
            false
        }
        fn transmit<R>(
            &mut self,
            length: usize,
            _segment: Option<NonZeroU16>,
            fill: impl FnOnce(&mut [u8]) -> R,
        ) -> R {
            fill(&mut vec![0; length])
        }
    }

    #[test]
    fn a_change_takes_everything_anew_but_the_time_that_has_passed() {
        let first = BootInfo { generation: 7, tsc_hz: 1_000_000_000, entropy: [1; 64], ..BootInfo::new() };
        let generation = Generation::<Nowhere, Nowhere>::new(&first);
        let draw = || {
            let mut bytes = [0; 16];
            generation.fill_random(&mut bytes);
            bytes
        };
        let before = draw();
        let last = generation.clock().at(5000);
        // The counter has gone back, the wall clock has gone on, the number is smaller.
        let mut entropy = [1; 64];
        entropy[63] = 2;
        let second = BootInfo { generation: 3, tsc_base: 100, unix_nanos: 1_000_000, entropy, ..first };
        generation.renew(&second, last);
        assert_eq!(generation.number(), 3);
        assert_ne!(draw(), before);
        let now = generation.clock().at(150);
        assert_eq!(now.since(last), Duration::from_nanos(50));
        assert_eq!(generation.clock().unix(now), Duration::from_nanos(1_000_050));
    }
}
