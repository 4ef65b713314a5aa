//! A VM's process, which plays its script.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use futures::future::{BoxFuture, FutureExt, pending};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use weir_vmm::{ExitReason, VmEvent, VmId};

use super::{Ailment, Boot, Reset, Script, Vms};
use crate::launcher::{StartKind, VmProcess};

/// What it is told, by the test or by the pool.
#[derive(Debug)]
pub(super) enum Command {
    Say(VmEvent),
    Reset,
    Report,
    Stop,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct FakeProcess {
    id: VmId,
    script: Script,
    vms: Arc<Mutex<Vms>>,
    commands: mpsc::UnboundedReceiver<Command>,
    own_commands: mpsc::UnboundedSender<Command>,
    /// What it will say by itself, and when.
    plan: Option<(Instant, VmEvent)>,
    /// What it will say is the end of a reset.
    resetting: bool,
}

impl FakeProcess {
    /// One that begins to boot `now`, as `script` says, and the way to tell it something.
    pub(super) fn new(
        id: VmId,
        script: Script,
        vms: Arc<Mutex<Vms>>,
        now: Instant,
    ) -> (Self, mpsc::UnboundedSender<Command>) {
        let (own_commands, commands) = mpsc::unbounded_channel();
        let plan = match &script.boot {
            Boot::Ready(after) => Some((now + *after, VmEvent::Ready)),
            Boot::Exits(after, reason) => Some((now + *after, VmEvent::Exit(reason.clone()))),
            Boot::Silent | Boot::Refused(_) | Boot::Hangs | Boot::Panics => None,
        };
        let told = own_commands.clone();
        (Self { id, script, vms, commands, own_commands, plan, resetting: false }, told)
    }

    fn command(&self, command: Command) {
        let vms = self.vms.lock();
        let stopped = vms.ailments.get(&self.id) == Some(&Ailment::Stopped);
        let hears = !stopped || matches!(command, Command::Say(_));
        if hears && !vms.stuck.contains(&self.id) {
            // It goes to itself.
            let _ = self.own_commands.send(command);
        }
    }

    async fn next(&mut self) -> VmEvent {
        loop {
            let planned = async {
                match &self.plan {
                    // A timer takes a millisecond at least.
                    Some((at, _)) if *at <= Instant::now() => {}
                    Some((at, _)) => sleep_until(*at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Say(event)) => return event,
                    Some(Command::Reset) => self.plan_reset(),
                    Some(Command::Report) => if let Some(report) = self.script.report.event(Instant::now()) {
                        return report;
                    },
                    Some(Command::Stop) => {
                        let stopped = |after| (Instant::now() + after, VmEvent::Exit(ExitReason::Stopped));
                        self.plan = self.script.stop.map(stopped).or(self.plan.take());
                    }
                    None => pending().await,
                },
                () = planned => if let Some((_, event)) = self.plan.take() {
                    if std::mem::take(&mut self.resetting) && event == VmEvent::Ready {
                        self.script.resets.fetch_add(1, SeqCst);
                        *self.vms.lock().resets.entry(self.id).or_default() += 1;
                    }
                    return event;
                },
            }
        }
    }

    fn plan_reset(&mut self) {
        let now = Instant::now();
        self.plan = match &self.script.reset {
            Reset::Ready(after) => Some((now + *after, VmEvent::Ready)),
            Reset::Exits(after, reason) => Some((now + *after, VmEvent::Exit(reason.clone()))),
            Reset::Hangs => None,
        };
        self.resetting = true;
    }
}

impl VmProcess for FakeProcess {
    fn address(&self) -> SocketAddr {
        self.script.address
    }

    fn next_event(&mut self) -> BoxFuture<'_, VmEvent> {
        async {
            let event = self.next().await;
            if matches!(event, VmEvent::Exit(_)) {
                self.vms.lock().alive.remove(&self.id);
            }
            event
        }
        .boxed()
    }

    fn kind(&self) -> StartKind {
        self.script.kind
    }

    fn reset(&self) {
        self.command(Command::Reset);
    }

    fn report(&self) {
        self.command(Command::Report);
    }

    fn stop(&self) {
        self.command(Command::Stop);
    }

    fn kill(&self) {
        self.command(Command::Say(VmEvent::Exit(ExitReason::Died("signal 9 (SIGKILL)".into()))));
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        self.vms.lock().alive.remove(&self.id);
    }
}
