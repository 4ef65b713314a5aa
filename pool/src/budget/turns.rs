//! Whose turn it is to start a VM.
//!
//! So many starts are under way at once that the host can bear, and no more: a thousand that share two processors come
//! up no sooner than one after the other, but all of them late. Pools that have to wait take turns by their weights
//! (stride scheduling: Waldspurger and Weihl, 1995), however many starts each of them wants: who wants one is served
//! after one turn of the others.

/// The distance that a start takes a pool of weight one.
const STRIDE: u64 = 1 << 20;

/// Starts under way, and who waits for one.
#[derive(Debug)]
pub(super) struct Turns {
    max: u32,
    /// Started and not READY yet, or granted to somebody who has not come for it yet.
    busy: u32,
    /// How far the last one was that had a turn.
    passed: u64,
    pools: Vec<Waiting>,
}

/// A pool's.
#[derive(Debug)]
struct Waiting {
    /// Distance per start.
    stride: u64,
    /// Where its next turn is.
    pass: u64,
    wants: u32,
    granted: u32,
}

impl Turns {
    pub(super) fn new(max: u32) -> Self {
        Self { max: max.max(1), busy: 0, passed: 0, pools: Vec::new() }
    }

    /// `pool`, one more or one that wants nothing any more, is one of this weight.
    pub(super) fn add(&mut self, pool: usize, weight: u32) {
        let waiting = Waiting { stride: stride(weight), pass: 0, wants: 0, granted: 0 };
        match self.pools.get_mut(pool) {
            Some(place) => *place = waiting,
            None => self.pools.push(waiting),
        }
    }

    /// `pool` has this weight from now on.
    pub(super) fn set_weight(&mut self, pool: usize, weight: u32) {
        self.pools[pool].stride = stride(weight);
    }

    /// So many starts may be under way at once. Those that are go on.
    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max.max(1);
    }

    /// `pool` wants to start so many in all, now; how many it may. For the rest it waits.
    pub(super) fn take(&mut self, pool: usize, wants: u32) -> u32 {
        let granted = std::mem::take(&mut self.pools[pool].granted);
        let mut taken = granted.min(wants);
        self.busy -= granted - taken;
        self.pools[pool].wants = wants - taken;
        // Nobody waits while there are turns left, but for one moment: after some were just given back.
        while self.pools[pool].wants > 0 && self.next() == Some(pool) {
            self.grant(pool);
            taken += 1;
        }
        self.pools[pool].granted = 0;
        taken
    }

    /// A start is not under way any more.
    pub(super) fn done(&mut self) {
        self.busy -= 1;
    }

    /// Gives a turn to whoever is next, if there is one: who has to be told.
    pub(super) fn grant_next(&mut self) -> Option<usize> {
        let pool = self.next()?;
        self.grant(pool);
        Some(pool)
    }

    /// Starts that `pool` waits for.
    pub(super) fn waiting(&self, pool: usize) -> u32 {
        self.pools[pool].wants
    }

    fn next(&self) -> Option<usize> {
        if self.busy >= self.max {
            return None;
        }
        let waiting = self.pools.iter().enumerate().filter(|(_, pool)| pool.wants > 0);
        waiting.min_by_key(|(index, pool)| (pool.pass.max(self.passed), *index)).map(|(index, _)| index)
    }

    fn grant(&mut self, index: usize) {
        let pool = &mut self.pools[index];
        // Who did not want any had no turn to save.
        let pass = pool.pass.max(self.passed);
        self.passed = pass;
        pool.pass = pass + pool.stride;
        pool.wants -= 1;
        pool.granted += 1;
        self.busy += 1;
    }
}

fn stride(weight: u32) -> u64 {
    STRIDE / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(max: u32, weights: impl IntoIterator<Item = u32>) -> Turns {
        let mut turns = Turns::new(max);
        weights.into_iter().enumerate().for_each(|(pool, weight)| turns.add(pool, weight));
        turns
    }

    #[test]
    fn nobody_waits_below_the_cap() {
        let mut turns = of(4, [1, 1]);
        assert_eq!((turns.take(0, 3), turns.take(1, 1)), (3, 1));
        assert_eq!((turns.take(1, 2), turns.waiting(1)), (0, 2));
        turns.done();
        assert_eq!((turns.grant_next(), turns.grant_next()), (Some(1), None));
        assert_eq!((turns.take(1, 2), turns.waiting(1)), (1, 1));
    }

    #[test]
    fn who_wants_one_is_next_after_who_wants_a_thousand() {
        let mut turns = of(16, [1, 1]);
        assert_eq!(turns.take(0, 1000), 16);
        assert_eq!(turns.take(1, 1), 0);
        turns.done();
        assert_eq!(turns.grant_next(), Some(1));
    }

    #[test]
    fn a_turn_that_is_not_wanted_any_more_goes_to_the_next() {
        let mut turns = of(1, [1, 1, 1]);
        assert_eq!([turns.take(0, 1), turns.take(1, 1), turns.take(2, 1)], [1, 0, 0]);
        turns.done();
        assert_eq!(turns.grant_next(), Some(1));
        assert_eq!((turns.take(1, 0), turns.grant_next()), (0, Some(2)));
    }

    #[test]
    fn turns_are_in_proportion_to_weights() {
        let mut turns = of(1, [1, 3]);
        let mut had = [0, 0];
        for _ in 0..400 {
            for pool in [0, 1] {
                had[pool] += turns.take(pool, 1000);
            }
            turns.done();
            if let Some(next) = turns.grant_next() {
                had[next] += turns.take(next, 1000);
            }
        }
        assert!((98..=102).contains(&had[0]) && (298..=302).contains(&had[1]), "{had:?}");
    }

    proptest! {
        #[test]
        fn never_more_than_the_cap_and_never_idle_while_somebody_waits(
            max in 1..5u32,
            weights in proptest::collection::vec(1..1000u32, 1..5),
            steps in proptest::collection::vec((0..5usize, 0..9u32, any::<bool>()), 0..120),
        ) {
            let mut turns = of(max, weights.iter().copied());
            let mut under_way = 0;
            for (pool, wants, ends) in steps {
                if ends && under_way > 0 {
                    turns.done();
                    under_way -= 1;
                } else {
                    let taken = turns.take(pool % weights.len(), wants);
                    prop_assert!(taken <= wants);
                    under_way += taken;
                }
                while turns.grant_next().is_some() {}
                let granted: u32 = turns.pools.iter().map(|pool| pool.granted).sum();
                prop_assert_eq!(under_way + granted, turns.busy);
                prop_assert!(turns.busy <= max);
                prop_assert!(turns.busy == max || turns.pools.iter().all(|pool| pool.wants == 0));
            }
        }
    }
}
