//! Starting a VM: as a clone of its pool's template if there is one, else by booting its image.
//!
//! ```text
//!  template? ──yes──> Clone order ──READY──> Process (clone, prefork)
//!     │ no                 │ ends instead: the template is given up; or says nothing in time
//!     v                    v
//!  Boot order <────────────┘
//!     └──> Process (cold), READY later
//! ```

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::time::timeout;
use weir_config::model::Pool;
use weir_vmm::{BootOrder, CloneOrder, Sharing, VmCommand, VmId};

use super::parts::{Parts, address, prepare};
use super::process::Process;
use super::revision::Image;
use super::template::{Template, Templates};
use crate::launcher::{StartError, StartKind, StartOrder};

/// How long a clone may take to be READY: it has nothing to boot.
const CLONE_LIMIT: Duration = Duration::from_secs(1);

/// Why there is no clone.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloneError {
    /// It would have failed for a booting VM too.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process ended.
    #[error("clone ended: {0}")]
    Ended(weir_vmm::ExitReason),
    /// The launcher ended, and the process with it.
    #[error("clone ended with its launcher")]
    LauncherDied,
    /// The process said nothing.
    #[error("clone not ready within {CLONE_LIMIT:?}")]
    Late,
}

/// Starts the VM of `order`.
pub(super) async fn start(
    parts: &Parts,
    templates: &Templates,
    order: &StartOrder,
) -> Result<Process, StartError> {
    let (id, pool) = (order.id, &*order.pool);
    let made = templates.revisions.get(&pool.name).map(|slot| slot.get(order.revision));
    let made = made.ok_or_else(|| StartError::Prepare {
        what: format!("find the image of pool {}", pool.name),
        source: "not loaded".into(),
    })?;
    let Some(template) = made.template.load_full() else { return boot(parts, id, pool, &made.image).await };
    match clone(parts, &template, id, pool, Sharing::Private).await {
        Ok(process) => Ok(process),
        Err(CloneError::Start(error)) => Err(error),
        Err(error) => {
            tracing::warn!(pool = pool.name, vm = %id, %error, "clone failed, booting instead");
            // A busy host makes clones late; that is not the template's fault, nor would more boots help the host.
            let spoilt = matches!(error, CloneError::Ended(_));
            templates.failed(&pool.name, &made, spoilt.then_some(&template));
            boot(parts, id, pool, &made.image).await
        }
    }
}

/// Boots `image` as a VM of `pool`.
pub(super) async fn boot(parts: &Parts, id: VmId, pool: &Pool, image: &Image) -> Result<Process, StartError> {
    let (taken, link) = parts.gather_awake().await?;
    let order = BootOrder { spec: parts.spec(id, pool, &link.link), template: false };
    let address = address(pool, &link.link);
    let mut process = Process::new(address, taken.child, StartKind::Cold, Box::new(link.link));
    process.limit(pool);
    process.order(&VmCommand::Boot(Box::new(order)), &[image.as_fd(), link.tap.as_fd()]).await?;
    Ok(process)
}

/// Continues `template` as VM `id`, to its READY.
pub(super) async fn clone(
    parts: &Parts,
    template: &Template,
    id: VmId,
    pool: &Pool,
    sharing: Sharing,
) -> Result<Process, CloneError> {
    let (taken, link) = parts.gather().await?;
    let order = CloneOrder {
        id,
        memory: pool.memory,
        net: Some(parts.net(pool, &link.link)),
        sharing,
        state: template.state.clone(),
        log_lines: pool.limits.log_lines,
        working_set: template.working_set.clone(),
    };
    let kind = if taken.spare { StartKind::Prefork } else { StartKind::Clone };
    let mut process = Process::new(address(pool, &link.link), taken.child, kind, Box::new(link.link));
    let files = [template.memory.as_fd(), link.tap.as_fd()];
    process.order(&VmCommand::Clone(Box::new(order)), &files).await?;
    process.limit(pool);
    match timeout(CLONE_LIMIT, process.until_ready()).await {
        Ok(Ok(())) => Ok(process),
        Ok(Err(reason)) if process.is_without_limits() => {
            Err(CloneError::Start(StartError::Refused(reason.to_string())))
        }
        Ok(Err(_)) if process.is_without_launcher() => Err(CloneError::LauncherDied),
        Ok(Err(reason)) => Err(CloneError::Ended(reason)),
        Err(_) => Err(CloneError::Late),
    }
}

impl Process {
    /// Tells the child what to become.
    pub(super) async fn order(
        &mut self,
        command: &VmCommand,
        files: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), StartError> {
        match self.send(command, files).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_message() => Err(prepare("describe the vm to its process", error.into())),
            // It has ended, and said why: it could not make a VM.
            Err(_) => match self.until_ready().await {
                Ok(()) => Err(StartError::Refused("a child is ready before it has an order".to_owned())),
                Err(reason) => Err(StartError::Refused(reason.to_string())),
            },
        }
    }
}
