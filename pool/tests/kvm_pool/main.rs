//! Pools of real VMs: KVM, TAPs in a private namespace, and this program, started again, as the launcher.
//!
//! A process must be single-threaded when it enters a namespace, so each case runs in a process of its own: this
//! binary with [`CASE`] in front of its name.
#![allow(clippy::unwrap_used, reason = "this program is a test, though it runs itself")]

mod lacking;
mod snapshots;
mod soak;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Failed, Trial};
use prometheus::Registry;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SocketFlags, SocketType, recv, socket_with,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_net::namespace;
use weir_net::tap::TapPool;
use weir_pool::launch::{ReadImage, seal};
use weir_pool::{
    Caller, Instances, LaunchMetrics, Lease, Materials, Pool, PoolMetrics, Pools, Snapshots, Start,
    VmLauncher, fake,
};
use weir_vmm::launcher;

/// First argument of a process that runs one case: `--case NAME`.
const CASE: &str = "--case";
const MTU: u16 = 1500;
/// Bound of every wait: far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many are asked whether they are alike.
const CLONES: usize = 100;

const CASES: &[(&str, fn())] = &[
    ("from_zero_to_a_real_answer_and_back_to_zero", || {
        run(Images::Cold, from_zero_to_a_real_answer_and_back_to_zero)
    }),
    ("guest_that_panics_is_replaced", || run(Images::Cold, guest_that_panics_is_replaced)),
    ("killed_launcher_is_replaced_and_so_are_its_vms", || {
        run(Images::Hello, killed_launcher_is_replaced_and_so_are_its_vms)
    }),
    ("clones_serve_from_zero_and_again", || run(Images::Hello, clones_serve_from_zero_and_again)),
    ("a_hundred_clones_have_nothing_in_common", || {
        run(Images::Probe, a_hundred_clones_have_nothing_in_common)
    }),
    ("cycles_leave_nothing_behind", soak::cycles_leave_nothing_behind),
    (
        "a_kvm_that_makes_no_vms_fails_starts_and_costs_nothing",
        lacking::a_kvm_that_makes_no_vms_fails_starts_and_costs_nothing,
    ),
    ("a_start_without_descriptors_fails_alone", lacking::a_start_without_descriptors_fails_alone),
    (
        "clones_that_fail_boot_instead_until_they_work_again",
        lacking::clones_that_fail_boot_instead_until_they_work_again,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [launcher] if launcher == "launcher" => launcher::main(),
        [launcher] if launcher == lacking::KVMLESS => lacking::kvmless_launcher(),
        [launcher] if launcher == lacking::CLONELESS => lacking::cloneless_launcher(),
        [first, name] if first == CASE => {
            CASES.iter().find(|case| case.0 == name).unwrap().1();
            ExitCode::SUCCESS
        }
        [first, name, directory] if first == CASE => {
            snapshots::case(name, Path::new(directory));
            ExitCode::SUCCESS
        }
        _ => {
            let trials = CASES.iter().map(|(name, _)| Trial::test(*name, move || start(&[name])));
            let trials = trials.chain([Trial::test(snapshots::NAME, snapshots::trial)]);
            libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
        }
    }
}

/// Runs a case, which is its name and its argument if it has one, in a process of its own.
fn start(case: &[&str]) -> Result<(), Failed> {
    for device in ["/dev/kvm", "/dev/net/tun"] {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(device)
            .map_err(|e| format!("open {device}: {e}"))?;
    }
    let status = Command::new(std::env::current_exe()?).arg(CASE).args(case).status()?;
    match status.success() {
        true => Ok(()),
        false => Err("see its output".into()),
    }
}

/// What a pool's VMs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Images {
    /// `hello`, always booted.
    Cold,
    /// `hello`, cloned.
    Hello,
    /// `probe serve`, cloned.
    Probe,
}

/// A pool of guests.
struct World {
    pools: Pools,
    launcher: Arc<AtomicI32>,
    registry: Registry,
}

fn run(images: Images, case: impl AsyncFnOnce(World)) {
    run_with(images, None, case);
}

fn run_with(images: Images, snapshots: Option<Snapshots>, case: impl AsyncFnOnce(World)) {
    namespace::become_user_root().unwrap();
    let private = namespace::enter_private().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let taps = TapPool::new(&private, "10.88.0.0/16".parse().unwrap(), MTU).unwrap();
        let world = World::new(taps, images, snapshots).await;
        let pools = world.pools.clone();
        tokio::time::timeout(PATIENCE, case(world)).await.expect("takes too long");
        pools.drain(PATIENCE).await;
        assert_eq!(pools.get("p").unwrap().instances().borrow().total(), 0);
    });
}

