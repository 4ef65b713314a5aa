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
//! It kills the process when it is told that the VM is lost (see [`crate::health`]), and passes questions on to it. It
//! tells the pool's owner of the first READY and of the end, and keeps everything else, above all the guest's log, away
//! from it.

mod end;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use weir_vmm::{ExitReason, VmEvent, VmId};

use crate::guest_log::GuestLog;
use crate::launcher::{Launcher, StartOrder, VmProcess};
use crate::owner::Event;
use crate::shared::Shared;
use crate::vm::{Order, Vm};

pub(crate) use end::End;

/// How long a VM may take to end when asked to.
const GRACE: Duration = Duration::from_secs(1);
/// How long a VM may take to go back to its snapshot; it takes well under a millisecond where nothing is wrong.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the VM of `order` and stays with it. `stop`, or its sender's end, stops it.
pub(crate) async fn drive(
    launcher: Arc<dyn Launcher>,
    order: StartOrder,
    stop: oneshot::Receiver<()>,
    shared: Arc<Shared>,
) {
    let id = order.id;
    let live = AssertUnwindSafe(live(launcher, order, stop, &shared)).catch_unwind();
    // Were this end lost, the pool would keep the VM on its books, and the host its room, for ever.
    let end = live.await.unwrap_or_else(|_| End::Exited(ExitReason::Host("its task panicked".to_owned())));
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
            Self::Start | Self::Nothing => End::NotReady(shared.config().start_timeout),
        }
    }
}

/// Those that have asked what the guest does, and wait. Any answer is one to all.
#[derive(Debug, Default)]
struct Asking(Vec<oneshot::Sender<Duration>>);

impl Asking {
    fn one_more(&mut self, answer: oneshot::Sender<Duration>) {
        // Who has asked before and waits no more is forgotten here, and not only when there is an answer.
        self.0.retain(|waiting| !waiting.is_closed());
        self.0.push(answer);
    }

    fn answered(&mut self, quiet: Duration) {
        for waiting in self.0.drain(..) {
            // Whoever waits no more needs no answer.
            let _ = waiting.send(quiet);
        }
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
    let mut asking = Asking::default();
    let mut awaited = Awaited::Start;
    let late = sleep_until(start_by);
    tokio::pin!(late);
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => return End::Exited(end(process, &mut log).await),
            () = &mut late, if !matches!(awaited, Awaited::Nothing) => {
                process.kill();
                exit(&mut process, &mut log).await;
                return awaited.missed(shared);
            }
            Some(order) = ordered.recv() => match order {
                // A gate is not dirty twice before it is renewed, so one reset at a time is ordered.
                Order::Reset(vm) => {
                    let since = Instant::now();
                    process.reset();
                    late.as_mut().reset(since + RESET_TIMEOUT);
                    awaited = Awaited::Reset { vm, since };
                }
                Order::Report(answer) => {
                    asking.one_more(answer);
                    process.report();
                }
                Order::Kill => process.kill(),
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
                VmEvent::Report { quiet } => asking.answered(quiet),
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
