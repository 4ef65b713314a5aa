//! Starts and stops without end: whatever one takes it gives back.
//!
//! In a usual run there are [`CYCLES`] of them; `make soak` runs as many as `WEIR_SOAK_CYCLES` says.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

use futures::future::join_all;
use weir_pool::{Launcher, Revision, StartKind, StartOrder, VmProcess};
use weir_vmm::cgroup::Cgroups;
use weir_vmm::{ExitReason, VmEvent, VmId};

use super::*;

const CYCLES: u64 = 400;
/// At the same time.
pub(crate) const WIDTH: u64 = 8;
/// More than what comes and goes by itself: spare children, each with some descriptors, and allocators' reserves.
const FILES: u64 = 250;
const PROCESSES: u64 = 64;
/// To move a process into one takes some 10 ms, so with many starts many are on their way.
const GROUPS: u64 = 256;
const KIB: u64 = 24 * 1024;

pub(crate) struct Soak {
    pub(crate) launcher: VmLauncher,
    pub(crate) registry: Registry,
    pool: Arc<weir_config::model::Pool>,
    process: Arc<AtomicI32>,
    /// Launchers are as they should be from the next one on.
    repaired: Arc<AtomicBool>,
    next: AtomicU64,
}

/// What is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    files: u64,
    launcher_files: u64,
    processes: u64,
    pub(crate) taps: u64,
    groups: u64,
    kib: u64,
    launcher_kib: u64,
}

pub(crate) fn cycles_leave_nothing_behind() {
    let cycles = std::env::var("WEIR_SOAK_CYCLES").ok().map_or(CYCLES, |count| count.parse().unwrap());
    run("launcher", true, async |soak| {
        // Until everything that is made once is there.
        soak.cycles(CYCLES / 4).await;
        let before = soak.usage();
        for tenth in 1..=10 {
            soak.cycles(cycles / 10).await;
            if cycles > CYCLES {
                println!("{} cycles: {:?}", tenth * cycles / 10, soak.usage());
            }
        }
        soak.usage().assert_like(&before);
    });
}

pub(crate) fn run(mode: &'static str, templates: bool, case: impl AsyncFnOnce(&Soak)) {
    namespace::become_user_root().unwrap();
    let private = namespace::enter_private().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = fake::config([fake::pool("p")]);
        let process = Arc::new(AtomicI32::new(0));
        let repaired = Arc::new(AtomicBool::new(false));
        let (pid, is_repaired) = (process.clone(), repaired.clone());
        let spawn = move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg(if is_repaired.load(SeqCst) { "launcher" } else { mode });
            let handle = launcher::spawn_command(command)?;
            pid.store(handle.pid, SeqCst);
            Ok(handle)
        };
        let materials = Materials {
            taps: TapPool::new(&private, "10.88.0.0/16".parse().unwrap(), MTU).unwrap(),
            mtu: MTU,
            images: vec![(config.pools["p"].clone(), seal("image", weir_guest::HELLO).unwrap())],
            read: ReadImage::new(|_| Ok(weir_guest::HELLO.into())),
            templates: if templates { config.pools.clone() } else { BTreeMap::new() },
            // Where there are none, that is how it is.
            groups: Cgroups::detect().and_then(Cgroups::open_root).ok(),
            snapshots: None,
        };
        let registry = Registry::new();
        let metrics = LaunchMetrics::register(&registry).unwrap();
        let launcher = VmLauncher::new(spawn, materials, metrics).unwrap();
        if templates {
            launcher.templates().wait_for(|count| *count == 1).await.unwrap();
        }
        let pool = config.pools["p"].clone();
        let soak = Soak { launcher, registry, pool, process, repaired, next: AtomicU64::new(1) };
        case(&soak).await;
    });
}

impl Soak {
    pub(crate) fn order(&self) -> StartOrder {
        StartOrder {
            id: VmId(self.next.fetch_add(1, Relaxed)),
            pool: self.pool.clone(),
            revision: Revision::FIRST,
        }
    }

    /// From now on launchers are as they should be.
    pub(crate) fn repair(&self) {
        self.repaired.store(true, SeqCst);
        let launcher = Pid::from_raw(self.process.load(SeqCst)).unwrap();
        kill_process(launcher, Signal::KILL).unwrap();
    }

    /// Starts, and stops when READY.
    async fn cycle(&self) {
        let vm = self.launcher.start(self.order()).await.unwrap();
        assert_ne!(vm.kind(), StartKind::Cold);
        stop_when_ready(vm).await;
    }

    pub(crate) async fn cycles(&self, count: u64) {
        for _ in 0..count.div_ceil(WIDTH) {
            join_all((0..WIDTH).map(|_| self.cycle())).await;
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let launcher = self.process.load(SeqCst).to_string();
        let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
        let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
        Usage {
            files: descriptors("self"),
            launcher_files: descriptors(&launcher),
            processes: children.unwrap().split_whitespace().count() as u64,
            taps: devices.matches("weir").count() as u64,
            groups: groups(),
            kib: resident("self"),
            launcher_kib: resident(&launcher),
        }
    }
}

pub(crate) async fn stop_when_ready(mut vm: Box<dyn VmProcess>) {
    loop {
        match vm.next_event().await {
            VmEvent::Ready => vm.stop(),
            VmEvent::Exit(reason) => break assert_eq!(reason, ExitReason::Stopped),
            VmEvent::Log(_) | VmEvent::Frozen(_) | VmEvent::Report { .. } => {}
        }
    }
}

impl Usage {
    pub(crate) fn assert_like(&self, before: &Self) {
        let grown = |now: u64, before: u64, by: u64| now > before + by;
        let leak = grown(self.files, before.files, FILES)
            || grown(self.launcher_files, before.launcher_files, PROCESSES)
            || grown(self.processes, before.processes, PROCESSES)
            || grown(self.taps, before.taps, 32)
            || grown(self.groups, before.groups, GROUPS)
            || grown(self.kib, before.kib, KIB)
            || grown(self.launcher_kib, before.launcher_kib, KIB);
        assert!(!leak, "before: {before:?}\nafter:  {self:?}");
    }
}

fn descriptors(process: &str) -> u64 {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64)
}

fn resident(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Control groups of this process's own, in all hierarchies.
fn groups() -> u64 {
    let own = format!("weir-{}", std::process::id());
    let below = |place: std::path::PathBuf| fs::read_dir(place).into_iter().flatten().flatten();
    let mut count = 0;
    let mut places: Vec<_> = below("/sys/fs/cgroup".into()).map(|entry| entry.path()).collect();
    for _ in 0..6 {
        for place in std::mem::take(&mut places) {
            if place.ends_with(&own) {
                count += below(place).filter(|entry| entry.path().is_dir()).count() as u64;
            } else if place.is_dir() && !place.is_symlink() {
                places.extend(below(place).map(|entry| entry.path()));
            }
        }
    }
    count
}
