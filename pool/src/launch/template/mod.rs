//! Templates: one frozen VM per pool, which all further VMs of the pool continue from.
//!
//! ```text
//!            boot to READY, freeze, seal      canary passes            clones
//!  (none) ──────────────────────────────> made ─────────────> in use ────────> VMs
//!    ^                                     │ canary fails        │ a clone fails
//!    └────── again, after a pause ─────────┴─────────────────────┘ meanwhile VMs boot
//! ```
//! Where there is a directory for them, what is in use is kept there, and is the first that is tried when weir starts
//! again: see [`store`]. They are made one at a time, in the background, from the moment weir starts: no request waits for one.

mod make;
mod pages;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use weir_config::model::Pool;
use weir_vmm::PageRun;

use super::metrics::LaunchMetrics;
use super::parts::Parts;
use make::{Made, MakeError};
use store::Store;
pub use store::{Snapshots, SnapshotsError};

/// The pause after a template that could not be made; doubled by each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How many are made at the same time.
const AT_A_TIME: usize = 4;
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
    by_pool: BTreeMap<String, Place>,
    /// How many there are.
    in_use: watch::Sender<usize>,
    metrics: LaunchMetrics,
}

/// Where a pool's template is.
#[derive(Debug, Default)]
struct Place {
    current: ArcSwapOption<Template>,
    /// It has to be made anew.
    missing: Notify,
}

/// Who makes templates: a task for each pool, of which a few work at a time.
#[derive(Debug)]
pub(super) struct Keeper {
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    pools: BTreeMap<String, Arc<Pool>>,
    snapshots: Option<Snapshots>,
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    store: Option<Arc<Store>>,
    turns: Semaphore,
    numbers: AtomicU64,
}

impl Templates {
    /// Places for the templates of `pools`, and who fills them.
    pub(super) fn new(
        pools: BTreeMap<String, Arc<Pool>>,
        parts: Arc<Parts>,
        snapshots: Option<Snapshots>,
        metrics: LaunchMetrics,
    ) -> (Arc<Self>, Keeper) {
        let by_pool: BTreeMap<_, _> = pools.keys().map(|name| (name.clone(), Place::default())).collect();
        by_pool.keys().for_each(|name| metrics.template(name, None));
        let templates = Arc::new(Self { by_pool, in_use: watch::Sender::new(0), metrics });
        let keeper = Keeper { parts, templates: templates.clone(), pools, snapshots };
        (templates, keeper)
    }

    /// The template of `pool`, if it has one now.
    pub(super) fn get(&self, pool: &str) -> Option<Arc<Template>> {
        self.by_pool.get(pool)?.current.load_full()
    }

    /// How many pools have one, now and whenever that changes.
    pub(super) fn in_use(&self) -> watch::Receiver<usize> {
        self.in_use.subscribe()
    }

    /// From now on VMs of the pool `name` are clones of what was `made`, which began at `start`. That comes first: whoever
    /// hears of the template, by log or metric, may count on the next VM being a clone.
    fn put(&self, name: &str, made: Made, start: Instant, from: &str) -> Arc<Template> {
        let (resident, pages) = (made.resident, made.touched());
        let made_ms = (Instant::now() - start).as_secs_f64() * 1e3;
        let template = Arc::new(made.template);
        if let Some(place) = self.by_pool.get(name) {
            place.current.store(Some(template.clone()));
            self.in_use.send_modify(|count| *count += 1);
        }
        self.metrics.template(name, Some(resident));
        if from == BOOT {
            self.metrics.made(name, true);
        }
        tracing::info!(pool = name, from, made_ms, resident, pages, "template ready");
        template
    }

    /// A clone failed. If `spoilt` names its template, that is used no more, and another one is made.
    pub(super) fn failed(&self, pool: &str, spoilt: Option<&Arc<Template>>) {
        self.metrics.fallback(pool);
        let (Some(place), Some(template)) = (self.by_pool.get(pool), spoilt) else { return };
        // Of several clones that fail at the same time one reports it.
        let before = place.current.compare_and_swap(template, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, template)) {
            self.metrics.template(pool, None);
            self.in_use.send_modify(|count| *count -= 1);
            place.missing.notify_one();
        }
    }
}

impl Keeper {
    /// Makes what is missing, for as long as it runs.
    pub(super) async fn run(self) {
        let Self { parts, templates, pools, snapshots } = self;
        let store = match snapshots {
            Some(snapshots) => {
                let metrics = templates.metrics.clone();
                Store::open(snapshots, pools.clone(), parts.clone(), metrics).await
            }
            None => None,
        };
        let turns = Semaphore::new(AT_A_TIME);
        let shared =
            Arc::new(Shared { parts, templates, store, turns, numbers: AtomicU64::new(FIRST_NUMBER) });
        let mut tasks = JoinSet::new();
        for pool in pools.into_values() {
            tasks.spawn(shared.clone().keep(pool));
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    /// Keeps `pool` in templates.
    async fn keep(self: Arc<Self>, pool: Arc<Pool>) {
        let (mut pause, mut kept) = (FIRST_PAUSE, true);
        loop {
            let made = {
                // Never closed.
                let _turn = self.turns.acquire().await;
                self.make(&pool, std::mem::take(&mut kept)).await
            };
            match made {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    if let Some(place) = self.templates.by_pool.get(&pool.name) {
                        place.missing.notified().await;
                    }
                    sleep(FIRST_PAUSE).await;
                }
                Err(error) => {
                    let cause = causes(&error);
                    tracing::warn!(pool = pool.name, %error, cause, again_in = ?pause, "no template, vms boot");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Makes a template of `pool` and puts it to use; `kept`: one that an earlier weir kept may serve.
    async fn make(&self, pool: &Arc<Pool>, kept: bool) -> Result<(), MakeError> {
        let start = Instant::now();
        if let Some(store) = self.store.as_ref().filter(|_| kept)
            && let Some(made) = self.kept(store, pool).await
        {
            self.templates.put(&pool.name, made, start, "snapshot");
            return Ok(());
        }
        let made = make::make(&self.parts, pool, self.number()).await;
        let made = made.inspect_err(|_| self.templates.metrics.made(&pool.name, false))?;
        let template = self.templates.put(&pool.name, made, start, BOOT);
        if let Some(store) = &self.store {
            store.save(&pool.name, template).await;
        }
        Ok(())
    }

    /// The template of `pool` that an earlier weir kept, if it still works.
    async fn kept(&self, store: &Arc<Store>, pool: &Arc<Pool>) -> Option<Made> {
        let template = store.load(&pool.name).await?;
        match make::prove(&self.parts, pool, self.number(), template).await {
            Ok(made) => {
                store.accept(&pool.name);
                Some(made)
            }
            Err(error) => {
                store.reject(&pool.name, &error).await;
                None
            }
        }
    }

    /// The first of two new numbers for VMs.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(2, Relaxed)
    }
}

/// What `error` does not say itself.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&error: &&(dyn Error + 'static)| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
