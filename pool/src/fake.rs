//! A launcher whose VMs do what a script says, in tokio's time: for tests of pools, and of what stands on them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, pending};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use weir_config::model::{
    Class, Config, Health, Host, Isolation, Kind, MetricSelector, Pool, Quarantine, Queue, Retry, Scale,
    Signal, Thousandths, VmLimits,
};
use weir_vmm::{ExitReason, VmEvent, VmId};

use crate::health::Unhealthy;
use crate::launcher::{
    Launcher, PrepareError, Prepared, Revision, StartError, StartKind, StartOrder, VmProcess,
};

/// What a VM does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it claims to listen.
    pub address: SocketAddr,
    /// How it comes up.
    pub boot: Boot,
    /// What it claims to be made from.
    pub kind: StartKind,
    /// How it goes back to its snapshot.
    pub reset: Reset,
    /// How often it has gone back; may be shared with what plays its application.
    pub resets: Arc<AtomicU32>,
    /// What it says of its guest.
    pub report: Report,
    /// How long it takes to end when asked to; `None`: it does not listen.
    pub stop: Option<Duration>,
}

/// How a VM comes up.
#[derive(Clone, Debug)]
pub enum Boot {
    /// READY after this time.
    Ready(Duration),
    /// Runs, but is never READY.
    Silent,
    /// Ends after this time.
    Exits(Duration, ExitReason),
    /// There is no process: the launcher refuses.
    Refused(String),
    /// The launcher does not answer.
    Hangs,
}

/// How a VM goes back to its snapshot.
#[derive(Clone, Debug)]
pub enum Reset {
    /// READY after this time.
    Ready(Duration),
    /// Never.
    Hangs,
    /// Ends instead after this time.
    Exits(Duration, ExitReason),
}

/// What a VM says when it is asked what its guest does without requests.
#[derive(Clone, Debug, Default)]
pub enum Report {
    /// Nothing for longer than anybody remembers.
    #[default]
    Quiet,
    /// Something, until then.
    WorksUntil(Instant),
    /// It does not answer.
    Silent,
}

/// What is wrong with a VM that is READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// Its application answers health checks with this status.
    Status(u16),
    /// Its guest answers nobody.
    Silent,
    /// Its process does nothing at all, as if stopped by a signal; it can be killed.
    Stopped,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FakeLauncher {
    vms: Arc<Mutex<Vms>>,
}

#[derive(Debug)]
struct Vms {
    usual: Script,
    next: VecDeque<Script>,
    started: Vec<Started>,
    /// What VMs of a later revision than the first do, where that is not usual.
    revisions: BTreeMap<Revision, Script>,
    /// How new revisions come about, in order; where there is none left: at once.
    preparations: VecDeque<(Duration, Result<Prepared, String>)>,
    settled: Vec<Revision>,
    resets: BTreeMap<VmId, u32>,
    /// Those that nothing ends.
    stuck: BTreeSet<VmId>,
    ailments: BTreeMap<VmId, Ailment>,
    checked: Vec<(VmId, Instant)>,
    alive: BTreeMap<VmId, (String, mpsc::UnboundedSender<Command>)>,
}

/// A start that was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Of which VM.
    pub id: VmId,
    /// For which pool.
    pub pool: String,
    /// From which revision.
    pub revision: Revision,
    /// When.
    pub at: Instant,
}

#[derive(Debug)]
enum Command {
    Say(VmEvent),
    Reset,
    Report,
    Stop,
}

#[derive(Debug)]
struct FakeProcess {
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

impl Script {
    /// READY after `boot` at `address`, and ends at once when asked to.
    pub fn ready_after(boot: Duration, address: SocketAddr) -> Self {
        Self { address, ..Self::boot(Boot::Ready(boot)) }
    }

    /// As `boot` says, at an address where nobody listens.
    pub fn boot(boot: Boot) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, 1).into(),
            boot,
            kind: StartKind::Cold,
            reset: Reset::Ready(Duration::ZERO),
            resets: Arc::default(),
            report: Report::default(),
            stop: Some(Duration::ZERO),
        }
    }
}

impl FakeLauncher {
    /// A launcher whose VMs do what `usual` says, unless [`Self::script_next`] says otherwise.
    pub fn new(usual: Script) -> Arc<Self> {
        let vms = Vms {
            usual,
            next: VecDeque::new(),
            started: Vec::new(),
            revisions: BTreeMap::new(),
            preparations: VecDeque::new(),
            settled: Vec::new(),
            resets: BTreeMap::new(),
            stuck: BTreeSet::new(),
            ailments: BTreeMap::new(),
            checked: Vec::new(),
            alive: BTreeMap::new(),
        };
        Arc::new(Self { vms: Arc::new(Mutex::new(vms)) })
    }

    /// What the next VM (after those already scripted) does.
    pub fn script_next(&self, script: Script) {
        self.vms.lock().next.push_back(script);
    }

    /// Forgets the scripts that no VM has used yet.
    pub fn forget_scripts(&self) {
        self.vms.lock().next.clear();
    }

    /// What all VMs without a script of their own do from now on.
    pub fn script_usual(&self, script: Script) {
        self.vms.lock().usual = script;
    }

    /// What VMs of `revision` do, unless [`Self::script_next`] says otherwise.
    pub fn script_revision(&self, revision: Revision, script: Script) {
        self.vms.lock().revisions.insert(revision, script);
    }

    /// How the next new revision (after those already scripted) comes about, and how long that takes.
    pub fn prepare_next(&self, after: Duration, made: Result<Prepared, String>) {
        self.vms.lock().preparations.push_back((after, made));
    }

