//! `weir serve`: from the configuration to the last response.
//!
//! The order matters: sockets are bound while this process has one thread and is in the host's network namespace; then
//! it moves into its own; only then do threads start, and the launcher, and with it VMs. One thread starts earlier and stays
//! in the host's, to reach the servers of external pools and to bind the listeners of later configurations, see [`reload`].

mod access_log;
mod file;
mod notify;
mod place;
mod reload;
mod signals;
mod steer;
mod upgrade;

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use weir_config::{Config, ListenAddress};
use weir_net::host::HostThread;
use weir_net::namespace::{self, PrivateNamespace};
use weir_net::tap::TapPool;
use weir_pool::launch::{ReadImage, seal};
use weir_pool::{HostNetwork, LaunchMetrics, Materials, PoolMetrics, Pools, Snapshots, VmLauncher};
use weir_proxy::acme::{Acme, AcmeMetrics, Challenges};
use weir_proxy::admin::{self, ProcessOrder, Readiness};
use weir_proxy::otlp::{Otlp, OtlpMetrics};
use weir_proxy::{AccessLogWriter, Drained, Listeners, Metrics, ServeError, Server, Timeouts};
use weir_vmm::cgroup::{CgroupPool, Cgroups};
use weir_vmm::launcher::{LauncherEnd, LauncherHandle, SpawnError};

use self::file::ConfigFile;
use self::place::Place;
use self::reload::{Reload, Source};
use self::signals::Signals;
use self::steer::Steer;
use self::upgrade::Upgrade;
use crate::cli::{Failure, ServeOptions};
use crate::handover::{Inheritance, Program};
use crate::images::Images;
use crate::{check, images, logging};

/// Largest IP packet on a TAP link, bytes.
pub(crate) const MTU: u16 = 1500;

/// How long VMs may take to end once all requests have.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the access log's last lines may take to be written, and then the last spans to be sent.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or SIGINT, or until another weir has taken over, then drains.
///
/// # Errors
/// A wrong configuration, or what could not be set up.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), Failure> {
    let program = Program::this().context("find out which program this is")?;
    let inheritance = Inheritance::take().context("take over from another weir")?;
    // Looked at before it is read, so that no change is missed.
    let file = ConfigFile::new(&options.config);
    let (config, images) = check::load(&options.config)?;
    devices_are_usable()?;
    let snapshots =
        config.host.snapshots.as_deref().map(Snapshots::open).transpose().context("keep snapshots")?;
    namespace::become_user_root().context("become root of a user namespace")?;
    let (place, listeners) = Place::bind(&config, inheritance)?;
    let outside =
        HostThread::start().context("start the thread that stays in the host's network namespace")?;
    let outside = Arc::new(outside);
    let namespace =
        namespace::enter_private_beside(&[&outside]).context("enter a private network namespace")?;
    let _log = logging::start(options.log_format);
    raise_file_limit();
    let groups = control_groups();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let launchers = Launchers::default();
    let below = Below {
        images,
        snapshots,
        groups: groups.clone(),
        namespace: &namespace,
        outside: HostNetwork::new(outside.clone()),
        launchers: launchers.clone(),
    };
    let sockets = Sockets { listeners, place, program };
    let source = Source { file, outside };
    let outcome = runtime.block_on(run(source, Arc::new(config), below, sockets));
    // A thread that cannot write its last line must not keep weir alive.
    runtime.shutdown_timeout(LOG_TIMEOUT);
    // Only without processes can the groups be removed.
    launchers.wait();
    drop(groups);
    Ok(outcome?)
}

/// Without them no VM would ever start: better to say so than to serve errors.
fn devices_are_usable() -> anyhow::Result<()> {
    weir_vmm::kvm::open()?;
    weir_net::doctor::tun()?;
    Ok(())
}

/// Best effort: with what the limit is, weir works, with fewer connections at once.
fn raise_file_limit() {
    match weir_proxy::raise_descriptor_limit() {
        Ok(files) => tracing::info!(?files, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors stays low"),
    }
}

/// All launchers there ever were.
#[derive(Clone, Default)]
struct Launchers(Arc<Mutex<Vec<LauncherEnd>>>);

impl Launchers {
    /// Starts one.
    fn spawn(&self) -> Result<LauncherHandle, SpawnError> {
        let launcher = spawn_launcher()?;
        let end = launcher.end().map_err(SpawnError::Run)?;
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|end| !end.wait(Duration::ZERO));
        ends.push(end);
        Ok(launcher)
    }

    /// Waits until all are gone, and their children with them.
    fn wait(&self) {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ends.iter().all(|end| end.wait(STOP_TIMEOUT)) {
            tracing::warn!("a launcher does not end, leaving it behind");
        }
    }
}

