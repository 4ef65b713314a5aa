//! `route.pools`: several pools that a route's requests are divided among.

use crate::key::{Located, Place};
use crate::model::Share;
use crate::reader::Reader;
use crate::values::{integer, string};

/// A route has no more pools.
const POOLS: usize = 64;

/// `route.pools` as far as it is valid.
pub(crate) struct SplitSection {
    /// Of its first entry.
    pub(crate) place: Place,
    /// `None`: invalid.
    shares: Vec<Option<ShareSection>>,
}

struct ShareSection {
    pool: Located<String>,
    weight: u32,
}

/// `None`: it is no array of tables. `Some(None)`: left out, or empty.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Option<SplitSection>> {
    let mut first = None;
    let shares = table.tables("pools", |table| {
        first.get_or_insert_with(|| table.place().clone());
        let pool = table.read("pool", string).required();
        let weight = table.read("weight", integer(0..=10_000)).required();
        Some(ShareSection { pool: pool?, weight: weight?.value })
    })?;
    let Some(place) = first else { return Some(None) };
    let section = SplitSection { place, shares };
    section.check(table);
    Some(Some(section))
}

impl SplitSection {
    fn check(&self, table: &Reader<'_>) {
        if self.shares.len() > POOLS {
            let message = format!("a route has at most {POOLS} pools, this one has {}", self.shares.len());
            table.sink().report(&self.place, message);
        }
        let valid: Vec<_> = self.shares.iter().flatten().collect();
        for (index, share) in valid.iter().enumerate() {
            if valid[..index].iter().any(|before| before.pool.value == share.pool.value) {
                table.sink().report(&share.pool.place, format!("names {:?} again", share.pool.value));
            }
        }
        if valid.len() == self.shares.len() && valid.iter().all(|share| share.weight == 0) {
            table.sink().report(&self.place, "at least one pool needs a weight that is not 0");
        }
    }

    /// The names of its pools.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Located<String>> {
        self.shares.iter().flatten().map(|share| &share.pool)
    }

    pub(crate) fn into_shares(self) -> Option<Vec<Share>> {
        let shares = self.shares.into_iter();
        shares.map(|share| share.map(|s| Share { pool: s.pool.value, weight: s.weight })).collect()
    }
}
