//! Sets that lie within each other or apart: prefixes of strings, networks of addresses.

/// Keys, each with its values. In order (a set before those within it) the last key that is not behind a thing is one that
/// has it or lies within every one that has: the others are found by going outwards.
#[derive(Debug)]
pub(super) struct Nested<K> {
    entries: Box<[Entry<K>]>,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    values: Vec<u32>,
    /// The smallest set that it lies in.
    outer: Option<usize>,
}

impl<K: Ord> Nested<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `has` says whether the first lies in the second.
    pub(super) fn new(mut keys: Vec<(K, u32)>, is_within: impl Fn(&K, &K) -> bool) -> Self {
        keys.sort();
        let mut entries: Vec<Entry<K>> = Vec::new();
        for (key, value) in keys {
            if let Some(last) = entries.last_mut().filter(|last| last.key == key) {
                last.values.push(value);
                continue;
            }
            let mut outer = entries.len().checked_sub(1);
            while let Some(index) = outer.filter(|index| !is_within(&key, &entries[*index].key)) {
                outer = entries[index].outer;
            }
            entries.push(Entry { key, values: vec![value], outer });
        }
        Self { entries: entries.into() }
    }

    /// Calls `found` with the values of all keys that have a thing. `is_before`: whether a key is not behind it in their
    /// order.
    pub(super) fn find(
        &self,
        is_before: impl Fn(&K) -> bool,
        has: impl Fn(&K) -> bool,
        mut found: impl FnMut(&[u32]),
    ) {
        let mut next = self.entries.partition_point(|entry| is_before(&entry.key)).checked_sub(1);
        while let Some(index) = next {
            let entry = &self.entries[index];
            if has(&entry.key) {
                found(&entry.values);
            }
            next = entry.outer;
        }
    }
}
