//! The device status register (virtio 1.2, sections 2.1 and 3.1.1).
//!
//! ```text
//!          ACKNOWLEDGE      DRIVER          FEATURES_OK             DRIVER_OK
//! reset ──────────────> · ─────────> · ────────────────────> · ───────────────> live
//!   ^                                 └ refused: bit stays 0  └ queues are set up here
//!   └── write 0, from everywhere, also from DEVICE_NEEDS_RESET, which any step out of order leads to
//! ```

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
};

/// The steps, in the order in which a driver must take them.
const STEPS: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];

/// The register's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status(u32);

/// What the transport must do about a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Nothing.
    None,
    /// The driver reset the device.
    Reset,
    /// DRIVER_OK was just set.
    Activate,
    /// DEVICE_NEEDS_RESET was just set.
    NeedsReset,
}

impl Status {
    /// The status with the register `bits`, if a driver can have led a device there that called its features
    /// `acceptable`.
    pub(super) fn reached(bits: u32, acceptable: bool) -> Option<Self> {
        let mut status = Self::default();
        for step in STEPS.into_iter().chain([FAILED]).filter(|step| bits & step != 0) {
            status.write(status.0 | step, acceptable);
        }
        if bits & NEEDS_RESET != 0 {
            status.needs_reset();
        }
        (status.0 == bits).then_some(status)
    }

    /// Whether the register `bits` says that features are agreed on.
    pub(super) fn agreed(bits: u32) -> bool {
        bits & FEATURES_OK != 0
    }

    /// The register as the driver reads it.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The driver is a driver, and features can still be chosen.
    pub(super) fn negotiating(self) -> bool {
        self.0 & (DRIVER | FEATURES_OK | FAILED | NEEDS_RESET) == DRIVER
    }

    /// Features are agreed on, and queues can be set up.
    pub(super) fn configuring(self) -> bool {
        self.0 & (FEATURES_OK | DRIVER_OK | FAILED | NEEDS_RESET) == FEATURES_OK
    }

    /// The device may touch its queues.
    pub(super) fn live(self) -> bool {
        self.0 & (DRIVER_OK | FAILED | NEEDS_RESET) == DRIVER_OK
    }

    /// The driver writes `value`; `acceptable` tells whether the features that it has chosen are.
    pub(super) fn write(&mut self, value: u32, acceptable: bool) -> Transition {
        if value == 0 {
            self.0 = 0;
            return Transition::Reset;
        }
        let old = self.0;
        let value = value & (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        let clears = old & !NEEDS_RESET & !value != 0;
        if clears || old & NEEDS_RESET != 0 {
            return self.needs_reset();
        }
        let refused = value & !old & FEATURES_OK != 0 && !acceptable;
        let value = if refused { value & !FEATURES_OK } else { value };
        if !in_order(value) {
            return self.needs_reset();
        }
        self.0 = value;
        if value & !old & DRIVER_OK != 0 && value & FAILED == 0 {
            Transition::Activate
        } else {
            Transition::None
        }
    }

    /// The device gives up until it is reset.
    pub(super) fn needs_reset(&mut self) -> Transition {
        let before = self.0;
        self.0 |= NEEDS_RESET;
        if before == self.0 { Transition::None } else { Transition::NeedsReset }
    }
}

/// No step is set without all those before it.
fn in_order(value: u32) -> bool {
    STEPS.is_sorted_by_key(|step| value & step == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(writes: &[u32]) -> Status {
        let mut status = Status::default();
        for write in writes {
            status.write(*write, true);
        }
        status
    }

    #[test]
    fn steps_in_order_lead_to_a_live_device() {
        let mut status = Status::default();
        assert_eq!(status.write(ACKNOWLEDGE, true), Transition::None);
        assert_eq!(status.write(ACKNOWLEDGE | DRIVER, true), Transition::None);
        assert!(status.negotiating());
        assert_eq!(status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK, true), Transition::None);
        assert!(status.configuring() && !status.negotiating() && !status.live());
        assert_eq!(status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, true), Transition::Activate);
        assert!(status.live() && !status.configuring());
        assert_eq!(status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, true), Transition::None);
    }

    #[test]
    fn refused_features_leave_the_bit_clear_and_the_driver_may_try_again() {
        let mut status = after(&[ACKNOWLEDGE | DRIVER]);
        assert_eq!(status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK, false), Transition::None);
        assert_eq!(status.bits(), ACKNOWLEDGE | DRIVER);
        status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK, true);
        assert!(status.configuring());
    }

    #[test]
    fn a_step_out_of_order_or_a_cleared_bit_needs_a_reset() {
        let writes: [&[u32]; 6] = [
            &[DRIVER],
            &[DRIVER_OK],
            &[ACKNOWLEDGE, ACKNOWLEDGE | FEATURES_OK],
            &[ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | DRIVER_OK],
            &[ACKNOWLEDGE | DRIVER, DRIVER],
            &[ACKNOWLEDGE | DRIVER, 0x30],
        ];
        for writes in writes {
            let mut status = after(writes);
            assert!(status.bits() & NEEDS_RESET != 0, "{writes:x?}");
            assert_eq!(status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, true), Transition::None);
            assert!(!status.live() && !status.negotiating() && !status.configuring());
            assert_eq!(status.write(0, true), Transition::Reset);
            assert_eq!(status.bits(), 0);
        }
    }

    #[test]
    fn a_driver_that_gave_up_stops_the_device() {
        let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        assert!(!after(&[all, all | FAILED]).live());
        assert!(!after(&[all | FAILED]).live());
    }
}