/// Where clients come in, whose sockets those were, and whose they may be next.
struct Sockets {
    listeners: Listeners,
    place: Place,
    program: Program,
}

/// What pools stand on.
struct Below<'a> {
    images: Images,
    snapshots: Option<Snapshots>,
    groups: Option<CgroupPool>,
    namespace: &'a PrivateNamespace,
    outside: HostNetwork,
    launchers: Launchers,
}

/// Best effort: without them VMs are held by what their jail takes from them, and share CPUs as processes do.
fn control_groups() -> Option<CgroupPool> {
    match Cgroups::detect().and_then(Cgroups::open_root) {
        Ok(groups) => {
            let controllers: Vec<_> = groups.controllers().map(|controller| controller.name()).collect();
            tracing::info!(?controllers, "control groups");
            Some(groups)
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, "no control groups, see `weir doctor`: cpu limits of pools are not kept");
            None
        }
    }
}

async fn run(source: Source, config: Arc<Config>, below: Below<'_>, sockets: Sockets) -> anyhow::Result<()> {
    let Sockets { mut listeners, place, program } = sockets;
    let mut signals = Signals::new()?;
    let registry = Registry::new();
    let host = source.outside.clone();
    let outside = Arc::new(HostNetwork::new(host.clone()));
    let pools = start_pools(&config, below, &registry)?;
    let metrics = Metrics::register(&registry).context("register the proxy's metrics")?;
    let rotation = access_log::rotation()?;
    let (access_log, writer) = access_log::start(&config.access_log, metrics.access_log_dropped())?;
    let reopening = tokio::spawn(access_log::reopen(access_log.clone(), rotation));

    log_addresses(&listeners)?;
    let (readiness, ready) = watch::channel(Readiness::Starting);
    let (reloader, orders) = weir_proxy::reloader();
    let challenges = Challenges::default();
    let acme = AcmeMetrics::register(&registry).context("register the metrics of certificates")?;
    let otlp = start_otlp(&config, outside.clone(), &registry)?;
    let acme = Acme::start(&config, outside, &challenges, acme).context("obtain certificates")?;
    let reload = Reload::new(source, config.clone(), pools.clone(), reloader.clone(), acme, &registry)?;
    let admin = listeners.take_admin();
    let upgrade = Upgrade::new(program, host.clone(), reloader.clone(), &config, admin.as_ref())
        .context("keep the administration endpoint's socket")?;
    let (ask, asked) = mpsc::channel(1);
    let steer = Steer::new(reload, upgrade, asked)?;
    let place = place.prepared(&mut signals).await?;
    let admin = admin.map(|socket| start_admin(socket, registry, ready, &pools, ask)).transpose()?;
    let (shutdown, stopped) = watch::channel(false);
    let timeouts = Timeouts::default();
    let spans = otlp.as_ref().map(Otlp::spans);
    let server =
        Server { config, listeners, pools: pools.clone(), metrics, access_log, spans, challenges, timeouts };
    let mut serving = tokio::spawn(weir_proxy::serve_reloadable(server, orders, stopped));
    // If it never does, serving has ended and says why.
    if reloader.opened().await.is_ok() {
        place.taken(&host);
    }
    let mut steering = tokio::spawn(steer.run());
    readiness.send_replace(Readiness::Ready);
    tracing::info!("ready");

    let signal = until_told(&mut serving, &mut steering, &mut signals).await?;
    readiness.send_replace(Readiness::Draining);
    begin_drain(signal, &steering, &shutdown, admin.as_ref());
    reopening.abort();
    tokio::select! {
        drained = drain(serving, &pools, writer, otlp) => drained?,
        signal = signals.next() => tracing::warn!(signal, "not waiting any longer"),
    }
    admin.iter().for_each(JoinHandle::abort);
    tracing::info!("stopped");
    Ok(())
}

/// Until weir is to drain: because of a signal, whose name is returned, or because another weir serves in its place.
async fn until_told(
    serving: &mut JoinHandle<Result<Drained, ServeError>>,
    steering: &mut JoinHandle<()>,
    signals: &mut Signals,
) -> anyhow::Result<Option<&'static str>> {
    tokio::select! {
        biased;
        Ok(()) = steering => Ok(None),
        ended = serving => {
            ended.context("serve")?.context("serve")?;
            anyhow::bail!("serving ended by itself");
        }
        signal = signals.next() => Ok(Some(signal)),
    }
}

