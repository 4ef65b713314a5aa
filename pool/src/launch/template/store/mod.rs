//! Templates on disk, where they outlive weir.
//!
//! ```text
//!            template is in use                          weir starts again
//!  (none) ── written, synced ──> NAME.tmp ── renamed ──> NAME ── key, hash, bounds ──> template ──> canary
//!    ^                             │ any error            │ no pool's key              │ any defect   │ fails
//!    └─────────────────────────────┴──────── removed ─────┴────────────────────────────┴──────────────┘
//! ```
//! Nothing here is ever the reason why a VM does not start: what fails is logged and counted, and the template is made
//! by booting.

mod directory;
mod format;
mod host;
mod key;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_config::model::Pool;

use super::{Template, Templates, blocking};
use crate::launch::metrics::{LaunchMetrics, SnapshotResult};
use crate::launch::revision::Image;
pub use directory::SnapshotsError;
use directory::{Directory, FileError};
use format::Defect;
use host::Host;
use key::Key;

/// An open directory for snapshots, and the machine that they are of.
#[derive(Debug)]
pub struct Snapshots {
    directory: Directory,
    host: Host,
}

/// The snapshots of all pools.
#[derive(Debug)]
pub(super) struct Store {
    directory: Directory,
    host: Host,
    /// By pool.
    places: Mutex<BTreeMap<String, Arc<Place>>>,
    metrics: LaunchMetrics,
}

/// Where a pool's snapshot is.
#[derive(Debug)]
struct Place {
    name: String,
    key: Key,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Defect(#[from] Defect),
}

impl Place {
    fn new(pool: &Pool, image: &Image, host: &Host) -> io::Result<Self> {
        let key = Key::new(pool, key::digest(image.file())?, host);
        Ok(Self { name: key.file_name().map_err(io::Error::other)?, key })
    }
}

impl Snapshots {
    /// Opens the directory `path`, or creates it. Best done before weir has namespaces and threads.
    ///
    /// # Errors
    /// If it is not a directory that only weir's user can use.
    pub fn open(path: &Path) -> Result<Self, SnapshotsError> {
        let directory = Directory::open(path)?;
        Ok(Self { directory, host: Host::read().map_err(SnapshotsError::Host)? })
    }
}

impl Store {
    /// The store of `pools`, without what earlier ones left. `None` if it cannot be used, which is logged.
    pub(super) async fn open(
        snapshots: Snapshots,
        pools: BTreeMap<String, Arc<Pool>>,
        templates: Arc<Templates>,
    ) -> Option<Arc<Self>> {
        let opened = blocking(move || {
            let image = |pool: &str| Some(templates.revisions.get(pool)?.current().image.clone());
            Self::new(snapshots, &pools, image, templates.metrics.clone())
        });
        let opened = opened.await;
        match opened {
            Ok(store) => Some(Arc::new(store)),
            Err(error) => {
                tracing::warn!(%error, "no snapshots are kept");
                None
            }
        }
    }

    fn new(
        snapshots: Snapshots,
        pools: &BTreeMap<String, Arc<Pool>>,
        image: impl Fn(&str) -> Option<Arc<Image>>,
        metrics: LaunchMetrics,
    ) -> io::Result<Self> {
        let Snapshots { directory, host } = snapshots;
        let mut places = BTreeMap::new();
        for (pool, image) in pools.iter().filter_map(|(name, pool)| Some((pool, image(name)?))) {
            places.insert(pool.name.clone(), Arc::new(Place::new(pool, &image, &host)?));
        }
        let swept = directory.sweep(|name| places.values().any(|place| place.name == name));
        let store = Self { directory, host, places: Mutex::new(places), metrics };
        match swept {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed snapshots that are of no pool"),
            Err(error) => tracing::warn!(%error, "cannot remove old snapshots"),
        }
        Ok(store)
    }

