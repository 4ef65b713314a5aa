//! Starts and stops without end: whatever one takes it gives back. And starts that fail do too.
//!
//! In a usual run there are [`CYCLES`] of them; `make soak` runs as many as `WEIR_SOAK_CYCLES` says.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use futures::future::join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir_pool::{Launcher, StartKind, StartOrder};
use weir_vmm::cgroup::Cgroups;
use weir_vmm::launcher::Setup;
use weir_vmm::{ExitReason, VmEvent, VmId};

use super::*;

/// Mode of a launcher whose /dev/kvm is none.
pub(crate) const BROKEN: &str = "launcher-without-kvm";
const CYCLES: u64 = 400;
/// At the same time.
const WIDTH: u64 = 8;
/// More than what comes and goes by itself: spare children, each with some descriptors, and allocators' reserves.
const FILES: u64 = 250;
const PROCESSES: u64 = 64;
/// To move a process into one takes some 10 ms, so with many starts many are on their way.
const GROUPS: u64 = 256;
const KIB: u64 = 24 * 1024;

struct Soak {
    launcher: VmLauncher,
    pool: Arc<weir_config::model::Pool>,
    process: Arc<AtomicI32>,
    next: AtomicU64,
}

/// What is in use.
#[derive(Clone, Copy, Debug)]
struct Usage {
    files: u64,
    launcher_files: u64,
    processes: u64,
    taps: u64,
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

pub(crate) fn a_kvm_that_makes_no_vms_fails_starts_and_costs_nothing() {
    run(BROKEN, false, async |soak| {
        let fail = async || {
            // The child may say it before it has its order or after.
            let why = match soak.launcher.start(soak.order()).await {
                Err(error) => error.to_string(),
                Ok(mut vm) => match vm.next_event().await {
                    VmEvent::Exit(reason) => reason.to_string(),
                    other => panic!("{other:?}"),
                },
            };
            assert!(why.contains("create vm: "), "{why}");
        };
        fail().await;
        let before = soak.usage();
        for _ in 0..1200 {
            fail().await;
        }
        soak.usage().assert_like(&before);
    });
}

pub(crate) fn a_start_without_descriptors_fails_alone() {
    run("launcher", true, async |soak| {
        soak.cycles(WIDTH).await;
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut taken = Vec::new();
        // What others give back meanwhile is taken too.
        let error = loop {
            taken.extend(std::iter::from_fn(|| null.try_clone().ok()));
            if let Err(error) = soak.launcher.start(soak.order()).await {
                break error;
            }
        };
        drop(taken);
        setrlimit(Resource::Nofile, limit).unwrap();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {cause}").contains("Too many open files"), "{error}: {cause}");
        soak.cycles(WIDTH * 4).await;
        assert!(soak.usage().taps <= 64, "{:?}", soak.usage());
    });
}

fn run(mode: &'static str, templates: bool, case: impl AsyncFnOnce(&Soak)) {
    namespace::become_user_root().unwrap();
    let private = namespace::enter_private().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = fake::config([fake::pool("p")]);
        let process = Arc::new(AtomicI32::new(0));
        let pid = process.clone();
        let spawn = move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg(mode);
            let handle = launcher::spawn_command(command)?;
            pid.store(handle.pid, SeqCst);
            Ok(handle)
        };
        let materials = Materials {
            taps: TapPool::new(&private, "10.88.0.0/16".parse().unwrap(), MTU).unwrap(),
            mtu: MTU,
            images: BTreeMap::from([("p".to_owned(), seal("image", weir_guest::HELLO).unwrap())]),
            templates: if templates { config.pools.clone() } else { BTreeMap::new() },
            // Where there are none, that is how it is.
            groups: Cgroups::detect().and_then(Cgroups::open_root).ok(),
            snapshots: None,
        };
        let metrics = LaunchMetrics::register(&Registry::new()).unwrap();
        let launcher = VmLauncher::new(spawn, materials, metrics).unwrap();
        if templates {
            launcher.templates().wait_for(|count| *count == 1).await.unwrap();
        }
        let pool = config.pools["p"].clone();
        let soak = Soak { launcher, pool, process, next: AtomicU64::new(1) };
        case(&soak).await;
    });
}

impl Soak {
    fn order(&self) -> StartOrder {
        StartOrder { id: VmId(self.next.fetch_add(1, Relaxed)), pool: self.pool.clone() }
    }

    /// Starts, and stops when READY.
    async fn cycle(&self) {
        let mut vm = self.launcher.start(self.order()).await.unwrap();
        assert_ne!(vm.kind(), StartKind::Cold);
        loop {
            match vm.next_event().await {
                VmEvent::Ready => vm.stop(),
                VmEvent::Exit(reason) => break assert_eq!(reason, ExitReason::Stopped),
                VmEvent::Log(_) | VmEvent::Frozen(_) => {}
            }
        }
    }

    async fn cycles(&self, count: u64) {
        for _ in 0..count.div_ceil(WIDTH) {
            join_all((0..WIDTH).map(|_| self.cycle())).await;
        }
    }

    fn usage(&self) -> Usage {
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

impl Usage {
    fn assert_like(&self, before: &Self) {
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

/// A launcher whose children cannot make a VM.
pub(crate) fn broken_launcher() -> ! {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    launcher::run(Setup { kvm: Ok(null.into()), ..Setup::new().unwrap() })
}
