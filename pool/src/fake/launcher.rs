//! The seam to the pool's logic.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, pending, ready};
use tokio::time::{Instant, sleep};
use weir_config::model::Pool;
use weir_vmm::VmId;

use super::process::FakeProcess;
use super::{Ailment, Boot, FakeLauncher, Started};
use crate::health::Unhealthy;
use crate::launcher::{Launcher, PrepareError, Prepared, Revision, StartError, StartOrder, VmProcess};

impl Launcher for FakeLauncher {
    fn start(&self, order: StartOrder) -> BoxFuture<'static, Result<Box<dyn VmProcess>, StartError>> {
        let now = Instant::now();
        let mut vms = self.vms.lock();
        let StartOrder { id, pool, revision } = order;
        vms.started.push(Started {
            id,
            pool: pool.name.clone(),
            image: pool.image.clone(),
            revision,
            at: now,
        });
        let usual = vms.revisions.get(&revision).unwrap_or(&vms.usual).clone();
        let script = vms.next.pop_front().unwrap_or(usual);
        match &script.boot {
            Boot::Refused(error) => ready(Err(StartError::Refused(error.clone()))).boxed(),
            Boot::Hangs => pending().boxed(),
            Boot::Panics => async { panic!("as scripted") }.boxed(),
            Boot::Ready(_) | Boot::Exits(..) | Boot::Silent => {
                let (process, commands) = FakeProcess::new(id, script, self.vms.clone(), now);
                vms.alive.insert(id, (pool.name.clone(), commands));
                ready(Ok(Box::new(process) as Box<dyn VmProcess>)).boxed()
            }
        }
    }

    fn add(&self, pool: Arc<Pool>) -> BoxFuture<'static, Result<(), PrepareError>> {
        let mut vms = self.vms.lock();
        let refused = vms.refused_images.contains(&pool.image);
        if !refused {
            vms.known.insert(pool.name.clone());
        }
        ready(if refused { Err(PrepareError::Image(pool.image.clone())) } else { Ok(()) }).boxed()
    }

    fn remove(&self, pool: &str) {
        self.vms.lock().known.remove(pool);
    }

    fn prepare(&self, _: Arc<Pool>, _: Revision) -> BoxFuture<'static, Result<Prepared, PrepareError>> {
        let usual = (Duration::ZERO, Some(Ok(Prepared { image_changed: false })));
        let (after, made) = self.vms.lock().preparations.pop_front().unwrap_or(usual);
        async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            made.expect("as scripted").map_err(PrepareError::Image)
        }
        .boxed()
    }

    fn settle(&self, _: &str, revision: Revision) {
        self.vms.lock().settled.push(revision);
    }

    fn has_template(&self, _: &str) -> bool {
        false
    }

    fn check(
        &self,
        vm: VmId,
        _address: SocketAddr,
        pool: Arc<Pool>,
    ) -> BoxFuture<'static, Result<(), Unhealthy>> {
        let mut vms = self.vms.lock();
        vms.checked.push((vm, Instant::now()));
        let ailment = vms.ailments.get(&vm).copied();
        let (path, limit) = (pool.health.path.clone().unwrap_or_default(), pool.health.timeout);
        async move {
            match ailment {
                None => Ok(()),
                Some(Ailment::Status(status)) => Err(Unhealthy::Status { path, status }),
                Some(Ailment::Silent | Ailment::Stopped) => {
                    sleep(limit).await;
                    Err(Unhealthy::Silent(limit))
                }
            }
        }
        .boxed()
    }
}
