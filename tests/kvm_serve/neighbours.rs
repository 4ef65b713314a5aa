//! VMs that take all they can get do not take it from those of another pool.
//!
//! Not how long the neighbour's requests take is measured: on a busy machine that says more about the machine. Measured
//! is what the bad VMs take while the neighbour is asked: of a limit that works they cannot take more, however slow
//! everything is; without it they take far more, unless the machine leaves them next to nothing.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::probe::image;
use crate::support::{Weir, launcher_and_vms};

const BAD: &str = "bad.test";
const GOOD: &str = "good.test";
/// How long the neighbour is asked at least; many of the periods in which the kernel counts CPU time (100 ms).
const WINDOW: Duration = Duration::from_secs(1);

/// A bad pool and its neighbour. `behaviour` is the bad guest's, `limits` and `scale` are lines of its pool's tables.
fn start(behaviour: &str, limits: &str, scale: &str) -> (tempfile::NamedTempFile, Weir) {
    let file = image();
    let path = file.path().display();
    let weir = Weir::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [pool.bad]\nimage = \"{path}\"\nargs = [\"{behaviour}\"]\nsoft_limit = 1\nhard_limit = 1\n\
         start_timeout = \"1s\"\n[pool.bad.limits]\n{limits}\n[pool.bad.scale]\n{scale}\n\
         [pool.good]\nimage = \"{path}\"\n[pool.good.scale]\nmin = 0\nmax = 1\n\
         [[route]]\nname = \"bad\"\nhost = \"{BAD}\"\npool = \"bad\"\n\
         [[route]]\nname = \"good\"\nhost = \"{GOOD}\"\npool = \"good\"\n"
    ));
    (file, weir)
}

/// Asks the neighbour, who always answers, for [`WINDOW`]. How much `taken` grew meanwhile, and in how many seconds.
fn taken_beside_neighbour(weir: &Weir, taken: impl Fn() -> f64) -> (f64, f64) {
    let mut client = Client::connect_to(weir.http, GOOD);
    let (begin, before) = (Instant::now(), taken());
    while begin.elapsed() < WINDOW {
        assert_eq!(client.body("/"), "ok");
    }
    let after = taken();
    (after - before, begin.elapsed().as_secs_f64())
}

fn proc(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process is there")
}

/// CPU time of a VM's process, which has one thread, seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let nanos = proc(pid, "schedstat").split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.expect("a number")).as_secs_f64()
}

/// The TAP of the VM at `guest`, by the route to it.
fn tap(weir: &Weir, guest: Ipv4Addr) -> String {
    let network = format!("{:08X}", (u32::from(guest) & !1).swap_bytes());
    let routes = proc(weir.pid(), "net/route");
    let mut routes = routes.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let route = routes.find(|words| words.get(1) == Some(&&*network)).expect("a route to the vm");
    route[0].to_owned()
}

/// Frames that the VM behind `tap` has sent.
fn frames_from(weir: &Weir, tap: &str) -> f64 {
    let devices = proc(weir.pid(), "net/dev");
    let received = devices.lines().find_map(|line| line.trim().strip_prefix(tap)?.strip_prefix(':'));
    received.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok()).expect("a counter")
}

#[test]
fn spinning_vms_have_their_quota() {
    const SPINNERS: usize = 3;
    const QUOTA: f64 = 0.05;
    let (_file, weir) = start("spin-on-request", &format!("cpu_quota = {QUOTA}"), "min = 0\nmax = 3");
    weir.until_templates(2);
    let waiting: Vec<Client> = (0..SPINNERS)
        .map(|_| {
            let mut client = Client::connect_to(weir.http, BAD);
            client.send("/");
            client
        })
        .collect();
    let in_flight = || weir.metric("weir_http_requests_in_flight", "");
    weir.until("all spin", || {
        weir.metric("weir_vm_instances", "pool=\"bad\",state=\"ready\"") == SPINNERS as f64
            && in_flight() == SPINNERS as f64
    });
    let (_, bad) = launcher_and_vms(weir.pid());
    assert_eq!(bad.len(), SPINNERS);
    let (used, seconds) =
        taken_beside_neighbour(&weir, || bad.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>());
    println!("{used:.3} s of CPU time in {seconds:.3} s");
    // Twice: what was not used in one period may be used in the next.
    assert!(used < 2.0 * QUOTA * SPINNERS as f64 * seconds, "{used} s of CPU time in {seconds} s");
    drop(waiting);
}

#[test]
fn a_flooding_vm_has_its_rate() {
    const RATE: f64 = 500.0;
    let limits = format!("cpu_quota = 0.2\nsend_packets = {RATE}");
    let (_file, weir) = start("flood", &limits, "min = 1\nmax = 1");
    let address = weir.logged("vm ready")["fields"]["address"].as_str().map(str::to_owned);
    let (guest, _) = address.as_deref().and_then(|text| text.split_once(':')).expect("an address");
    let tap = tap(&weir, guest.parse().expect("an IPv4 address"));
    let (frames, seconds) = taken_beside_neighbour(&weir, || frames_from(&weir, &tap));
    println!("{frames} frames in {seconds:.3} s");
    // What the bucket held, a tenth of a second's worth, comes on top.
    assert!(frames > 0.0 && frames <= RATE * (seconds + 0.1) + 1.0, "{frames} frames in {seconds} s");
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0, "it is slowed, not ended");
}

#[test]
fn a_hoarding_vm_has_its_own_memory_and_no_more() {
    const MEMORY_MIB: usize = 16;
    let (_file, weir) = start("serve", "cpu_quota = 0.2", "min = 1\nmax = 1");
    weir.logged("vm ready");
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    assert_eq!(bad.len(), 1);
    let mut hoarder = Client::connect_to(weir.http, BAD);
    let (full, done) = (|status| status == 507, AtomicBool::new(false));
    let kept = (0..2 * MEMORY_MIB).take_while(|_| !full(hoarder.get("/leave?n=1048576").0)).count();
    assert!((4..MEMORY_MIB).contains(&kept), "{kept} MiB of the VM's {MEMORY_MIB}");
    std::thread::scope(|scope| {
        // Goes on touching what is left.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hoarder.get("/eat?n=65536");
            }
        });
        taken_beside_neighbour(&weir, || 0.0);
        done.store(true, Ordering::Relaxed);
    });
    let most = peak_mib(bad[0]);
    // Its process has a few MiB besides the guest's memory.
    assert!((kept..MEMORY_MIB + 8).contains(&most), "{most} MiB resident");
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0);
}

/// The most memory that a process had resident, MiB.
fn peak_mib(pid: u32) -> usize {
    let status = proc(pid, "status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.and_then(|kib| kib.parse::<usize>().ok()).expect("a number") / 1024
}
