//! `weir run`: one VM in the foreground, its log on stdout.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ipnetwork::Ipv4Network;
use prometheus::Registry;
use tokio::signal::unix::{SignalKind, signal};
use weir_config::{Health, Isolation, Kind, Pool, Protocol, Quarantine, Queue, Retry, Scale, VmLimits};
use weir_net::namespace::{self, PrivateNamespace};
use weir_net::tap::TapPool;
use weir_pool::launch::{ReadImage, seal};
use weir_pool::{LaunchMetrics, Launcher, Materials, Revision, StartOrder, VmLauncher, VmProcess, printable};
use weir_vmm::{ExitReason, VmEvent, VmId};

use crate::cli::{Failure, LogFormat, RunOptions};
use crate::images;
use crate::serve::{MTU, spawn_launcher};

/// The one link of the one VM.
const NETWORK: (std::net::Ipv4Addr, u8) = (std::net::Ipv4Addr::new(10, 88, 0, 0), 24);

/// Runs the image until it ends, or until SIGINT or SIGTERM.
///
/// # Errors
/// An image that is none; a VM that ends other than by exit code 0 or a signal to weir.
pub(crate) fn run(options: &RunOptions) -> Result<(), Failure> {
    let bytes =
        images::load(&options.image).map_err(|error| Failure::Configuration(format!("weir: {error}")))?;
    let image = seal(&options.image, &bytes).context("keep the image in memory")?;
    namespace::become_user_root().context("become root of a user namespace")?;
    let namespace = namespace::enter_private().context("enter a private network namespace")?;
    let _log = crate::logging::start(LogFormat::Text);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the runtime")?;
    match runtime.block_on(foreground(options, image, &namespace))? {
        ExitReason::Stopped | ExitReason::Exited(0) => Ok(()),
        reason => Err(anyhow::anyhow!("{}: {}", options.image, printable(&reason.to_string())).into()),
    }
}

async fn foreground(
    options: &RunOptions,
    image: std::os::fd::OwnedFd,
    namespace: &PrivateNamespace,
) -> anyhow::Result<ExitReason> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let (address, prefix) = NETWORK;
    let network = Ipv4Network::new(address, prefix).context("describe the link")?;
    let taps = TapPool::new(namespace, network, MTU).context("prepare a TAP link")?;
    let pool = Arc::new(pool(options));
    let images = vec![(pool.clone(), image)];
    let metrics = LaunchMetrics::register(&Registry::new()).context("make the launcher's metrics")?;
    let (templates, groups, snapshots) = (BTreeMap::new(), None, None);
    let read = ReadImage::new(images::load);
    let materials = Materials { taps, mtu: MTU, images, read, templates, groups, snapshots };
    let launcher = VmLauncher::new(spawn_launcher, materials, metrics).context("start the launcher")?;
    let mut vm = launcher
        .start(StartOrder { id: VmId(1), pool, revision: Revision::FIRST })
        .await
        .context("start the VM")?;
    let mut asked = false;
    loop {
        tokio::select! {
            event = vm.next_event() => match event {
                VmEvent::Log(line) => writeln!(std::io::stdout(), "{}", printable(&line)).context("write to stdout")?,
                VmEvent::Ready => tracing::info!(address = %vm.address(), "ready"),
                // Only a template is asked for this.
                VmEvent::Frozen(_) | VmEvent::Report { .. } => {}
                VmEvent::Exit(reason) => return Ok(reason),
            },
            _ = interrupt.recv() => end(&*vm, &mut asked),
            _ = terminate.recv() => end(&*vm, &mut asked),
        }
    }
}

/// Asks the VM to end; the second time it is not asked.
fn end(vm: &dyn VmProcess, asked: &mut bool) {
    if std::mem::replace(asked, true) { vm.kill() } else { vm.stop() }
}

/// A pool of just this VM. Nothing scales it; the limits only have to be something.
fn pool(options: &RunOptions) -> Pool {
    let name = Path::new(&options.image)
        .file_name()
        .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned());
    Pool {
        name,
        kind: Kind::Unikernel,
        image: options.image.clone(),
        protocol: Protocol::H1,
        port: 8080,
        vcpus: 1,
        memory: options.memory,
        env: options.env.iter().cloned().collect(),
        args: options.args.clone(),
        weight: 1,
        isolation: Isolation::Vm,
        soft_limit: 1,
        hard_limit: 1,
        start_timeout: Duration::from_secs(5),
        scale: Scale { min: 1, max: 1, ..Scale::default() },
        queue: Queue::default(),
        health: Health::default(),
        retry: Retry::default(),
        quarantine: Quarantine::default(),
        breaker: None,
        signal: None,
        limits: VmLimits::default(),
    }
}
