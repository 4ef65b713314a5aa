//! Who keeps pools in templates: a task for each, of which a few work at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weir_config::model::Pool;

use super::make::{self, MakeError};
use super::store::{Snapshots, Store};
use super::{BOOT, Template, Templates, causes};
use crate::launch::parts::Parts;
use crate::launch::revision::Made;

/// The pause after a template that could not be made; doubled by each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How many are made at the same time.
const AT_A_TIME: usize = 4;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::launch) struct Keeper {
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    pools: BTreeMap<String, Arc<Pool>>,
    snapshots: Option<Snapshots>,
}

/// What a keeper is told.
#[derive(Debug)]
pub(in crate::launch) enum Order {
    /// There is a new pool.
    Keep(Arc<Pool>),
    /// There is no pool of this name any more.
    Forget(String),
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    store: Option<Arc<Store>>,
    turns: Semaphore,
}

impl Keeper {
    pub(super) fn new(
        parts: Arc<Parts>,
        templates: Arc<Templates>,
        pools: BTreeMap<String, Arc<Pool>>,
        snapshots: Option<Snapshots>,
    ) -> Self {
        Self { parts, templates, pools, snapshots }
    }

    /// Makes what is missing, for as long as it runs.
    pub(in crate::launch) async fn run(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let Self { parts, templates, pools, snapshots } = self;
        let store = match snapshots {
            Some(snapshots) => Store::open(snapshots, pools.clone(), templates.clone()).await,
            None => None,
        };
        let turns = Semaphore::new(AT_A_TIME);
        let shared = Arc::new(Shared { parts, templates, store, turns });
        let (mut tasks, mut by_pool) = (JoinSet::new(), BTreeMap::new());
        for (name, pool) in pools {
            by_pool.insert(name, tasks.spawn(shared.clone().keep(pool.name.clone(), true)));
        }
        while let Some(order) = orders.recv().await {
            // Tasks that were aborted.
            while tasks.try_join_next().is_some() {}
            match order {
                Order::Keep(pool) => {
                    let keeping = shared.clone().keep(pool.name.clone(), false);
                    by_pool.insert(pool.name.clone(), tasks.spawn(keeping));
                }
                Order::Forget(name) => {
                    if let Some(task) = by_pool.remove(&name) {
                        task.abort();
                    }
                    shared.forget(&name).await;
                }
            }
        }
    }
}

impl Shared {
    /// Keeps the pool called `name` in templates of whichever revision is current. `kept`: one that an earlier weir kept
    /// may serve at first.
    async fn keep(self: Arc<Self>, name: String, mut kept: bool) {
        let Some(slot) = self.templates.revisions.get(&name) else { return };
        let mut pause = FIRST_PAUSE;
        loop {
            let current = slot.current();
            let pool = current.pool.clone();
            match self.provide(&pool, &current, std::mem::take(&mut kept)).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    tokio::select! {
                        () = slot.changed.notified() => {}
                        () = current.missing.notified() => sleep(FIRST_PAUSE).await,
                    }
                }
                Err(error) => {
                    let cause = causes(&error);
                    tracing::warn!(pool = pool.name, %error, cause, again_in = ?pause, "no template, vms boot");
                    let changed = timeout(pause, slot.changed.notified()).await.is_ok();
                    pause = if changed { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                }
            }
        }
    }

    /// Nothing of the pool called `name` is kept any more.
    async fn forget(&self, name: &str) {
        self.templates.metrics.template(name, None);
        if let Some(store) = &self.store {
            store.forget(name).await;
        }
    }

    /// Sees to it that `current` has a template; `kept`: one that an earlier weir kept may serve.
    async fn provide(&self, pool: &Arc<Pool>, current: &Made, kept: bool) -> Result<(), MakeError> {
        if let Some(template) = current.template.load_full() {
            // A restart has made it.
            self.templates.show(&pool.name);
            self.save(pool, current, template).await;
            return Ok(());
        }
        // Nor does the revision before, whatever it had.
        self.templates.show(&pool.name);
        // Never closed.
        let _turn = self.turns.acquire().await;
        self.make(pool, current, kept).await
    }

    async fn make(&self, pool: &Arc<Pool>, current: &Made, kept: bool) -> Result<(), MakeError> {
        let start = Instant::now();
        if let Some(store) = self.store.as_ref().filter(|_| kept)
            && let Some(made) = self.kept(store, pool).await
        {
            self.templates.put(&pool.name, current, made, start, "snapshot");
            return Ok(());
        }
        let made = make::make(&self.parts, pool, &current.image, self.templates.number()).await;
        let made = made.inspect_err(|_| self.templates.metrics.made(&pool.name, false))?;
        let template = self.templates.put(&pool.name, current, made, start, BOOT);
        self.save(pool, current, template).await;
        Ok(())
    }

    /// The template of `pool` that an earlier weir kept, if it still works.
    async fn kept(&self, store: &Arc<Store>, pool: &Arc<Pool>) -> Option<make::Made> {
        let template = store.load(&pool.name).await?;
        match make::prove(&self.parts, pool, self.templates.number(), template).await {
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

    async fn save(&self, pool: &Arc<Pool>, current: &Made, template: Arc<Template>) {
        if let Some(store) = &self.store {
            store.set_image(pool, &current.image).await;
            store.save(&pool.name, template).await;
        }
    }
}
