//! Making one template: boot, freeze, seal, canary, working set.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use weir_config::model::Pool;
use weir_vmm::{BootOrder, ExitReason, PageRun, Sharing, VmCommand, VmEvent, VmId};

use super::super::parts::{Parts, address};
use super::super::process::Process;
use super::super::revision::Image;
use super::super::start::{CloneError, boot, clone};
use super::{STATE_MAX, Template, blocking, pages};
use crate::guest_log::GuestLog;
use crate::health::{Unhealthy, check_canary};
use crate::launcher::{StartError, StartKind, VmProcess};

/// How long a process may take to end.
const END: Duration = Duration::from_secs(2);

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub(in crate::launch) enum MakeError {
    #[error("make memory for the template")]
    Memory(#[source] io::Error),
    #[error("start the template")]
    Start(#[from] StartError),
    #[error("template ended: {0}")]
    Ended(ExitReason),
    #[error("template not ready and idle within {0:?}")]
    Late(Duration),
    #[error("canary not ready within {0:?}")]
    NotReady(Duration),
    #[error("template's state has {0} bytes")]
    State(usize),
    #[error("seal the template's memory")]
    Seal(#[source] io::Error),
    #[error("start the canary")]
    Canary(#[source] CloneError),
    #[error("canary ended: {0}")]
    CanaryEnded(ExitReason),
    #[error("canary is not healthy")]
    Unhealthy(#[from] Unhealthy),
    #[error("find the working set")]
    WorkingSet(#[source] io::Error),
}

/// A template, and what to say of it.
#[derive(Debug)]
pub(in crate::launch) struct Made {
    pub(in crate::launch) template: Template,
    /// Bytes of memory that it has.
    pub(super) resident: u64,
}

impl Made {
    /// Pages of the working set.
    pub(super) fn touched(&self) -> u32 {
        self.template.working_set.iter().map(|run| run.count).sum()
    }
}

/// Makes a template of `pool` from `image`; its VM has `number`, the canary the one behind it.
pub(in crate::launch) async fn make(
    parts: &Parts,
    pool: &Arc<Pool>,
    image: &Image,
    number: u64,
) -> Result<Made, MakeError> {
    let memory = pages::create(&pool.name, pool.memory).map_err(MakeError::Memory)?;
    let state = frozen(parts, pool, image, VmId(number), &memory).await?;
    pages::freeze(&memory).map_err(MakeError::Seal)?;
    let template = Template { memory, state, working_set: Vec::new() };
    prove(parts, pool, number + 1, template).await
}

/// Has a clone of `template`, whose number is `number`, show that it works, and learns what such a clone writes to.
pub(super) async fn prove(
    parts: &Parts,
    pool: &Arc<Pool>,
    number: u64,
    template: Template,
) -> Result<Made, MakeError> {
    let (template, working_set) = canary(parts, pool, VmId(number), template).await?;
    let resident = pages::resident(&template.memory).map_err(MakeError::WorkingSet)?;
    Ok(Made { template: Template { working_set, ..template }, resident })
}

/// Has a VM that boots `image`, whose number is `number`, show that it works.
pub(in crate::launch) async fn prove_by_boot(
    parts: &Parts,
    pool: &Arc<Pool>,
    image: &Image,
    number: u64,
) -> Result<(), MakeError> {
    let limit = pool.start_timeout;
    let ready = async {
        let mut process = boot(parts, VmId(number), pool, image).await?;
        process.until_ready().await.map(|()| process).map_err(MakeError::CanaryEnded)
    };
    let ready = timeout(limit, ready).await.map_err(|_| MakeError::NotReady(limit))?;
    healthy(ready?, pool).await
}

/// Boots a VM in `memory`, and has it frozen; its process is gone then.
async fn frozen(
    parts: &Parts,
    pool: &Arc<Pool>,
    image: &Image,
    id: VmId,
    memory: &File,
) -> Result<Vec<u8>, MakeError> {
    let limit = pool.start_timeout;
    let until = Instant::now() + limit;
    let late = |_| MakeError::Late(limit);
    let (taken, link) = timeout_at(until, parts.gather_awake()).await.map_err(late)??;
    let order = BootOrder { spec: parts.spec(id, pool, &link.link), template: true };
    let address = address(pool, &link.link);
    let mut process = Process::new(address, taken.child, StartKind::Cold, Box::new(link.link));
    let files = [image.as_fd(), link.tap.as_fd(), memory.as_fd()];
    process.limit(pool);
    process.order(&VmCommand::Boot(Box::new(order)), &files).await?;
    let log = GuestLog::new(&pool.name, id, Instant::now());
    let state = timeout_at(until, state_of(&mut process, log)).await.map_err(late).flatten();
    if matches!(state, Err(MakeError::Late(_) | MakeError::State(_))) {
        // Its memory is given up, and no template of the pool is made beside it.
        process.kill();
        ended(&mut process).await;
    }
    state
}

/// Hears a template to its end.
async fn state_of(process: &mut Process, mut log: GuestLog) -> Result<Vec<u8>, MakeError> {
    let mut state = None;
    loop {
        match process.next_event().await {
            VmEvent::Ready | VmEvent::Report { .. } => {}
            VmEvent::Log(line) => log.line(&line, Instant::now()),
            VmEvent::Frozen(bytes) if bytes.len() > STATE_MAX => return Err(MakeError::State(bytes.len())),
            VmEvent::Frozen(bytes) => state = Some(bytes),
            VmEvent::Exit(reason) => return state.ok_or(MakeError::Ended(reason)),
        }
    }
}

/// Has a clone of `template` pass the health check, on a copy of the memory, which tells what it wrote to.
async fn canary(
    parts: &Parts,
    pool: &Arc<Pool>,
    id: VmId,
    template: Template,
) -> Result<(Template, Vec<PageRun>), MakeError> {
    let Template { memory, state, working_set } = template;
    let (memory, copy) = blocking(move || pages::copy("canary", &memory).map(|copy| (memory, copy)))
        .await
        .map_err(MakeError::Memory)?;
    let copied = Template { memory: copy, state, working_set };
    let process = clone(parts, &copied, id, pool, Sharing::Shared).await.map_err(MakeError::Canary)?;
    healthy(process, pool).await?;
    let Template { memory: copy, state, working_set } = copied;
    let (memory, touched) = blocking(move || pages::changed(&memory, &copy).map(|touched| (memory, touched)))
        .await
        .map_err(MakeError::WorkingSet)?;
    Ok((Template { memory, state, working_set }, touched))
}

/// Has a VM that is READY pass the health check; its process is gone then.
async fn healthy(mut process: Process, pool: &Pool) -> Result<(), MakeError> {
    let address = process.address();
    let checked = tokio::select! {
        checked = check_canary(address, &pool.health) => checked,
        // Nobody resets a connection for it: the check would wait in vain.
        reason = ended(&mut process) => return Err(MakeError::CanaryEnded(reason)),
    };
    process.stop();
    if timeout(END, ended(&mut process)).await.is_err() {
        process.kill();
        ended(&mut process).await;
    }
    Ok(checked?)
}

async fn ended(process: &mut Process) -> ExitReason {
    loop {
        if let VmEvent::Exit(reason) = process.next_event().await {
            return reason;
        }
    }
}