impl World {
    async fn new(taps: TapPool, images: Images, snapshots: Option<Snapshots>) -> Self {
        let mut pool = fake::pool("p");
        if images == Images::Probe {
            pool.args = vec!["serve".to_owned()];
            (pool.soft_limit, pool.hard_limit) = (1, 1);
            pool.scale.max = u32::try_from(CLONES).unwrap();
        }
        pool.scale.idle_timeout = Duration::from_millis(200);
        let launcher = Arc::new(AtomicI32::new(0));
        let pid = launcher.clone();
        let spawn = move || {
            let handle = launcher::spawn(&std::env::current_exe().unwrap())?;
            pid.store(handle.pid, SeqCst);
            Ok(handle)
        };
        let image = if images == Images::Probe { weir_guest::PROBE } else { weir_guest::HELLO };
        let config = fake::config([pool]);
        let templates = if images == Images::Cold { BTreeMap::new() } else { config.pools.clone() };
        let expected = templates.len();
        let read = ReadImage::new(move |_| Ok(image.into()));
        let images = vec![(config.pools["p"].clone(), seal("image", image).unwrap())];
        let materials = Materials { taps, mtu: MTU, images, read, templates, groups: None, snapshots };
        let registry = Registry::new();
        let metrics = LaunchMetrics::register(&registry).unwrap();
        let vms = VmLauncher::new(spawn, materials, metrics).unwrap();
        vms.templates().wait_for(|count| *count == expected).await.unwrap();
        let metrics = PoolMetrics::register(&registry).unwrap();
        let pools = Pools::start(&config, Arc::new(vms), metrics).unwrap();
        Self { pools, launcher, registry }
    }

    fn pool(&self) -> Arc<Pool> {
        self.pools.get("p").unwrap()
    }

    async fn until(&self, condition: impl FnMut(&Instances) -> bool) {
        self.pool().instances().wait_for(condition).await.unwrap();
    }

    async fn lease(&self) -> Lease {
        self.pool().lease_for(&Caller::anonymous()).await.unwrap()
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

async fn clones_serve_from_zero_and_again(world: World) {
    for _ in 0..3 {
        let lease = world.lease().await;
        assert_eq!(lease.start(), Start::Clone);
        let answer = get(lease.address(), "/").await;
        assert!(answer.contains(&format!("from vm {}, request 1", lease.vm())), "{answer}");
        drop(lease);
        world.until(|now| now.total() == 0).await;
    }
}

/// The number behind `"name":` in a flat JSON object, or the string.
fn field<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {json}"));
    let end = rest.find([',', '}']).unwrap();
    rest[..end].trim().trim_matches('"')
}

async fn a_hundred_clones_have_nothing_in_common(world: World) {
    let capture = Capture::start();
    let (mut leases, mut seen) = (Vec::new(), BTreeMap::<&str, BTreeSet<String>>::new());
    for _ in 0..CLONES {
        // Each takes its VM's only place, so that the next one gets another.
        let lease = world.lease().await;
        let before = SystemTime::now();
        let identity = &ask(lease.address(), "/identity").await;
        let after = SystemTime::now();
        assert_eq!(field(identity, "vm"), lease.vm().to_string());
        assert_eq!(field(identity, "address"), lease.address().ip().to_string());
        let clock = UNIX_EPOCH + Duration::from_nanos(field(identity, "unix_ns").parse().unwrap());
        let slack = Duration::from_millis(20);
        assert!((before - slack..after + slack).contains(&clock), "a stale clock: {before:?} {clock:?}");
        let random = ask(lease.address(), "/random").await;
        let sequences = capture.first_sequence_numbers(lease.address());
        assert_eq!(sequences.len(), 2, "one for each connection");
        let mut note =
            |what, value: &str| assert!(seen.entry(what).or_default().insert(value.into()), "{what} {value}");
        note("mac", field(identity, "mac"));
        note("address", field(identity, "address"));
        note("random", &random);
        sequences.iter().for_each(|sequence| note("sequence number", sequence));
        leases.push(lease);
    }
    assert_eq!(seen["random"].len(), CLONES);
}

/// The body of the answer to `GET path`, over a connection of its own.
async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: p\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed too early");
        let text = std::str::from_utf8(&answer).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return body.trim().to_owned();
        }
    }
}

/// Sees the packets of this network namespace.
struct Capture(OwnedFd);

impl Capture {
    fn start() -> Self {
        // include/uapi/linux/if_ether.h: ETH_P_ALL, in network byte order.
        let all = Protocol::from_raw(RawProtocol::new(u32::from(3u16.to_be())).unwrap());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Self(socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(all)).unwrap())
    }

    /// Sequence numbers that `from` began connections with since the last call.
    fn first_sequence_numbers(&self, from: SocketAddr) -> Vec<String> {
        let IpAddr::V4(source) = from.ip() else { panic!("{from} is IPv4") };
        let mut packet = [0; 2048];
        let mut found = Vec::new();
        while let Ok((length, _)) = recv(&self.0, &mut packet, RecvFlags::empty()) {
            let Some(tcp) = tcp(&packet[..length], source) else { continue };
            const SYN_ACK: u8 = 0x12;
            if tcp[13] & SYN_ACK == SYN_ACK {
                found.push(u32::from_be_bytes(tcp[4..8].try_into().unwrap()).to_string());
            }
        }
        found
    }
}

/// The TCP segment in an IPv4 packet from `source`.
fn tcp(packet: &[u8], source: Ipv4Addr) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let is_tcp = packet[0] >> 4 == 4 && packet.get(9)? == &6 && packet.get(12..16)? == source.octets();
    packet.get(header..).filter(|tcp| is_tcp && tcp.len() >= 20)
}