    /// The template that was kept of `pool`. It has yet to show that it works.
    pub(super) async fn load(self: &Arc<Self>, pool: &str) -> Option<Template> {
        let (store, name) = (self.clone(), pool.to_owned());
        let read = blocking(move || Ok(store.place(&name).map(|place| store.read(&place)))).await;
        match read {
            Ok(None | Some(Ok(None))) => None,
            Ok(Some(Ok(template))) => template,
            Ok(Some(Err(error))) => {
                self.reject(pool, &error).await;
                None
            }
            Err(error) => {
                self.reject(pool, &error).await;
                None
            }
        }
    }

    /// The template that was loaded for `pool` works.
    pub(super) fn accept(&self, pool: &str) {
        self.metrics.snapshot(pool, SnapshotResult::Loaded);
    }

    /// The snapshot of `pool` is not to be used again, for `error`.
    pub(super) async fn reject(self: &Arc<Self>, pool: &str, error: &(dyn Error + Sync + 'static)) {
        self.metrics.snapshot(pool, SnapshotResult::Rejected);
        let Some(place) = self.place(pool) else { return };
        let file = self.directory.path(&place.name);
        tracing::warn!(pool, ?file, %error, cause = super::causes(error), "snapshot is not used");
        let (store, name) = (self.clone(), place.name.clone());
        if let Err(error) = blocking(move || store.directory.remove(&name)).await {
            tracing::warn!(pool, ?file, %error, "cannot remove the snapshot");
        }
    }

    /// Keeps `template` of `pool`, in place of what was kept before.
    pub(super) async fn save(self: &Arc<Self>, pool: &str, template: Arc<Template>) {
        let (store, name) = (self.clone(), pool.to_owned());
        let written = blocking(move || match store.place(&name) {
            Some(place) => store.write(&place, &template),
            None => Err(io::Error::other("the pool has no image")),
        });
        match written.await {
            Ok(()) => self.metrics.snapshot(pool, SnapshotResult::Saved),
            Err(error) => {
                self.metrics.snapshot(pool, SnapshotResult::Failed);
                let file = self.place(pool).map(|place| self.directory.path(&place.name));
                tracing::warn!(pool, ?file, %error, "snapshot is not kept");
            }
        }
    }

    /// From now on what is kept of `pool` is of this image. What was kept of another one is of no use any more.
    pub(super) async fn set_image(self: &Arc<Self>, pool: &Arc<Pool>, image: &Arc<Image>) {
        let (store, of, image) = (self.clone(), pool.clone(), image.clone());
        let set = blocking(move || {
            let place = Arc::new(Place::new(&of, &image, &store.host)?);
            let name = place.name.clone();
            let before = store.places.lock().insert(of.name.clone(), place);
            match before {
                Some(before) if before.name != name => store.directory.remove(&before.name),
                _ => Ok(()),
            }
        });
        if let Err(error) = set.await {
            tracing::warn!(pool = pool.name, %error, "cannot remove the snapshot of another image");
        }
    }

    /// There is no pool of this name any more; nor is what was kept of it.
    pub(super) async fn forget(self: &Arc<Self>, pool: &str) {
        let Some(place) = self.places.lock().remove(pool) else { return };
        let store = self.clone();
        if let Err(error) = blocking(move || store.directory.remove(&place.name)).await {
            tracing::warn!(pool, %error, "cannot remove the snapshot of a pool that was removed");
        }
    }

    fn place(&self, pool: &str) -> Option<Arc<Place>> {
        self.places.lock().get(pool).cloned()
    }

    fn read(&self, place: &Place) -> Result<Option<Template>, LoadError> {
        let Some((file, length)) = self.directory.read(&place.name)? else { return Ok(None) };
        Ok(Some(format::read(io::BufReader::new(file), length, &place.key)?))
    }

    fn write(&self, place: &Place, template: &Template) -> io::Result<()> {
        self.directory.replace(&place.name, |file| format::write(file, &place.key, template))
    }
}
