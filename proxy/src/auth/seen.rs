//! Credentials that have proved to be right.

use std::fmt;
use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;

/// How many are remembered; the one that was not used for longest goes first.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// What came of credentials, by a keyed hash of them.
pub(super) struct Seen<T> {
    key: hmac::Key,
    entries: Mutex<LruCache<Digest, T>>,
}

/// Stands for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

impl<T: Clone> Seen<T> {
    pub(super) fn new() -> Self {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.expect("the system has randomness once it runs");
        Self { key, entries: Mutex::new(LruCache::new(MOST)) }
    }

    /// Of credentials with these parts.
    pub(super) fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // The lengths keep `ab`, `c` from being `a`, `bc`.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        Digest(digest)
    }

    pub(super) fn get(&self, credentials: Digest) -> Option<T> {
        self.entries.lock().get(&credentials).cloned()
    }

    pub(super) fn put(&self, credentials: Digest, found: T) {
        self.entries.lock().put(credentials, found);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

impl Digest {
    /// A number that is the same for the same credentials, and that nobody can foresee.
    pub(super) fn number(self) -> u64 {
        self.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// It is about secrets.
impl<T> fmt::Debug for Seen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_parts_are_told_apart() {
        let seen = Seen::new();
        for number in 0..MOST.get() as u64 + 100 {
            seen.put(seen.digest(&[&number.to_be_bytes()]), number);
        }
        assert_eq!(seen.len(), MOST.get());
        assert_eq!(seen.get(seen.digest(&[&0_u64.to_be_bytes()])), None);
        assert_eq!(seen.get(seen.digest(&[&100_u64.to_be_bytes()])), Some(100));
        seen.put(seen.digest(&[b"ab", b"c"]), 1);
        assert_eq!(seen.get(seen.digest(&[b"a", b"bc"])), None);
        let other = Seen::<u64>::new();
        assert_ne!(seen.digest(&[b"x"]).number(), other.digest(&[b"x"]).number());
    }
}
