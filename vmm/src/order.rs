//! What a blank VM process is told to become, once in its life, by [`crate::VmCommand::Boot`] or
//! [`crate::VmCommand::Clone`].

use serde::{Deserialize, Serialize};

use crate::memory::PAGE;
use crate::spec::{NetSpec, VmId, VmSpec};

/// A VM that boots its image. Descriptors with it, in this order: the image (a sealed memfd), the TAP if `spec.net` is
/// `Some`, and, for a template, the memfd that becomes its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOrder {
    /// The VM.
    pub spec: VmSpec,
    /// At the first PARK after READY it freezes: it sends [`crate::VmEvent::Frozen`] and ends. Its memory is in the
    /// memfd then, which has the size of guest memory.
    pub template: bool,
}

/// A VM that continues where a template stopped. Descriptors with it, in this order: the memfd with the memory, and the
/// TAP if `net` is `Some`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneOrder {
    /// Its own identity.
    pub id: VmId,
    /// Guest memory, bytes: what the template had.
    pub memory: u64,
    /// Its own network interface, if the template had one.
    pub net: Option<NetSpec>,
    /// Whether it writes to the memfd or to copies of its pages.
    pub sharing: Sharing,
    /// What the template's process sent when it froze.
    pub state: Vec<u8>,
    /// Log lines per second that are passed on; more are dropped and counted.
    pub log_lines: u32,
    /// Pages that clones are known to write to; they are copied before the guest runs.
    pub working_set: Vec<PageRun>,
}

/// What becomes of a clone's writes to its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// They stay its own: MAP_PRIVATE.
    Private,
    /// They go to the memfd, for whoever wants to know what a clone writes: MAP_SHARED.
    Shared,
}

/// Pages side by side in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRun {
    /// Number of the first page: its address divided by the page size.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl PageRun {
    /// Addresses of its first byte and of the byte behind its last one; `None` if they are beyond `memory`.
    pub fn range(self, memory: u64) -> Option<std::ops::Range<u64>> {
        let start = u64::from(self.first) * PAGE;
        let end = start + u64::from(self.count) * PAGE;
        (self.count > 0 && end <= memory).then_some(start..end)
    }
}

/// Collects page numbers, which come in ascending order, into runs.
pub fn runs(pages: impl IntoIterator<Item = u32>) -> Vec<PageRun> {
    let mut runs: Vec<PageRun> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.first + run.count == page => run.count += 1,
            _ => runs.push(PageRun { first: page, count: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_beyond_memory_has_no_range() {
        let run = PageRun { first: 1, count: 2 };
        assert_eq!(run.range(3 * PAGE), Some(PAGE..3 * PAGE));
        assert_eq!(run.range(3 * PAGE - 1), None);
        assert_eq!(
            PageRun { first: u32::MAX, count: u32::MAX }.range(u64::MAX).map(|range| range.start),
            Some(u64::from(u32::MAX) * PAGE)
        );
        assert_eq!(PageRun { first: 0, count: 0 }.range(PAGE), None);
    }

    proptest! {
        #[test]
        fn runs_are_the_pages_and_do_not_touch(pages in proptest::collection::btree_set(0u32..200, 0..100)) {
            let runs = runs(pages.iter().copied());
            let back: Vec<u32> = runs.iter().flat_map(|run| run.first..run.first + run.count).collect();
            prop_assert_eq!(back, pages.into_iter().collect::<Vec<_>>());
            prop_assert!(runs.windows(2).all(|pair| pair[0].first + pair[0].count < pair[1].first));
        }
    }
}
