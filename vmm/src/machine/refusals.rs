//! KVM_RUN that answers EAGAIN.
//!
//! KVM asks to be called again while something of its own is missing. That passes, or it does not: a process at its
//! RLIMIT_NPROC never gets the helper task that newer kernels start at the first KVM_RUN, and would ask for ever.

use crate::event::ExitReason;

/// More of them in a row than any passing lack was seen to take.
const MOST: u32 = 1000;

/// How often in a row KVM has refused.
#[derive(Debug, Default)]
pub(crate) struct Refusals(u32);

impl Refusals {
    /// KVM refused once more.
    pub(crate) fn again(&mut self) -> Result<(), ExitReason> {
        self.0 += 1;
        if self.0 < MOST {
            return Ok(());
        }
        let text = "run guest: KVM lacks a resource for good (EAGAIN); is the user at its process limit (ulimit -u)?";
        Err(ExitReason::Host(text.to_owned()))
    }

    /// The guest ran.
    pub(crate) fn over(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_in_a_row_end_the_vm() {
        let mut refusals = Refusals::default();
        for _ in 0..2 * MOST {
            assert_eq!(refusals.again(), Ok(()));
            refusals.over();
        }
        let in_a_row = (0..MOST).map(|_| refusals.again()).position(|result| result.is_err());
        assert_eq!(in_a_row, Some(MOST as usize - 1));
    }
}
