//! One level of the queue: members that take turns, each with a backlog of its own.
//!
//! This is deficit round robin (M. Shreedhar and G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995)
//! with requests as the unit, all of the same price: the greatest weight of the members. In each of its turns a member
//! saves its weight, and has a request served when it can pay for it. So the heaviest is served in each of its turns, one
//! of half the weight in every other, and of members that are equally heavy none has two turns running, whatever their
//! weights are. A member that runs empty is forgotten with what it saved, and begins at the end when it comes back, so
//! that what is kept is never more than what waits.
//!
//! Each member's load is known too: who is heaviest has to make room when the queue is full.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

/// What a member's requests wait in: another level, or in the end a list.
pub(super) trait Backlog {
    /// How to find one of its requests.
    type Path;
    /// A request.
    type Item;

    /// The next one to be served.
    fn pop(&mut self) -> Option<Self::Item>;

    /// The newest one of its heaviest part; of several, that of the newcomer.
    fn shed(&mut self, newcomer: Option<&Self::Path>) -> Option<Self::Item>;

    /// A certain one, if it still waits.
    fn take(&mut self, path: &Self::Path) -> Option<Self::Item>;

    /// What waits in it takes so much of the queue.
    fn load(&self) -> u64;
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shares<K, B> {
    members: HashMap<K, Member<B>>,
    /// The first one has its turn.
    turns: BTreeMap<u64, K>,
    /// By load per weight, then by turn.
    by_load: BTreeSet<(u64, u64)>,
    /// How many members have a weight.
    weights: BTreeMap<u32, usize>,
    /// The number of the next turn.
    next: u64,
    load: u64,
}

#[derive(Debug)]
struct Member<B> {
    backlog: B,
    turn: u64,
    /// At least one.
    weight: u32,
    /// Always less than a request costs when it was saved.
    saved: u64,
    /// Its place in `by_load`.
    heaviness: u64,
}

impl<K, B> Default for Shares<K, B> {
    fn default() -> Self {
        let (members, turns, by_load) = (HashMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { members, turns, by_load, weights: BTreeMap::new(), next: 0, load: 0 }
    }
}

impl<K: Clone + Eq + Hash, B: Backlog + Default> Shares<K, B> {
    /// Lets `key`, which may be new and has this `weight` now, put something into its backlog.
    pub(super) fn put(&mut self, key: &K, weight: u32, put: impl FnOnce(&mut B)) {
        let weight = weight.max(1);
        if !self.members.contains_key(key) {
            let member = Member { backlog: B::default(), turn: self.next, weight, saved: 0, heaviness: 0 };
            self.turns.insert(member.turn, key.clone());
            self.by_load.insert((0, member.turn));
            self.weigh(weight);
            self.next += 1;
            self.members.insert(key.clone(), member);
        }
        let member = self.members.get_mut(key).expect("it was put in where it was missing");
        let former = std::mem::replace(&mut member.weight, weight);
        let before = member.backlog.load();
        put(&mut member.backlog);
        self.load = self.load - before + member.backlog.load();
        let (turn, old, new) = (member.turn, member.heaviness, member.heaviness_now());
        member.heaviness = new;
        self.by_load.remove(&(old, turn));
        self.by_load.insert((new, turn));
        if former != weight {
            self.weigh(weight);
            self.unweigh(former);
        }
    }

    /// Has each backlog say anew by `reweigh` what it takes of the queue.
    pub(super) fn reweigh(&mut self, mut reweigh: impl FnMut(&mut B)) {
        (self.load, self.by_load) = (0, BTreeSet::new());
        for member in self.members.values_mut() {
            reweigh(&mut member.backlog);
            member.heaviness = member.heaviness_now();
            self.load += member.backlog.load();
            self.by_load.insert((member.heaviness, member.turn));
        }
    }

    fn weigh(&mut self, weight: u32) {
        *self.weights.entry(weight).or_default() += 1;
    }

    fn unweigh(&mut self, weight: u32) {
        if let Some(count) = self.weights.get_mut(&weight) {
            *count -= 1;
            if *count == 0 {
                self.weights.remove(&weight);
            }
        }
    }

    /// What a request costs.
    fn price(&self) -> u64 {
        self.weights.last_key_value().map_or(1, |(heaviest, _)| u64::from(*heaviest))
    }

    /// Takes something out of `key`'s backlog, which is forgotten when it is empty.
    fn take_from<T>(&mut self, key: &K, take: impl FnOnce(&mut B) -> Option<T>) -> Option<T> {
        let member = self.members.get_mut(key)?;
        let before = member.backlog.load();
        let taken = take(&mut member.backlog);
        let after = member.backlog.load();
        self.load = self.load - before + after;
        self.by_load.remove(&(member.heaviness, member.turn));
        if after == 0 {
            let weight = member.weight;
            self.turns.remove(&member.turn);
            self.members.remove(key);
            self.unweigh(weight);
        } else {
            member.heaviness = member.heaviness_now();
            self.by_load.insert((member.heaviness, member.turn));
        }
        taken
    }

    /// `key` has had its turn. Whoever is empty by now is gone, and has no other.
    fn had_turn(&mut self, key: K) {
        let Some(member) = self.members.get_mut(&key) else { return };
        self.turns.remove(&member.turn);
        self.by_load.remove(&(member.heaviness, member.turn));
        member.turn = self.next;
        self.next += 1;
        self.by_load.insert((member.heaviness, member.turn));
        self.turns.insert(member.turn, key);
    }
}

impl<B: Backlog> Member<B> {
    fn heaviness_now(&self) -> u64 {
        self.backlog.load() / u64::from(self.weight)
    }
}

impl<K: Clone + Eq + Hash, B: Backlog + Default> Backlog for Shares<K, B> {
    type Path = (K, B::Path);
    type Item = B::Item;

    fn pop(&mut self) -> Option<B::Item> {
        // Within one round of turns, for the heaviest can always pay.
        loop {
            let key = self.turns.first_key_value()?.1.clone();
            let price = self.price();
            let member = self.members.get_mut(&key)?;
            // The price may have fallen since it began to save.
            let saved = member.saved.min(price - 1) + u64::from(member.weight);
            member.saved = saved % price;
            let item = if saved < price { None } else { self.take_from(&key, B::pop) };
            self.had_turn(key);
            if item.is_some() {
                return item;
            }
        }
    }

    fn shed(&mut self, newcomer: Option<&Self::Path>) -> Option<B::Item> {
        let (heaviness, turn) = self.by_load.last()?;
        let own =
            newcomer.filter(|(key, _)| self.members.get(key).is_some_and(|own| own.heaviness == *heaviness));
        match own {
            Some((key, path)) => self.take_from(key, |backlog| backlog.shed(Some(path))),
            None => {
                let key = self.turns.get(turn)?.clone();
                self.take_from(&key, |backlog| backlog.shed(None))
            }
        }
    }

    fn take(&mut self, (key, path): &Self::Path) -> Option<B::Item> {
        self.take_from(key, |backlog| backlog.take(path))
    }

    fn load(&self) -> u64 {
        self.load
    }
}
