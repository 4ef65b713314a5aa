//! One level of the queue: members that take turns, each with a backlog of its own.
//!
//! This is deficit round robin (M. Shreedhar and G. Varghese, "Efficient Fair Queuing using Deficit Round Robin", 1995)
//! with requests as the unit, each of which costs one: a member whose turn it is serves as many of its requests as its
//! quantum says, and then waits until all others had their turns. A member that runs empty is forgotten, and begins at
//! the end when it comes back, so that what is kept is never more than what waits.
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
    /// By load per quantum, then by turn.
    by_load: BTreeSet<(u64, u64)>,
    /// The number of the next turn.
    next: u64,
    load: u64,
}

#[derive(Debug)]
struct Member<B> {
    backlog: B,
    turn: u64,
    /// Requests that one turn serves, at least one.
    quantum: u32,
    /// Of them those that are left in this turn.
    left: u32,
    /// Its place in `by_load`.
    heaviness: u64,
}

impl<K, B> Default for Shares<K, B> {
    fn default() -> Self {
        let (members, turns, by_load) = (HashMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { members, turns, by_load, next: 0, load: 0 }
    }
}

impl<K: Clone + Eq + Hash, B: Backlog + Default> Shares<K, B> {
    /// Lets `key`, which may be new and has this `quantum`, put something into its backlog.
    pub(super) fn put(&mut self, key: &K, quantum: u32, put: impl FnOnce(&mut B)) {
        let next = &mut self.next;
        let (turns, by_load) = (&mut self.turns, &mut self.by_load);
        let member = self.members.entry(key.clone()).or_insert_with(|| {
            let turn = *next;
            *next += 1;
            turns.insert(turn, key.clone());
            by_load.insert((0, turn));
            let quantum = quantum.max(1);
            Member { backlog: B::default(), turn, quantum, left: quantum, heaviness: 0 }
        });
        let before = member.backlog.load();
        put(&mut member.backlog);
        self.load = self.load - before + member.backlog.load();
        let (turn, old, new) = (member.turn, member.heaviness, member.heaviness_now());
        member.heaviness = new;
        self.by_load.remove(&(old, turn));
        self.by_load.insert((new, turn));
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
            self.turns.remove(&member.turn);
            self.members.remove(key);
        } else {
            member.heaviness = member.heaviness_now();
            self.by_load.insert((member.heaviness, member.turn));
        }
        taken
    }

    /// `key` has been served once in its turn.
    fn served(&mut self, key: &K) {
        // Whoever is empty by now is gone, and has no turn.
        let Some(member) = self.members.get_mut(key) else { return };
        member.left -= 1;
        if member.left == 0 {
            member.left = member.quantum;
            self.turns.remove(&member.turn);
            self.by_load.remove(&(member.heaviness, member.turn));
            member.turn = self.next;
            self.next += 1;
            self.turns.insert(member.turn, key.clone());
            self.by_load.insert((member.heaviness, member.turn));
        }
    }
}

impl<B: Backlog> Member<B> {
    fn heaviness_now(&self) -> u64 {
        self.backlog.load() / u64::from(self.quantum)
    }
}

impl<K: Clone + Eq + Hash, B: Backlog + Default> Backlog for Shares<K, B> {
    type Path = (K, B::Path);
    type Item = B::Item;

    fn pop(&mut self) -> Option<B::Item> {
        let key = self.turns.first_key_value()?.1.clone();
        let item = self.take_from(&key, B::pop);
        self.served(&key);
        item
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
