//! Which requests are suspected of killing VMs, and from when on they are refused: pure, with the time passed in.
//!
//! ```text
//!              with a VM when it died            blame of `kills` VMs
//!  (unknown) ─────────────────────────> suspect ─────────────────────> refused
//!      ^                                   │                              │
//!      └── answered: half the blame, ──────┴── `duration` after the last ─┘
//!          at last none
//! ```
//!
//! A death is one VM's worth of blame, which those share that were with the VM. If there are suspects among them already,
//! they share it alone: what was there again and again is what does it. Innocent requests that are often in flight, and
//! so often there, are answered in between. Requests that were sent before their like was last blamed are not blamed once
//! more: VMs that die together, for whatever reason, are one event.
//!
//! The table is small and fixed. Who floods it with requests of which each kills one VM only displaces the less suspect,
//! and pays each place with a VM's life, which the pool's back-off paces.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;
use weir_config::model;

/// What of requests makes them the same, as a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

/// One VM's worth of blame.
const KILL: u32 = 1000;
/// Requests that are remembered.
const CAPACITY: usize = 1024;

/// A request that was with a VM when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    pub(crate) fingerprint: Fingerprint,
    /// Deaths that had been judged when it was sent.
    pub(crate) sent_after: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Table {
    entries: HashMap<Fingerprint, Entry>,
    /// Deaths that have been judged.
    judged: u64,
    config: model::Quarantine,
}

#[derive(Debug)]
struct Entry {
    /// In thousandths of a VM.
    blame: u32,
    /// When it was last blamed.
    at: Instant,
    /// How many deaths had been judged then, that one included.
    judged: u64,
}

impl Table {
    pub(super) fn new(config: model::Quarantine) -> Self {
        Self { entries: HashMap::new(), judged: 0, config }
    }

    pub(super) fn configure(&mut self, config: &model::Quarantine) {
        self.config = config.clone();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn judged(&self) -> u64 {
        self.judged
    }

    /// A VM died that these requests were with.
    pub(super) fn judge(&mut self, suspects: &[Suspect], now: Instant) {
        self.expire(now);
        // Of those that are the same the one that was sent last.
        let mut there = BTreeMap::new();
        for Suspect { fingerprint, sent_after } in suspects {
            let last = there.entry(*fingerprint).or_insert(*sent_after);
            *last = (*last).max(*sent_after);
        }
        if there.is_empty() {
            return;
        }
        if there.keys().any(|one| self.entries.contains_key(one)) {
            there.retain(|one, _| self.entries.contains_key(one));
        }
        self.judged += 1;
        let share = KILL / u32::try_from(there.len()).unwrap_or(u32::MAX);
        for (fingerprint, sent_after) in there {
            let judged_before = self.entries.get(&fingerprint).map_or(0, |entry| entry.judged);
            if sent_after >= judged_before {
                self.blame(fingerprint, share.max(1), now);
            }
        }
    }

    fn blame(&mut self, fingerprint: Fingerprint, share: u32, now: Instant) {
        let judged = self.judged;
        if let Some(entry) = self.entries.get_mut(&fingerprint) {
            *entry = Entry { blame: entry.blame.saturating_add(share), at: now, judged };
        } else if self.make_room(share) {
            self.entries.insert(fingerprint, Entry { blame: share, at: now, judged });
        }
    }

    /// Room for one with so much blame: if need be the least suspect goes, the oldest first, unless all are more so.
    fn make_room(&mut self, blame: u32) -> bool {
        if self.entries.len() < CAPACITY {
            return true;
        }
        let least = self.entries.iter().min_by_key(|(_, entry)| (entry.blame, entry.at));
        match least.filter(|(_, entry)| entry.blame <= blame).map(|(fingerprint, _)| *fingerprint) {
            Some(least) => self.entries.remove(&least).is_some(),
            None => false,
        }
    }

    /// Until when such requests are refused, if they are.
    pub(super) fn refused_until(&self, fingerprint: Fingerprint, now: Instant) -> Option<Instant> {
        let entry = self.entries.get(&fingerprint).filter(|entry| self.is_refused(entry))?;
        Some(entry.at + self.config.duration).filter(|until| now < *until)
    }

    /// Such a request was answered, and its VM lives.
    pub(super) fn acquit(&mut self, fingerprint: Fingerprint) {
        let Some(entry) = self.entries.get(&fingerprint).filter(|entry| !self.is_refused(entry)) else {
            return;
        };
        let blame = entry.blame / 2;
        if blame == 0 {
            self.entries.remove(&fingerprint);
        } else if let Some(entry) = self.entries.get_mut(&fingerprint) {
            entry.blame = blame;
        }
    }

    /// Forgets whom nothing has been blamed on for long.
    pub(super) fn expire(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.at + self.config.duration);
    }

