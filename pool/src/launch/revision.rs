//! What VMs of a pool are made from: an image and, where it has one, the template that was made of it.
//!
//! ```text
//!  current <------------- settle(next) ------------- next
//!     |                                               ^  |
//!     | settle: stays                                 |  | settle(current): given up
//!     v                                    prepare ---+  v
//!  current                                             (none)
//! ```
//!
//! While a rollout is under way VMs start from both; otherwise there is one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::RwLock;
use tokio::sync::Notify;
use weir_config::model::Pool;

use super::template::Template;
use crate::launcher::Revision;

/// How much of two images is compared at a time, bytes.
const BLOCK: usize = 64 * 1024;

/// An image in sealed memory.
#[derive(Debug)]
pub(super) struct Image(File);

/// One revision.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) revision: Revision,
    /// What its VMs are made from, besides the image's bytes.
    pub(super) pool: Arc<Pool>,
    pub(super) image: Arc<Image>,
    /// `None`: VMs boot.
    pub(super) template: ArcSwapOption<Template>,
    /// The template has to be made anew.
    pub(super) missing: Notify,
}

/// A pool's revisions.
#[derive(Debug)]
pub(super) struct Slot {
    current: ArcSwap<Made>,
    next: ArcSwapOption<Made>,
    /// Another one is current.
    pub(super) changed: Notify,
    /// VMs are to be clones.
    pub(super) cloned: bool,
}

/// All pools' revisions.
#[derive(Debug, Default)]
pub(super) struct Revisions(RwLock<BTreeMap<String, Arc<Slot>>>);

impl Image {
    pub(super) fn new(sealed: OwnedFd) -> Self {
        Self(sealed.into())
    }

    pub(super) fn file(&self) -> &File {
        &self.0
    }

    /// Whether it consists of these bytes.
    pub(super) fn is(&self, bytes: &[u8]) -> io::Result<bool> {
        if self.0.metadata()?.len() != bytes.len() as u64 {
            return Ok(false);
        }
        let (mut block, mut at) = (vec![0; BLOCK], 0);
        for part in bytes.chunks(BLOCK) {
            let block = &mut block[..part.len()];
            self.0.read_exact_at(block, at)?;
            if block != part {
                return Ok(false);
            }
            at += part.len() as u64;
        }
        Ok(true)
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Made {
    pub(super) fn new(revision: Revision, pool: Arc<Pool>, image: Arc<Image>) -> Arc<Self> {
        let (template, missing) = (ArcSwapOption::empty(), Notify::new());
        Arc::new(Self { revision, pool, image, template, missing })
    }
}

impl Slot {
    /// Of a pool whose first revision is `made`. `cloned`: its VMs are to be clones.
    fn new(made: Arc<Made>, cloned: bool) -> Self {
        Self { current: ArcSwap::new(made), next: ArcSwapOption::empty(), changed: Notify::new(), cloned }
    }

    pub(super) fn current(&self) -> Arc<Made> {
        self.current.load_full()
    }

    /// The revision with this number; if there is none, the current one.
    pub(super) fn get(&self, revision: Revision) -> Arc<Made> {
        let next = self.next.load_full().filter(|next| next.revision == revision);
        next.unwrap_or_else(|| self.current())
    }

    /// `next` may be settled on.
    pub(super) fn offer(&self, next: Arc<Made>) {
        self.next.store(Some(next));
    }

    /// Gives up all revisions but this one.
    pub(super) fn settle(&self, revision: Revision) {
        if let Some(next) = self.next.load_full().filter(|next| next.revision == revision) {
            // First, for who looks in between shall not be given the earlier one instead.
            self.current.store(next);
            self.changed.notify_one();
        }
        self.next.store(None);
    }
}

impl Revisions {
    /// Adds the first revision of `pool`. `cloned`: its VMs are to be clones.
    pub(super) fn add(&self, pool: Arc<Pool>, image: OwnedFd, cloned: bool) {
        let name = pool.name.clone();
        let made = Made::new(Revision::FIRST, pool, Arc::new(Image::new(image)));
        self.0.write().insert(name, Arc::new(Slot::new(made, cloned)));
    }

    /// Forgets all revisions of a pool.
    pub(super) fn remove(&self, pool: &str) {
        self.0.write().remove(pool);
    }

    pub(super) fn get(&self, pool: &str) -> Option<Arc<Slot>> {
        self.0.read().get(pool).cloned()
    }

    /// How many pools have a template in use.
    pub(super) fn with_template(&self) -> usize {
        self.0.read().values().filter(|slot| slot.current.load().template.load().is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::seal;

    fn revisions() -> Revisions {
        let revisions = Revisions::default();
        revisions.add(pool(), seal("p", b"one").unwrap(), true);
        revisions
    }

    fn pool() -> Arc<Pool> {
        Arc::new(crate::fake::pool("p"))
    }

    #[test]
    fn two_revisions_are_there_until_one_is_settled_on() {
        let revisions = revisions();
        let slot = revisions.get("p").unwrap();
        let image = Arc::new(Image::new(seal("p", b"two").unwrap()));
        let numbers = |slot: &Slot| [1, 2, 3].map(|number| slot.get(Revision(number)).revision.0);
        slot.offer(Made::new(Revision(2), pool(), image.clone()));
        assert_eq!(numbers(&slot), [1, 2, 1]);
        slot.settle(Revision(1));
        assert_eq!(numbers(&slot), [1, 1, 1]);
        slot.offer(Made::new(Revision(3), pool(), image));
        slot.settle(Revision(3));
        assert_eq!((numbers(&slot), slot.current().image.is(b"two").unwrap()), ([3, 3, 3], true));
        slot.settle(Revision(3));
        assert_eq!(numbers(&slot), [3, 3, 3]);
    }

    #[test]
    fn an_image_is_only_its_own_bytes() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(200_000).collect();
        let image = Image::new(seal("p", &bytes).unwrap());
        assert!(image.is(&bytes).unwrap());
        assert!(!image.is(&bytes[1..]).unwrap() && !image.is(b"").unwrap());
        let mut other = bytes;
        other[199_999] ^= 1;
        assert!(!image.is(&other).unwrap());
    }
}
