//! Which of a route's pools a request goes to, by chance.

/// Weights, added up.
#[derive(Debug)]
pub(crate) struct Split {
    /// For each pool the sum of the weights up to and with its own.
    ends: Box<[u64]>,
    total: u64,
}

impl Split {
    /// `None`: there is nothing to choose from, since no weight is more than 0.
    pub(crate) fn new(weights: &[u32]) -> Option<Self> {
        let ends = weights.iter().scan(0, |sum, weight| {
            *sum += u64::from(*weight);
            Some(*sum)
        });
        let ends: Box<[u64]> = ends.collect();
        let total = ends.last().copied().filter(|total| *total > 0)?;
        Some(Self { ends, total })
    }

    /// The place of one, for a `random` number that is uniform.
    pub(crate) fn choose(&self, random: u32) -> usize {
        // The total is below 2^20, so that the product fits, and its upper part is as good as uniform.
        let point = (self.total * u64::from(random)) >> 32;
        self.ends.partition_point(|end| *end <= point)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_has_its_part(weights in proptest::collection::vec(0..=20u32, 1..8)) {
            let total: u32 = weights.iter().sum();
            let Some(split) = Split::new(&weights) else {
                prop_assert_eq!(total, 0);
                return Ok(());
            };
            // As many equally distant numbers as there are units of weight: each unit gets one.
            let mut counts = vec![0; weights.len()];
            for unit in 0..total {
                let random = (u64::from(unit) << 32).div_ceil(u64::from(total));
                counts[split.choose(u32::try_from(random).unwrap())] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn who_has_no_weight_is_not_chosen(
            weights in proptest::collection::vec(prop_oneof![Just(0), 0..=10_000u32], 1..65),
            random: u32,
        ) {
            for random in [random, 0, u32::MAX] {
                let chosen = Split::new(&weights).map(|split| split.choose(random));
                prop_assert_eq!(chosen.is_some(), weights.iter().any(|weight| *weight > 0));
                prop_assert!(chosen.is_none_or(|chosen| weights[chosen] > 0));
            }
        }
    }
}