    fn is_refused(&self, entry: &Entry) -> bool {
        entry.blame >= self.config.kills.saturating_mul(KILL)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const KILLER: Fingerprint = Fingerprint(0);
    const SECOND: Duration = Duration::from_secs(1);

    fn table(kills: u32) -> Table {
        Table::new(model::Quarantine { kills, duration: 60 * SECOND })
    }

    /// A VM died with these, sent just now.
    fn death(table: &mut Table, with: impl IntoIterator<Item = u64>, now: Instant) {
        let sent_after = table.judged();
        let suspects: Vec<_> =
            with.into_iter().map(|id| Suspect { fingerprint: Fingerprint(id), sent_after }).collect();
        table.judge(&suspects, now);
    }

    fn refused(table: &Table, id: u64, now: Instant) -> bool {
        table.refused_until(Fingerprint(id), now).is_some()
    }

    #[test]
    fn alone_with_as_many_deaths_as_configured_it_is_refused_for_the_duration() {
        let (mut table, now) = (table(2), Instant::now());
        death(&mut table, [0], now);
        assert!(!refused(&table, 0, now));
        death(&mut table, [0], now + SECOND);
        assert_eq!(table.refused_until(KILLER, now + SECOND), Some(now + 61 * SECOND));
        table.acquit(KILLER);
        assert!(refused(&table, 0, now + 60 * SECOND), "one sent before does not clear it");
        assert!(!refused(&table, 0, now + 61 * SECOND));
        table.expire(now + 61 * SECOND);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn in_a_crowd_it_is_found_with_one_death_more() {
        let (mut table, now) = (table(2), Instant::now());
        for round in 0..3 {
            assert!(!refused(&table, 0, now), "{round}");
            death(&mut table, (0..1).chain(100 * round + 1..100 * round + 64), now);
            // The others go on as before.
            (1..500).for_each(|id| (0..10).for_each(|_| table.acquit(Fingerprint(id))));
        }
        assert!(refused(&table, 0, now));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn deaths_together_count_once() {
        let (mut table, now) = (table(2), Instant::now());
        for _ in 0..10 {
            table.judge(&[Suspect { fingerprint: KILLER, sent_after: 0 }], now);
        }
        assert!(!refused(&table, 0, now));
        death(&mut table, [0], now);
        assert!(refused(&table, 0, now));
    }

    #[test]
    fn the_least_suspect_make_room_and_nobody_else() {
        let (mut table, now) = (table(2), Instant::now());
        death(&mut table, [0], now);
        death(&mut table, [0], now);
        (1..5000).for_each(|id| death(&mut table, [id], now));
        assert_eq!(table.len(), CAPACITY);
        assert!(refused(&table, 0, now));
        death(&mut table, 5000..6000, now);
        assert!(!table.entries.contains_key(&Fingerprint(5000)), "less suspect than all");
    }

    proptest! {
        /// Whoever else is there: the killer is refused after as many deaths as configured, or one more if it shared the
        /// first; nobody is who is answered between two deaths, unless one death is enough; and all is forgotten in the end.
        #[test]
        fn the_guilty_are_found_and_the_innocent_spared(
            deaths in proptest::collection::vec(proptest::collection::btree_set(1..40u64, 0..20), 1..40),
            kills in 1..6u32,
        ) {
            let (mut table, mut now) = (table(kills), Instant::now());
            let mut with_killer = 0;
            for bystanders in &deaths {
                now += SECOND / 10;
                let killer = (!refused(&table, 0, now)).then_some(0);
                with_killer += u32::from(killer.is_some());
                death(&mut table, killer.into_iter().chain(bystanders.iter().copied()), now);
                for innocent in bystanders {
                    prop_assert!(kills == 1 || !refused(&table, *innocent, now));
                    (0..10).for_each(|_| table.acquit(Fingerprint(*innocent)));
                }
                prop_assert!(table.len() <= CAPACITY);
                prop_assert!(with_killer >= kills || !refused(&table, 0, now));
                prop_assert!(with_killer <= kills || refused(&table, 0, now));
                prop_assert!(!refused(&table, 99, now), "who was never there");
            }
            table.expire(now + 60 * SECOND);
            prop_assert_eq!(table.len(), 0);
        }
    }
}
