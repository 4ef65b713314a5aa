//! One VM's task: from the order to start it until its process is gone.
//!
//! ```text
//!  order --start--> booting --READY--> ready --stop--> stopping --exit--> gone
//!    |                 |  \              |                | not within GRACE: kill
//!    | error           |   \ stop        | exit           v
//!    v                 |    +----------- | ----------> (stopping)
//!   gone <-------------+-----------------+
//!          exit, or killed because it is not READY within start_timeout
//! ```
//!
//! It tells the pool's owner of READY and of the end, and keeps everything else, above all the guest's log, away
//! from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use weir_vmm::{ExitReason, VmEvent};

use crate::guest_log::GuestLog;
use crate::launcher::{Launcher, StartError, StartOrder, VmProcess};
use crate::owner::Event;

/// How long a VM may take to end when asked to.
const GRACE: Duration = Duration::from_secs(1);

/// How a VM ended.
#[derive(Debug)]
pub(crate) enum End {
    /// There was no process.
    NotStarted(StartError),
    /// It was killed because it was not READY in time.
    NotReady(Duration),
    /// The process ended.
    Exited(ExitReason),
}

/// Starts the VM of `order` and stays with it. `stop`, or its sender's end, stops it.
pub(crate) async fn drive(
    launcher: Arc<dyn Launcher>,
    order: StartOrder,
    stop: oneshot::Receiver<()>,
    owner: mpsc::UnboundedSender<Event>,
) {
    let id = order.id;
    let end = live(launcher, order, stop, &owner).await;
    // An owner that is gone has no interest.
    drop(owner.send(Event::Gone { id, end }));
}

async fn live(
    launcher: Arc<dyn Launcher>,
    order: StartOrder,
    mut stop: oneshot::Receiver<()>,
    owner: &mpsc::UnboundedSender<Event>,
) -> End {
    let start_timeout = order.pool.start_timeout;
    let (id, now) = (order.id, Instant::now());
    let mut log = GuestLog::new(&order.pool.name, id, now);
    let late = sleep_until(now + start_timeout);
    tokio::pin!(late);
    let mut starting = launcher.start(order);
    let started = tokio::select! {
        biased;
        _ = &mut stop => Err(End::Exited(ExitReason::Stopped)),
        () = &mut late => Err(End::NotReady(start_timeout)),
        started = &mut starting => started.map_err(End::NotStarted),
    };
    let mut process = match started {
        Ok(process) => process,
        Err(why @ End::NotStarted(_)) => return why,
        Err(why) => {
            // What comes into being all the same is to be gone before this says so.
            if let Ok(Ok(process)) = timeout(GRACE, starting).await {
                end(process, &mut log).await;
            }
            return why;
        }
    };
    let mut ready = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => return End::Exited(end(process, &mut log).await),
            () = &mut late, if !ready => {
                process.kill();
                exit(&mut process, &mut log).await;
                return End::NotReady(start_timeout);
            }
            event = process.next_event() => match event {
                VmEvent::Ready if ready => {}
                VmEvent::Ready => {
                    ready = true;
                    drop(owner.send(Event::Ready { id, address: process.address() }));
                }
                VmEvent::Log(text) => log.line(&text, Instant::now()),
                VmEvent::Exit(reason) => return End::Exited(reason),
            },
        }
    }
}

async fn end(mut process: Box<dyn VmProcess>, log: &mut GuestLog) -> ExitReason {
    process.stop();
    if let Ok(reason) = timeout(GRACE, exit(&mut process, log)).await {
        return reason;
    }
    process.kill();
    exit(&mut process, log).await
}

async fn exit(process: &mut Box<dyn VmProcess>, log: &mut GuestLog) -> ExitReason {
    loop {
        match process.next_event().await {
            VmEvent::Ready => {}
            VmEvent::Log(text) => log.line(&text, Instant::now()),
            VmEvent::Exit(reason) => return reason,
        }
    }
}

impl End {
    /// Short stable word for the `reason` label of `weir_vm_exits_total`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NotStarted(_) => "start_failed",
            Self::NotReady(_) => "start_timeout",
            Self::Exited(reason) => reason.label(),
        }
    }

    /// For logs and for the requests that waited: the whole chain of causes.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::NotStarted(error) => {
                let first: &dyn std::error::Error = error;
                let causes: Vec<_> = std::iter::successors(Some(first), |error| error.source())
                    .map(ToString::to_string)
                    .collect();
                causes.join(": ")
            }
            Self::NotReady(limit) => format!("not ready within {limit:?}"),
            Self::Exited(reason) => reason.to_string(),
        }
    }
}
