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

mod canary;
mod make;
mod pages;
mod store;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
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
    by_pool: BTreeMap<String, ArcSwapOption<Template>>,
    missing: mpsc::UnboundedSender<String>,
    /// How many there are.
    in_use: watch::Sender<usize>,
    metrics: LaunchMetrics,
}

/// The task that makes templates.
#[derive(Debug)]
pub(super) struct Keeper {
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    pools: BTreeMap<String, Arc<Pool>>,
    missing: mpsc::UnboundedReceiver<String>,
    due: BTreeMap<String, Due>,
    numbers: u64,
    snapshots: Option<Snapshots>,
}

/// When to make a pool's template.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    pause: Duration,
    /// Whether one that was kept may serve: it is tried once.
    kept: bool,
}

impl Templates {
    /// Places for the templates of `pools`, and who fills them.
    pub(super) fn new(
        pools: BTreeMap<String, Arc<Pool>>,
        parts: Arc<Parts>,
        snapshots: Option<Snapshots>,
        metrics: LaunchMetrics,
    ) -> (Arc<Self>, Keeper) {
        let (sender, missing) = mpsc::unbounded_channel();
        let by_pool = pools.keys().map(|name| (name.clone(), ArcSwapOption::empty())).collect();
        let in_use = watch::Sender::new(0);
        let templates = Arc::new(Self { by_pool, missing: sender, in_use, metrics });
        let now = Instant::now();
        let first = Due { at: now, pause: FIRST_PAUSE, kept: true };
        let due = pools.keys().map(|name| (name.clone(), first)).collect();
        // Far from the numbers of the pools' VMs.
        let numbers = 1 << 63;
        let keeper = Keeper { parts, templates: templates.clone(), pools, missing, due, numbers, snapshots };
        (templates, keeper)
    }

    /// The template of `pool`, if it has one now.
    pub(super) fn get(&self, pool: &str) -> Option<Arc<Template>> {
        self.by_pool.get(pool)?.load_full()
    }

    /// How many pools have one, now and whenever that changes.
    pub(super) fn in_use(&self) -> watch::Receiver<usize> {
        self.in_use.subscribe()
    }

    /// A clone failed. If `spoilt` names its template, that is used no more, and another one is made.
    pub(super) fn failed(&self, pool: &str, spoilt: Option<&Arc<Template>>) {
        self.metrics.fallback(pool);
        let (Some(place), Some(template)) = (self.by_pool.get(pool), spoilt) else { return };
        // Of several clones that fail at the same time one reports it.
        let before = place.compare_and_swap(template, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, template)) {
            self.metrics.ready(pool, false);
            self.in_use.send_modify(|count| *count -= 1);
            // The keeper is gone when weir ends.
            let _ = self.missing.send(pool.to_owned());
        }
    }
}

impl Keeper {
    /// Makes what is missing, for as long as it runs.
    pub(super) async fn run(mut self) {
        let store = self.store().await;
        loop {
            let next = self.due.iter().min_by_key(|(_, due)| due.at).map(|(pool, due)| (pool.clone(), *due));
            let due = next.as_ref().map(|(_, due)| due.at);
            tokio::select! {
                biased;
                Some(pool) = self.missing.recv() => {
                    let at = Instant::now() + FIRST_PAUSE;
                    let due = Due { at, pause: FIRST_PAUSE, kept: false };
                    self.due.entry(pool).or_insert(due);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((pool, due)) = next {
                        self.make(store.as_ref(), &pool, due).await;
                    }
                }
                else => return,
            }
        }
    }

    async fn store(&mut self) -> Option<Arc<Store>> {
        let snapshots = self.snapshots.take()?;
        let metrics = self.templates.metrics.clone();
        Store::open(snapshots, self.pools.clone(), self.parts.clone(), metrics).await
    }

    async fn make(&mut self, store: Option<&Arc<Store>>, name: &str, due: Due) {
        let Some(pool) = self.pools.get(name).cloned() else { return };
        let start = Instant::now();
        let kept = match store.filter(|_| due.kept) {
            Some(store) => self.kept(store, &pool).await,
            None => None,
        };
        if let Some(made) = kept {
            self.in_use(name, made, start, "snapshot");
            return;
        }
        let number = self.number();
        let made = make::make(&self.parts, &pool, number).await;
        self.templates.metrics.made(name, made.is_ok());
        match made {
            Ok(made) => {
                let template = self.in_use(name, made, start, "boot");
                if let Some(store) = store {
                    store.save(name, template).await;
                }
            }
            Err(error) => self.failed(name, due, &error),
        }
    }

    /// The template of `pool` that an earlier weir kept, if it still works.
    async fn kept(&mut self, store: &Arc<Store>, pool: &Arc<Pool>) -> Option<Made> {
        let template = store.load(&pool.name).await?;
        let number = self.number();
        match make::prove(&self.parts, pool, number, template).await {
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
    fn number(&mut self) -> u64 {
        self.numbers += 2;
        self.numbers
    }

    /// From now on VMs of the pool are clones of what was `made`, which began at `start`.
    fn in_use(&mut self, name: &str, made: Made, start: Instant, from: &str) -> Arc<Template> {
        let (resident, pages) = (made.resident, made.touched());
        let made_ms = (Instant::now() - start).as_secs_f64() * 1e3;
        tracing::info!(pool = name, from, made_ms, resident, pages, "template ready");
        let template = Arc::new(made.template);
        self.templates.metrics.ready(name, true);
        if let Some(place) = self.templates.by_pool.get(name) {
            place.store(Some(template.clone()));
            self.templates.in_use.send_modify(|count| *count += 1);
        }
        self.due.remove(name);
        template
    }

    fn failed(&mut self, name: &str, due: Due, error: &MakeError) {
        let again_in = due.pause;
        tracing::warn!(pool = name, %error, cause = causes(error), ?again_in, "no template, vms boot");
        let pause = (due.pause * 2).min(LONGEST_PAUSE);
        self.due.insert(name.to_owned(), Due { at: Instant::now() + due.pause, pause, kept: false });
    }
}

/// What `error` does not say itself.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&error: &&(dyn Error + 'static)| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
