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
//! Where requests or connections are isolated, `ready` has a loop of its own:
//!
//! ```text
//!  ready --dirty gate--> resetting --READY--> ready, gate renewed
//!                            | not within RESET_TIMEOUT: kill
//!                            v
//!                          gone
//! ```
//!
//! It kills the process when it is told that the VM is lost (see [`crate::health`]). It tells the pool's owner of the
//! first READY, of what the guest does without requests if that was asked, and of the end, and keeps everything else,
//! above all the guest's log, away from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use weir_vmm::{ExitReason, VmEvent, VmId};

use crate::guest_log::GuestLog;
use crate::idle::PATIENCE;
use crate::launcher::{Launcher, StartError, StartOrder, VmProcess};
use crate::owner::Event;
use crate::shared::Shared;
use crate::vm::{Order, Vm};

/// How long a VM may take to end when asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How long a VM may take to go back to its snapshot; it takes well under a millisecond where nothing is wrong.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// How a VM ended.
#[derive(Debug)]
pub(crate) enum End {
    /// There was no process.
    NotStarted(StartError),
    /// It was killed because it was not READY in time.
    NotReady(Duration),
    /// It was killed because it did not go back to its snapshot in time.
    NotReset,
    /// The process ended.
    Exited(ExitReason),
}

/// Starts the VM of `order` and stays with it. `stop`, or its sender's end, stops it.
pub(crate) async fn drive(
    launcher: Arc<dyn Launcher>,
    order: StartOrder,
    stop: oneshot::Receiver<()>,
    shared: Arc<Shared>,
) {
    let id = order.id;
    let end = live(launcher, order, stop, &shared).await;
    // An owner that is gone has no interest.
    drop(shared.events.send(Event::Gone { id, end }));
}

async fn live(
    launcher: Arc<dyn Launcher>,
    order: StartOrder,
    mut stop: oneshot::Receiver<()>,
    shared: &Arc<Shared>,
) -> End {
    let start_timeout = order.pool.start_timeout;
    let (id, now) = (order.id, Instant::now());
    let mut log = GuestLog::new(&order.pool.name, id, now);
    let late = now + start_timeout;
    let mut starting = launcher.start(order);
    let started = tokio::select! {
        biased;
        _ = &mut stop => Err(End::Exited(ExitReason::Stopped)),
        () = sleep_until(late) => Err(End::NotReady(start_timeout)),
        started = &mut starting => started.map_err(End::NotStarted),
    };
    match started {
        Ok(process) => run(id, process, late, log, stop, shared).await,
        Err(why @ End::NotStarted(_)) => why,
        Err(why) => {
            // What comes into being all the same is to be gone before this says so.
            if let Ok(Ok(process)) = timeout(GRACE, starting).await {
                end(process, &mut log).await;
            }
            why
        }
    }
}

/// What a READY is waited for.
enum Awaited {
    Nothing,
    Start,
    Reset { vm: Arc<Vm>, since: Instant },
}

impl Awaited {
    /// It did not come in time.
    fn missed(&self, shared: &Shared) -> End {
        match self {
            Self::Reset { .. } => End::NotReset,
            Self::Start | Self::Nothing => End::NotReady(shared.config.start_timeout),
        }
    }
}

/// Who wants to hear from the process. Any answer is one to all.
#[derive(Debug, Default)]
struct Reports {
    /// Those that only ask whether it answers.
    pings: Vec<oneshot::Sender<()>>,
    /// The owner asks what the guest does.
    is_owed: bool,
}

impl Reports {
    fn ping(&mut self, answered: oneshot::Sender<()>) {
        // Who has asked before and waits no more is forgotten here, and not only when there is an answer.
        self.pings.retain(|waiting| !waiting.is_closed());
        self.pings.push(answered);
    }

    /// There is an answer; whether the owner is owed it.
    fn answered(&mut self) -> bool {
        for waiting in self.pings.drain(..) {
            // Whoever waits no more needs no answer.
            let _ = waiting.send(());
        }
        std::mem::take(&mut self.is_owed)
    }
}

async fn run(
    id: VmId,
    mut process: Box<dyn VmProcess>,
    start_by: Instant,
    mut log: GuestLog,
    mut stop: oneshot::Receiver<()>,
    shared: &Arc<Shared>,
) -> End {
    let (orders, mut ordered) = mpsc::unbounded_channel();
    let mut reports = Reports::default();
    let mut awaited = Awaited::Start;
    let late = sleep_until(start_by);
    tokio::pin!(late);
    let unanswered = sleep_until(start_by);
    tokio::pin!(unanswered);
    let heard = |quiet| drop(shared.events.send(Event::Report { id, quiet }));
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => return End::Exited(end(process, &mut log).await),
            () = &mut late, if !matches!(awaited, Awaited::Nothing) => {
                process.kill();
                exit(&mut process, &mut log).await;
                return awaited.missed(shared);
            }
            () = &mut unanswered, if reports.is_owed => {
                reports.is_owed = false;
                heard(None);
            }
            Some(order) = ordered.recv() => match order {
                // A gate is not dirty twice before it is renewed, so one reset at a time is ordered.
                Order::Reset(vm) => {
                    let since = Instant::now();
                    process.reset();
                    late.as_mut().reset(since + RESET_TIMEOUT);
                    awaited = Awaited::Reset { vm, since };
                }
                Order::Ping(answered) => {
                    reports.ping(answered);
                    process.report();
                }
                Order::Kill => process.kill(),
                Order::Report => {
                    process.report();
                    unanswered.as_mut().reset(Instant::now() + PATIENCE);
                    reports.is_owed = true;
                }
            },
            event = process.next_event() => match event {
                VmEvent::Ready => match std::mem::replace(&mut awaited, Awaited::Nothing) {
                    // Nobody asked.
                    Awaited::Nothing => {}
                    Awaited::Start => ready(id, &*process, orders.clone(), shared),
                    Awaited::Reset { vm, since } => {
                        let now = Instant::now();
                        shared.renewed(&vm, now.saturating_duration_since(since), now);
                    }
                },
                VmEvent::Log(text) => log.line(&text, Instant::now()),
                // Only a template is asked for this.
                VmEvent::Frozen(_) => {}
                VmEvent::Report { quiet } => if reports.answered() {
                    heard(Some(quiet));
                },
                VmEvent::Exit(reason) => return End::Exited(reason),
            },
        }
    }
}

fn ready(id: VmId, process: &dyn VmProcess, orders: mpsc::UnboundedSender<Order>, shared: &Arc<Shared>) {
    let (address, kind) = (process.address(), process.kind());
    let vm = Vm::new(id, address, kind.into(), Instant::now(), orders, shared.clone());
    drop(shared.events.send(Event::Ready { vm, kind }));
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
            VmEvent::Ready | VmEvent::Frozen(_) | VmEvent::Report { .. } => {}
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
            Self::NotReset => "reset_timeout",
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
            Self::NotReset => format!("not reset within {RESET_TIMEOUT:?}"),
            Self::Exited(reason) => reason.to_string(),
        }
    }
}
