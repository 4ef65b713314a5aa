//! VMs that take all they can get, and what they get: what is left is their neighbours'.
//!
//! How slow a neighbour gets beside them is a matter for a bench (`benches/neighbours.rs`). Here it is counted what the bad
//! VMs take while a neighbour is served, which no other work on this machine can make more.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::probe::image;
use crate::support::{Weir, launcher_and_vms};

const BAD: &str = "bad.test";
const GOOD: &str = "good.test";
/// How long is counted.
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

/// Shares of a CPU that the `bad` processes take while the good pool is asked again and again.
fn shares_beside(weir: &Weir, bad: &[u32]) -> Vec<f64> {
    let mut client = Client::connect_to(weir.http, GOOD);
    assert_eq!(client.body("/"), "ok");
    let begin = Instant::now();
    let cpu_times = || bad.iter().map(|pid| cpu_time(*pid)).collect::<Vec<_>>();
    let before = cpu_times();
    while begin.elapsed() < WINDOW {
        assert_eq!(client.body("/"), "ok");
    }
    let (took, after) = (begin.elapsed().as_secs_f64(), cpu_times());
    before.iter().zip(after).map(|(before, after)| (after - *before).as_secs_f64() / took).collect()
}

/// CPU time of a process, all its threads.
fn cpu_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten();
    let of = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(|thread| of(thread.path())).sum())
}

/// Packets and bytes that weir's namespace got from the VM at `address`.
fn sent(weir: &Weir, address: Ipv4Addr) -> [u64; 2] {
    let read =
        |table| std::fs::read_to_string(format!("/proc/{}/net/{table}", weir.pid())).expect("weir lives");
    // A link has two addresses, the host's and the guest's; the kernel writes their network as it is in memory.
    let network = format!("{:08X}", u32::from_ne_bytes((u32::from(address) & !1).to_be_bytes()));
    let routes = read("route");
    let mut routes = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let link = routes.find(|route| route[1] == network).expect("there is a route to the vm")[0].to_owned();
    let devices = read("dev");
    let line = devices.lines().find_map(|line| line.trim().strip_prefix(&format!("{link}:")));
    let mut numbers =
        line.expect("a device").split_whitespace().map(|number| number.parse().expect("a number"));
    let bytes = numbers.next().expect("bytes received");
    [numbers.next().expect("packets received"), bytes]
}

/// Every share of a CPU is below `most`: a quota's period and the clock's grain leave some room above it.
fn assert_shares(shares: &[f64], most: f64) {
    assert!(shares.iter().all(|share| *share < most), "shares of a cpu: {shares:?}, at most {most}");
}

#[test]
fn spinning_vms_have_their_quota() {
    const SPINNERS: usize = 3;
    let (_file, weir) = start("spin-on-request", "cpu_quota = 0.02", "min = 0\nmax = 3");
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
            && in_flight() == 3.0
    });
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    let shares = shares_beside(&weir, &bad);
    assert_eq!(shares.len(), SPINNERS);
    assert_shares(&shares, 0.06);
    drop(waiting);
}

#[test]
fn a_flooding_vm_has_its_rate() {
    let limits = "cpu_quota = 0.2\nsend_packets = 1000\nsend_rate = \"1MiB\"";
    let (_file, weir) = start("flood", limits, "min = 1\nmax = 1");
    let address = weir.logged("vm ready")["fields"]["address"].as_str().expect("an address").to_owned();
    let address = address.parse::<SocketAddrV4>().expect("an address and a port");
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    let (begin, before) = (Instant::now(), sent(&weir, *address.ip()));
    let shares = shares_beside(&weir, &bad);
    let after = sent(&weir, *address.ip());
    let [packets, bytes] = [0, 1].map(|what| after[what] - before[what]);
    // What a full bucket holds, a tenth of a second's worth, and one frame come on top.
    let most = begin.elapsed().as_secs_f64() + 0.2;
    assert!(packets > 100, "it floods");
    assert!(packets as f64 <= 1000.0 * most, "{packets} packets");
    assert!(bytes as f64 <= 1048576.0 * most, "{bytes} bytes");
    assert_shares(&shares, 0.3);
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0, "it is slowed, not ended");
}

#[test]
fn a_hoarding_vm_has_its_own_memory_and_no_more() {
    let (_file, weir) = start("serve", "cpu_quota = 0.1", "min = 1\nmax = 1");
    weir.logged("vm ready");
    weir.until_templates(2);
    let (_, bad) = launcher_and_vms(weir.pid());
    let mut hoarder = Client::connect_to(weir.http, BAD);
    let (full, done) = (|status| status == 507, AtomicBool::new(false));
    let kept = (0..32).take_while(|_| !full(hoarder.get("/leave?n=1048576").0)).count();
    assert!((4..16).contains(&kept), "{kept} MiB of the VM's 16");
    std::thread::scope(|scope| {
        // Goes on touching what is left.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hoarder.get("/eat?n=65536");
            }
        });
        let shares = shares_beside(&weir, &bad);
        let resident = resident(bad[0]);
        done.store(true, Ordering::Relaxed);
        assert_shares(&shares, 0.2);
        assert!((4..=16 + 16).contains(&(resident >> 20)), "{resident} bytes, the process's own included");
    });
    assert_eq!(weir.metric("weir_vm_exits_total", "pool=\"bad\""), 0.0);
}

/// Bytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kibibytes") << 10
}
