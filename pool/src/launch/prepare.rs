//! Making a pool's next revision: its image read anew, and a VM of it that shows that it works.
//!
//! Where the pool has had no template so far, since its guest cannot be frozen or since none is wanted, a VM that boots
//! has to pass the health check instead. A template that could be made before must be made again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weir_config::model::Pool;

use super::image::seal;
use super::parts::Parts;
use super::revision::{Image, Made, Slot};
use super::template::make::{self, MakeError};
use super::template::{Templates, blocking};
use super::{ReadImage, VmLauncher};
use crate::launcher::{PrepareError, Prepared, Revision};

/// What a preparation needs of its launcher.
pub(super) struct Preparation {
    parts: Arc<Parts>,
    templates: Arc<Templates>,
    read: ReadImage,
}

impl Preparation {
    pub(super) fn of(launcher: &VmLauncher) -> Self {
        let VmLauncher { parts, templates, read, .. } = launcher;
        Self { parts: parts.clone(), templates: templates.clone(), read: read.clone() }
    }

    /// Makes `revision` of `pool`, and offers it beside the one in use.
    pub(super) async fn prepare(self, pool: Arc<Pool>, revision: Revision) -> Result<Prepared, PrepareError> {
        let Some(slot) = self.templates.revisions.get(&pool.name) else {
            return Err(PrepareError::Image(format!("of pool {} was not loaded", pool.name)));
        };
        let before = slot.current();
        let (image, image_changed) = self.image(&pool, &before).await?;
        let made = Made::new(revision, pool.clone(), image);
        self.prove(&pool, &slot, &made, before.template.load().is_some())
            .await
            .map_err(|error| PrepareError::Unproven(error.into()))?;
        slot.offer(made);
        Ok(Prepared { image_changed })
    }

    /// Reads the image of `pool`, which is a new one, for its first revision.
    pub(super) async fn first_image(&self, pool: &Pool) -> Result<OwnedFd, PrepareError> {
        self.read(pool, |bytes, label| seal(label, bytes).map_err(io::Error::other)).await
    }

    /// The image as it is now, and whether it is another one than before.
    async fn image(&self, pool: &Pool, before: &Made) -> Result<(Arc<Image>, bool), PrepareError> {
        let old = before.image.clone();
        let image = move |bytes: &[u8], label: &str| {
            if old.is(bytes)? {
                return Ok((old, false));
            }
            let sealed = seal(label, bytes).map_err(io::Error::other)?;
            Ok((Arc::new(Image::new(sealed)), true))
        };
        self.read(pool, image).await
    }

    /// Reads `pool`'s image, and makes of its bytes and the pool's name what is to be kept.
    async fn read<T: Send + 'static>(
        &self,
        pool: &Pool,
        keep: impl FnOnce(&[u8], &str) -> io::Result<T> + Send + 'static,
    ) -> Result<T, PrepareError> {
        let (read, image, label) = (self.read.clone(), pool.image.clone(), pool.name.clone());
        let kept = blocking(move || match (read.0)(&image) {
            Ok(bytes) => keep(&bytes, &label).map(Ok),
            Err(error) => Ok(Err(PrepareError::Image(error))),
        });
        let what = || format!("keep image {} in memory", pool.image);
        kept.await.map_err(|error| PrepareError::Host { what: what(), source: error.into() })?
    }

    async fn prove(
        &self,
        pool: &Arc<Pool>,
        slot: &Slot,
        made: &Made,
        had_template: bool,
    ) -> Result<(), MakeError> {
        if slot.cloned {
            let template = make::make(&self.parts, pool, &made.image, self.templates.number()).await;
            self.templates.metrics.made(&pool.name, template.is_ok());
            match template {
                Ok(template) => {
                    made.template.store(Some(Arc::new(template.template)));
                    return Ok(());
                }
                // Perhaps it is never idle, as before: then its VMs boot, as before.
                Err(MakeError::Late(_)) if !had_template => {}
                Err(error) => return Err(error),
            }
        }
        make::prove_by_boot(&self.parts, pool, &made.image, self.templates.number()).await
    }
}
