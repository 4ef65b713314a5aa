//! Pools of real VMs: KVM, TAPs in a private namespace, and this program, started again, as the launcher.
//!
//! A process must be single-threaded when it enters a namespace, so each case runs in a process of its own: this
//! binary with [`CASE`] in front of its name.
#![allow(clippy::unwrap_used, reason = "this program is a test, though it runs itself")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use prometheus::Registry;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_net::namespace;
use weir_net::tap::TapPool;
use weir_pool::launch::seal;
use weir_pool::{Instances, Lease, Pool, PoolMetrics, Pools, Start, VmLauncher, fake};
use weir_vmm::launcher;

/// First argument of a process that runs one case: `--case NAME`.
const CASE: &str = "--case";
const MTU: u16 = 1500;
/// Bound of every wait: far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(8);

const CASES: &[(&str, fn())] = &[
    ("from_zero_to_a_real_answer_and_back_to_zero", || run(from_zero_to_a_real_answer_and_back_to_zero)),
    ("guest_that_panics_is_replaced", || run(guest_that_panics_is_replaced)),
    ("killed_launcher_is_replaced_and_so_are_its_vms", || {
        run(killed_launcher_is_replaced_and_so_are_its_vms)
    }),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [launcher] if launcher == "launcher" => launcher::main(),
        [first, name] if first == CASE => {
            CASES.iter().find(|case| case.0 == name).unwrap().1();
            ExitCode::SUCCESS
        }
        _ => {
            let trials = CASES.iter().map(|(name, _)| Trial::test(*name, move || start(name)));
            libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
        }
    }
}

fn start(name: &str) -> Result<(), Failed> {
    for device in ["/dev/kvm", "/dev/net/tun"] {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(device)
            .map_err(|e| format!("open {device}: {e}"))?;
    }
    let mut case = Command::new(std::env::current_exe()?);
    match case.args([CASE, name]).status()?.success() {
        true => Ok(()),
        false => Err("see its output".into()),
    }
}

/// A pool of `hello` guests.
struct World {
    pools: Pools,
    launcher: Arc<AtomicI32>,
}

fn run(case: impl AsyncFnOnce(World)) {
    namespace::become_user_root().unwrap();
    let private = namespace::enter_private().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let taps = TapPool::new(&private, "10.88.0.0/16".parse().unwrap(), MTU).unwrap();
        let world = World::new(taps);
        let pools = world.pools.clone();
        tokio::time::timeout(PATIENCE, case(world)).await.expect("takes too long");
        pools.drain(PATIENCE).await;
        assert_eq!(pools.get("p").unwrap().instances().borrow().total(), 0);
    });
}

impl World {
    fn new(taps: TapPool) -> Self {
        let mut pool = fake::pool("p");
        pool.scale.idle_timeout = Duration::from_millis(200);
        let launcher = Arc::new(AtomicI32::new(0));
        let pid = launcher.clone();
        let spawn = move || {
            let handle = launcher::spawn(&std::env::current_exe().unwrap())?;
            pid.store(handle.pid, SeqCst);
            Ok(handle)
        };
        let images = BTreeMap::from([("p".to_owned(), seal("hello", weir_guest::HELLO).unwrap())]);
        let vms = VmLauncher::new(spawn, taps, MTU, images).unwrap();
        let metrics = PoolMetrics::register(&Registry::new()).unwrap();
        Self { pools: Pools::start(&fake::config([pool]), Arc::new(vms), metrics).unwrap(), launcher }
    }

    fn pool(&self) -> &Arc<Pool> {
        self.pools.get("p").unwrap()
    }

    async fn until(&self, condition: impl FnMut(&Instances) -> bool) {
        self.pool().instances().wait_for(condition).await.unwrap();
    }

    async fn lease(&self) -> Lease {
        self.pool().lease().await.unwrap()
    }
}

/// The whole answer to `GET path`, as far as it came.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: p\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A guest that dies resets the connection, or never answers: the caller does not wait for that.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn from_zero_to_a_real_answer_and_back_to_zero(world: World) {
    let cold = world.lease().await;
    assert_eq!(cold.start(), Start::Cold);
    let answer = get(cold.address(), "/").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let warm = world.lease().await;
    assert_eq!((warm.start(), warm.vm()), (Start::Warm, cold.vm()));
    drop((cold, warm));
    world.until(|now| now.total() == 0).await;
    let again = world.lease().await;
    assert!(get(again.address(), "/").await.starts_with("HTTP/1.1 200"));
}

async fn guest_that_panics_is_replaced(world: World) {
    let victim = world.lease().await;
    let address = victim.address();
    let crash = tokio::spawn(async move { get(address, "/crash?how=panic").await });
    world.until(|now| now.ready == 0).await;
    crash.abort();
    let next = world.lease().await;
    assert_ne!((next.vm(), next.address()), (victim.vm(), address));
    assert!(get(next.address(), "/").await.starts_with("HTTP/1.1 200"));
}

async fn killed_launcher_is_replaced_and_so_are_its_vms(world: World) {
    let victim = world.lease().await;
    let first = world.launcher.load(SeqCst);
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    world.until(|now| now.ready == 0).await;
    let next = world.lease().await;
    assert_ne!(next.vm(), victim.vm());
    assert_ne!(world.launcher.load(SeqCst), first);
    assert!(get(next.address(), "/").await.starts_with("HTTP/1.1 200"));
}
