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
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use weir_config::model::Pool;

use super::Template;
use crate::launch::metrics::{LaunchMetrics, SnapshotResult};
use crate::launch::parts::Parts;
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
    /// By pool.
    places: BTreeMap<String, Place>,
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
        parts: Arc<Parts>,
        metrics: LaunchMetrics,
    ) -> Option<Arc<Self>> {
        let opened = blocking(move || Self::new(snapshots, &pools, &parts.images, metrics)).await;
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
        images: &BTreeMap<String, OwnedFd>,
        metrics: LaunchMetrics,
    ) -> io::Result<Self> {
        let Snapshots { directory, host } = snapshots;
        let mut places = BTreeMap::new();
        for (pool, image) in pools.iter().filter_map(|(name, pool)| Some((pool, images.get(name)?))) {
            let key = Key::new(pool, key::digest(&image.try_clone()?.into())?, &host);
            let name = key.file_name().map_err(io::Error::other)?;
            places.insert(pool.name.clone(), Place { name, key });
        }
        let store = Self { directory, places, metrics };
        match store.directory.sweep(|name| store.places.values().any(|place| place.name == name)) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed snapshots that are of no pool"),
            Err(error) => tracing::warn!(%error, "cannot remove old snapshots"),
        }
        Ok(store)
    }

    /// The template that was kept of `pool`. It has yet to show that it works.
    pub(super) async fn load(self: &Arc<Self>, pool: &str) -> Option<Template> {
        let (store, name) = (self.clone(), pool.to_owned());
        let read = blocking(move || Ok(store.places.get(&name).map(|place| store.read(place)))).await;
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
        let Some(place) = self.places.get(pool) else { return };
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
        let written = blocking(move || match store.places.get(&name) {
            Some(place) => store.write(place, &template),
            None => Err(io::Error::other("the pool has no image")),
        });
        match written.await {
            Ok(()) => self.metrics.snapshot(pool, SnapshotResult::Saved),
            Err(error) => {
                self.metrics.snapshot(pool, SnapshotResult::Failed);
                let file = self.places.get(pool).map(|place| self.directory.path(&place.name));
                tracing::warn!(pool, ?file, %error, "snapshot is not kept");
            }
        }
    }

    fn read(&self, place: &Place) -> Result<Option<Template>, LoadError> {
        let Some((file, length)) = self.directory.read(&place.name)? else { return Ok(None) };
        Ok(Some(format::read(io::BufReader::new(file), length, &place.key)?))
    }

    fn write(&self, place: &Place, template: &Template) -> io::Result<()> {
        self.directory.replace(&place.name, |file| format::write(file, &place.key, template))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
