//! Time from the time-stamp counter: reading it costs no exit.

use core::ops::{Add, Sub};
use core::time::Duration;

use weir_abi::BootInfo;

/// Turns counter values into time. One per generation of the VM.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: u64,
    /// The instant at `base`.
    origin: Instant,
    unix_nanos: u64,
    /// Nanoseconds per tick, as a 32.32 fixed-point number.
    scale: u64,
}

/// A point in time since the boot of the first generation, nanoseconds, without the time that the VM spent frozen.
/// Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Clock {
    /// The clock of the first generation.
    pub fn new(info: &BootInfo) -> Self {
        Self::from(info, Instant(0))
    }

    /// The clock of a generation that begins with `info` where another one ended, at `origin`: whatever the counter
    /// did meanwhile, instants go on from there.
    pub fn from(info: &BootInfo, origin: Instant) -> Self {
        let scale = (1_000_000_000u128 << 32) / u128::from(info.tsc_hz.max(1));
        Self {
            base: info.tsc_base,
            origin,
            unix_nanos: info.unix_nanos,
            scale: u64::try_from(scale).unwrap_or(u64::MAX),
        }
    }

    /// The instant at which the counter stood at `ticks`.
    pub fn at(&self, ticks: u64) -> Instant {
        let nanos = (u128::from(ticks.saturating_sub(self.base)) * u128::from(self.scale)) >> 32;
        self.origin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Time since 1970 at `instant`, one of this generation.
    pub fn unix(&self, instant: Instant) -> Duration {
        Duration::from_nanos(self.unix_nanos.saturating_add(instant.0.saturating_sub(self.origin.0)))
    }
}

/// The time-stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: `rdtsc` has no effect but its result, and the VMM leaves it enabled in ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}

impl Instant {
    /// Nanoseconds since boot.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The instant `nanos` after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How long after `earlier` this is; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_without_overflow() {
        let clock =
            Clock::new(&BootInfo { tsc_hz: 2_500_000_000, tsc_base: 1000, unix_nanos: 5, ..BootInfo::new() });
        assert_eq!(clock.at(0), Instant(0));
        let second = clock.at(1000 + 2_500_000_000).nanos();
        assert!((999_999_990..=1_000_000_000).contains(&second), "{second}");
        assert!(clock.at(u64::MAX) > clock.at(u64::MAX / 2));
        assert_eq!(clock.unix(Instant(7)), Duration::from_nanos(12));
        assert_eq!((Instant(1) + Duration::MAX).nanos(), u64::MAX);
    }

    #[test]
    fn a_new_generation_goes_on_where_the_last_one_ended() {
        let first = Clock::new(&BootInfo {
            tsc_hz: 1_000_000_000,
            tsc_base: 1000,
            unix_nanos: 70,
            ..BootInfo::new()
        });
        let last = first.at(6000);
        // Restored a day later on a host that booted since, with another clock rate.
        let info =
            BootInfo { tsc_hz: 2_000_000_000, tsc_base: 10, unix_nanos: 86_400_000, ..BootInfo::new() };
        let second = Clock::from(&info, last);
        assert_eq!((second.at(0), second.at(10), second.at(410)), (last, last, Instant(5200)));
        assert_eq!(second.unix(last), Duration::from_nanos(86_400_000));
        assert_eq!(second.unix(second.at(410)), Duration::from_nanos(86_400_200));
    }
}
