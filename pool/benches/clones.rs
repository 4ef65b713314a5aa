//! `clones`: jailed clones per second and per second of CPU, and the memory of a thousand idle ones.
//!
//! It stands where weir stands, in a private network namespace, and asks the real launcher for VMs as fast as it can;
//! without pools, which would not want so many.
#![allow(clippy::unwrap_used, reason = "this program measures; what fails is to end it")]

mod processes;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_config::model::Pool;
use weir_net::namespace;
use weir_net::tap::TapPool;
use weir_pool::launch::{ReadImage, seal};
use weir_pool::{
    LaunchMetrics, Launcher, Materials, Revision, StartKind, StartOrder, VmLauncher, VmProcess, fake,
};
use weir_vmm::{VmEvent, VmId, launcher};

use processes::{Usage, available, children, mebibytes};

const MTU: u16 = 1500;
/// Clones of a timed round, and rounds.
const CLONES: u64 = 500;
const ROUNDS: usize = 4;
/// How many are alive when memory is counted.
const ALIVE: u32 = 1000;
/// Starts on their way at once.
const AT_ONCE: usize = 8;
/// Bound of the whole.
const LIMIT: Duration = Duration::from_secs(180);

type Processes = Vec<Box<dyn VmProcess>>;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "launcher") {
        launcher::main();
    }
    namespace::become_user_root().unwrap();
    let private = namespace::enter_private().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let taps = TapPool::new(&private, "10.64.0.0/16".parse().unwrap(), MTU).unwrap();
        let bench = Bench::new(taps).await;
        tokio::time::timeout(LIMIT, bench.run()).await.expect("takes too long");
    });
    ExitCode::SUCCESS
}

struct Bench {
    launcher: VmLauncher,
    pool: Arc<Pool>,
    next: u64,
}

impl Bench {
    async fn new(taps: TapPool) -> Self {
        let mut pool = fake::pool("p");
        pool.health.path = Some("/".to_owned());
        let templates = fake::config([pool]).pools;
        let pool = templates["p"].clone();
        let images = vec![(pool.clone(), seal("hello", weir_guest::HELLO).unwrap())];
        let read = ReadImage::new(|_| Ok(weir_guest::HELLO.into()));
        let materials = Materials { taps, mtu: MTU, images, read, templates, groups: None, snapshots: None };
        let spawn = || launcher::spawn(&std::env::current_exe().unwrap());
        let metrics = LaunchMetrics::register(&Registry::new()).unwrap();
        let launcher = VmLauncher::new(spawn, materials, metrics).unwrap();
        launcher.templates().wait_for(|count| *count == 1).await.unwrap();
        Self { launcher, pool, next: 1 }
    }

    async fn run(mut self) {
        for round in 0..ROUNDS {
            // In the first one every link is a new TAP, too.
            let what = if round == 0 { "with new TAPs" } else { "with recycled TAPs" };
            let vms = self.timed(what).await;
            let (begin, before) = (Instant::now(), Usage::now());
            end(vms).await;
            let used = Usage::now().since(&before).cpu.as_secs_f64();
            let wall = begin.elapsed().as_secs_f64();
            println!(
                "clones: {CLONES} ended in {wall:.2} s, {used:.2} s of CPU without the kernel's threads"
            );
        }
        self.memory().await;
    }

    /// Starts [`CLONES`], to READY.
    async fn timed(&mut self, what: &str) -> Processes {
        let (before, begin) = (Usage::now(), Instant::now());
        let vms = self.start(CLONES).await;
        let wall = begin.elapsed().as_secs_f64();
        let used = Usage::now().since(&before);
        let cpu = used.cpu.as_secs_f64();
        let prefork = vms.iter().filter(|vm| vm.kind() == StartKind::Prefork).count();
        assert!(vms.iter().all(|vm| vm.kind() != StartKind::Cold), "all by clone");
        let count = CLONES as f64;
        println!(
            "clones: {CLONES} {what}, {prefork} in spare children: {wall:.2} s, {:.0}/s; \
             {cpu:.2} s of CPU ({:.2} weir, {:.2} launcher, {:.2} VMs), {:.0}/s of one core",
            count / wall,
            used.own.as_secs_f64(),
            used.launcher.as_secs_f64(),
            used.vms.as_secs_f64(),
            count / cpu,
        );
        vms
    }

    async fn start(&mut self, count: u64) -> Processes {
        let first = self.next;
        self.next += count;
        let orders = (first..self.next).map(|id| StartOrder {
            id: VmId(id),
            pool: self.pool.clone(),
            revision: Revision::FIRST,
        });
        let starts = orders.map(|order| self.launcher.start(order));
        stream::iter(starts).buffer_unordered(AT_ONCE).map(Result::unwrap).collect().await
    }

    /// What [`ALIVE`] idle ones take, before their first request and after it.
    async fn memory(mut self) {
        let before = available();
        let vms = self.start(ALIVE.into()).await;
        report("idle since READY", before);
        for vm in &vms {
            ask(vm.address()).await;
        }
        report("idle after one request each", before);
        end(vms).await;
    }
}

fn report(what: &str, before: f64) {
    let (_, mut vms) = children();
    let spares = vms.len().saturating_sub(ALIVE as usize);
    // Those that wait to become VMs are the youngest.
    vms.truncate(ALIVE as usize);
    let count = vms.len() as f64;
    let mut total = BTreeMap::new();
    for vm in &vms {
        mebibytes(*vm, &mut total);
    }
    let each = |key: &str| total.get(key).copied().unwrap_or_default() / count;
    println!(
        "clones: {count} VMs, {spares} spare children, {what}, MiB each: PSS {:.3} (anonymous {:.3}, files {:.3}, shmem {:.3}), \
         RSS {:.3}, MemAvailable {:.3}",
        each("Pss"),
        each("Pss_Anon"),
        each("Pss_File"),
        each("Pss_Shmem"),
        each("Rss"),
        (before - available()) / count,
    );
}

/// Asks all of them to end, and waits until they are gone.
async fn end(vms: Processes) {
    vms.iter().for_each(|vm| vm.stop());
    for mut vm in vms {
        while !matches!(vm.next_event().await, VmEvent::Exit(_)) {}
    }
}

async fn ask(address: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
