//! Templates: one frozen VM per pool, which all further VMs of the pool continue from.
//!
//! ```text
//!            boot to READY, freeze, seal      canary passes            clones
//!  (none) ──────────────────────────────> made ─────────────> in use ────────> VMs
//!    ^                                     │ canary fails        │ a clone fails
//!    └────── again, after a pause ─────────┴─────────────────────┘ meanwhile VMs boot
//! ```
//! Where there is a directory for them, what is in use is kept there, and is the first that is tried when weir starts
//! again: see [`store`]. They are made a few at a time, in the background, from the moment weir starts: no request waits for one.
//! When a pool is restarted, a template of its next revision is made first (see [`super::prepare`]), and used from then on.

mod keep;
pub(super) mod make;
mod pages;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;
use tokio::time::Instant;
use weir_config::model::Pool;
use weir_vmm::PageRun;

use super::metrics::LaunchMetrics;
use super::parts::Parts;
use super::revision::{Made, Revisions};
use keep::Keeper;
pub(super) use keep::Order;
pub use store::{Snapshots, SnapshotsError};

/// Far from the numbers of the pools' VMs.
const FIRST_NUMBER: u64 = 1 << 63;

/// Where a template comes from that was made, not kept by an earlier weir.
const BOOT: &str = "boot";

/// More than any state takes, bytes: the largest part is the XSAVE area.
const STATE_MAX: usize = 32 * 1024;

/// A frozen VM.
#[derive(Debug)]
pub(super) struct Template {
    /// Its memory, sealed.
    pub(super) memory: File,
    /// Its state, as its process described it; only other VMs' processes look inside.
    pub(super) state: Vec<u8>,
    /// Pages that its clones write to at once.
    pub(super) working_set: Vec<PageRun>,
}

/// All templates in use.
#[derive(Debug)]
pub(super) struct Templates {
    /// Where they are.
    pub(super) revisions: Revisions,
    /// How many pools have one.
    in_use: watch::Sender<usize>,
    numbers: AtomicU64,
    pub(super) metrics: LaunchMetrics,
}

impl Templates {
    /// Places for the templates of `pools`, and who fills them.
    pub(super) fn new(
        pools: BTreeMap<String, Arc<Pool>>,
        revisions: Revisions,
        parts: Arc<Parts>,
        snapshots: Option<Snapshots>,
        metrics: LaunchMetrics,
    ) -> (Arc<Self>, Keeper) {
        pools.keys().for_each(|name| metrics.template(name, None));
        let (in_use, numbers) = (watch::Sender::new(0), AtomicU64::new(FIRST_NUMBER));
        let templates = Arc::new(Self { revisions, in_use, numbers, metrics });
        let keeper = Keeper::new(parts, templates.clone(), pools, snapshots);
        (templates, keeper)
    }

    /// The first of two new numbers for VMs that are no pool's.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(2, Relaxed)
    }

    /// How many pools have one, now and whenever that changes.
    pub(super) fn in_use(&self) -> watch::Receiver<usize> {
        self.in_use.subscribe()
    }

    /// From now on VMs of `revision`, which is one of the pool `name`, are clones of what was `made`, which began at
    /// `start`. That comes first: whoever hears of the template, by log or metric, may count on the next VM being a clone.
    fn put(
        &self,
        name: &str,
        revision: &Made,
        made: make::Made,
        start: Instant,
        from: &str,
    ) -> Arc<Template> {
        let (resident, pages) = (made.resident, made.touched());
        let made_ms = (Instant::now() - start).as_secs_f64() * 1e3;
        let template = Arc::new(made.template);
        revision.template.store(Some(template.clone()));
        self.show(name);
        if from == BOOT {
            self.metrics.made(name, true);
        }
        tracing::info!(pool = name, from, made_ms, resident, pages, "template ready");
        template
    }

    /// A clone of `made`'s template failed. If `spoilt` is that template, it is used no more, and another one is made.
    pub(super) fn failed(&self, pool: &str, made: &Made, spoilt: Option<&Arc<Template>>) {
        self.metrics.fallback(pool);
        let Some(template) = spoilt else { return };
        // Of several clones that fail at the same time one reports it.
        let before = made.template.compare_and_swap(template, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, template)) {
            self.show(pool);
            made.missing.notify_one();
        }
    }

    /// Tells what template `pool` has now.
    fn show(&self, pool: &str) {
        let current = self.revisions.get(pool).map(|slot| slot.current());
        let template = current.and_then(|made| made.template.load_full());
        // What cannot be said of its memory is not worth a failure.
        self.metrics.template(pool, template.map(|template| pages::resident(&template.memory).unwrap_or(0)));
        self.in_use.send_replace(self.revisions.with_template());
    }
}

/// What `error` does not say itself.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&error: &&(dyn Error + 'static)| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