    /// The revisions that were settled on, in order.
    pub fn settled(&self) -> Vec<Revision> {
        self.vms.lock().settled.clone()
    }

    /// All starts so far, in order.
    pub fn started(&self) -> Vec<Started> {
        self.vms.lock().started.clone()
    }

    /// How often a VM has gone back to its snapshot.
    pub fn resets(&self, id: VmId) -> u32 {
        self.vms.lock().resets.get(&id).copied().unwrap_or(0)
    }

    /// Processes of `pool` that exist.
    pub fn alive(&self, pool: &str) -> Vec<VmId> {
        let vms = self.vms.lock();
        vms.alive.iter().filter(|(_, (name, _))| name == pool).map(|(id, _)| *id).collect()
    }

    /// Ends a VM for `reason`.
    pub fn crash(&self, id: VmId, reason: ExitReason) {
        self.say(id, VmEvent::Exit(reason));
    }

    /// From now on a VM neither listens nor can be killed, as a process that is stuck in the kernel.
    pub fn stick(&self, id: VmId) {
        self.vms.lock().stuck.insert(id);
    }

    /// From now on something is wrong with a VM, or nothing.
    pub fn set_ailment(&self, id: VmId, ailment: Option<Ailment>) {
        let ailments = &mut self.vms.lock().ailments;
        match ailment {
            Some(ailment) => drop(ailments.insert(id, ailment)),
            None => drop(ailments.remove(&id)),
        }
    }

    /// All health checks so far, in order.
    pub fn checked(&self) -> Vec<(VmId, Instant)> {
        self.vms.lock().checked.clone()
    }

    /// Lets a VM say something.
    pub fn say(&self, id: VmId, event: VmEvent) {
        if let Some((_, commands)) = self.vms.lock().alive.get(&id) {
            // A process that has ended listens no more.
            let _ = commands.send(Command::Say(event));
        }
    }
}

impl Launcher for FakeLauncher {
    fn start(&self, order: StartOrder) -> BoxFuture<'static, Result<Box<dyn VmProcess>, StartError>> {
        let (own_commands, commands) = mpsc::unbounded_channel();
        let now = Instant::now();
        let mut vms = self.vms.lock();
        let StartOrder { id, ref pool, revision } = order;
        vms.started.push(Started { id, pool: pool.name.clone(), revision, at: now });
        let usual = vms.revisions.get(&revision).unwrap_or(&vms.usual).clone();
        let script = vms.next.pop_front().unwrap_or(usual);
        let plan = match &script.boot {
            Boot::Ready(after) => Some((now + *after, VmEvent::Ready)),
            Boot::Exits(after, reason) => Some((now + *after, VmEvent::Exit(reason.clone()))),
            Boot::Silent => None,
            Boot::Refused(error) => {
                let refused = StartError::Refused(error.clone());
                return async { Err(refused) }.boxed();
            }
            Boot::Hangs => return pending().boxed(),
        };
        vms.alive.insert(order.id, (order.pool.name.clone(), own_commands.clone()));
        let vms = self.vms.clone();
        let process =
            FakeProcess { id: order.id, script, vms, commands, own_commands, plan, resetting: false };
        async { Ok(Box::new(process) as Box<dyn VmProcess>) }.boxed()
    }

    fn prepare(&self, _: Arc<Pool>, _: Revision) -> BoxFuture<'static, Result<Prepared, PrepareError>> {
        let usual = (Duration::ZERO, Ok(Prepared { image_changed: false }));
        let (after, made) = self.vms.lock().preparations.pop_front().unwrap_or(usual);
        async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            made.map_err(PrepareError::Image)
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

impl Report {
    fn event(&self, now: Instant) -> Option<VmEvent> {
        let quiet = match self {
            Self::Quiet => Duration::MAX,
            Self::WorksUntil(until) => now.saturating_duration_since(*until),
            Self::Silent => return None,
        };
        Some(VmEvent::Report { quiet })
    }
}

impl FakeProcess {
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

/// A pool called `name`: up to 4 VMs, none kept, soft limit 2, hard limit 4, 8 may wait for 10 s, idle after 30 s.
pub fn pool(name: &str) -> Pool {
    Pool {
        name: name.to_owned(),
        kind: Kind::Unikernel,
        image: "hello".to_owned(),
        port: 8080,
        vcpus: 1,
        memory: 16 << 20,
        env: BTreeMap::new(),
        args: Vec::new(),
        weight: 1,
        isolation: Isolation::Vm,
        soft_limit: 2,
        hard_limit: 4,
        start_timeout: Duration::from_secs(5),
        scale: Scale { max: 4, ..Scale::default() },
        queue: Queue { max_pending: 8, ..Queue::default() },
        health: Health::default(),
        retry: Retry::default(),
        quarantine: Quarantine::default(),
        signal: None,
        limits: VmLimits::default(),
    }
}

/// The sum of the metric called `name`, `target` of which are one VM's work; asked for every second.
pub fn signal(name: &str, target: Thousandths) -> Signal {
    Signal {
        scrape: "/metrics".to_owned(),
        metric: MetricSelector { text: name.to_owned(), name: name.to_owned(), labels: BTreeMap::new() },
        target,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        weights: false,
    }
}

/// A configuration of these pools on a host with room for many.
pub fn config(pools: impl IntoIterator<Item = Pool>) -> Config {
    Config {
        listeners: Vec::new(),
        admin: None,
        host: Host::default(),
        classes: [(Class::DEFAULT.to_owned(), Arc::default())].into(),
        pools: pools.into_iter().map(|pool| (pool.name.clone(), Arc::new(pool))).collect(),
        routes: Vec::new(),
    }
}