/// `signal`: what asks for it; `None`: another weir has taken over.
fn begin_drain<T>(
    signal: Option<&'static str>,
    steering: &JoinHandle<T>,
    shutdown: &watch::Sender<bool>,
    admin: Option<&JoinHandle<()>>,
) {
    if let Some(signal) = signal {
        tracing::info!(signal, "draining; a second signal ends at once");
        steering.abort();
        shutdown.send_replace(true);
    } else {
        tracing::info!("draining, another weir serves; a signal ends this one at once");
        // Whoever has been answered by it keeps its connection until this process ends.
        admin.into_iter().for_each(JoinHandle::abort);
    }
}

/// Lets requests end, then VMs, then the access log and the spans.
async fn drain(
    serving: JoinHandle<Result<Drained, ServeError>>,
    pools: &Pools,
    writer: AccessLogWriter,
    otlp: Option<Otlp>,
) -> anyhow::Result<()> {
    let drained = serving.await.context("drain")?.context("drain")?;
    if drained.unfinished > 0 {
        tracing::warn!(requests = drained.unfinished, "cut off at the drain deadline");
    }
    pools.drain(STOP_TIMEOUT).await;
    let written = tokio::task::spawn_blocking(|| writer.join());
    match tokio::time::timeout(LOG_TIMEOUT, written).await {
        Ok(written) => written.context("write the access log")?.context("write the access log")?,
        // Whoever reads stdout is too slow, or a request that was cut off still holds the log.
        Err(_) => tracing::warn!("the access log's last lines are lost"),
    }
    let Some(otlp) = otlp else { return Ok(()) };
    let sent = tokio::task::spawn_blocking(|| otlp.finish());
    if tokio::time::timeout(LOG_TIMEOUT, sent).await.is_err() {
        tracing::warn!("the last spans are lost");
    }
    Ok(())
}

fn start_otlp(
    config: &Config,
    outside: Arc<HostNetwork>,
    registry: &Registry,
) -> anyhow::Result<Option<Otlp>> {
    let metrics = OtlpMetrics::register(registry).context("register the metrics of spans")?;
    Otlp::start(config, outside, metrics).context("send spans")
}

/// Everything below the proxy: TAPs, images, the launcher, the pools.
fn start_pools(config: &Config, below: Below<'_>, registry: &Registry) -> anyhow::Result<Pools> {
    let Below { images, snapshots, groups, namespace, outside, launchers } = below;
    let taps = TapPool::new(namespace, config.host.network, MTU).context("prepare TAP links")?;
    let mut sealed = Vec::new();
    let mut of_vms = config.pools.clone();
    of_vms.retain(|_, pool| pool.external().is_none());
    for (name, pool) in &of_vms {
        let bytes =
            images.get(&pool.image).with_context(|| format!("image {:?} was not read", pool.image))?;
        sealed.push((pool.clone(), seal(name, bytes).context("keep an image in memory")?));
    }
    // From here on the sealed copies are used.
    drop(images);
    let launch_metrics = LaunchMetrics::register(registry).context("register the launcher's metrics")?;
    let read = ReadImage::new(images::load);
    let materials = Materials { taps, mtu: MTU, images: sealed, read, templates: of_vms, groups, snapshots };
    let launcher = VmLauncher::new(move || launchers.spawn(), materials, launch_metrics)
        .context("start the launcher")?;
    let metrics = PoolMetrics::register(registry).context("register the pools' metrics")?;
    let below = weir_pool::Below { launcher: Arc::new(launcher), outside: Arc::new(outside) };
    Pools::start(config, below, metrics).context("start the pools")
}

/// Starts this very program as a launcher, be its file replaced meanwhile or not.
pub(crate) fn spawn_launcher() -> Result<LauncherHandle, SpawnError> {
    weir_vmm::launcher::spawn(Path::new("/proc/self/exe"))
}

fn start_admin(
    socket: TcpListener,
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
    pools: &Pools,
    orders: mpsc::Sender<ProcessOrder>,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    log_address("admin.address", &socket.local_addr()?.into());
    let pools = Arc::new(pools.clone());
    Ok(tokio::spawn(async move {
        let until = std::future::pending();
        if let Err(error) = admin::serve(socket, registry, readiness, pools, orders, until).await {
            tracing::error!(%error, "admin endpoint ended");
        }
    }))
}

fn log_addresses(listeners: &Listeners) -> anyhow::Result<()> {
    for (index, address) in listeners.addresses().context("ask for a listener's address")?.iter().enumerate()
    {
        log_address(&format!("listener[{index}].address"), address);
    }
    Ok(())
}

/// Says where a socket listens; with port 0 in the configuration this is where to learn the port.
fn log_address(key: &str, address: &ListenAddress) {
    tracing::info!(key, %address, "listening");
}
