//! Each misbehaviour of the probe ends that VM, with a reason that names it, or is harmless.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use weir_guest::PROBE;
use weir_net::tap::TapPool;
use weir_vmm::{CrashReason, ExitReason, VmEvent};

use super::Case;
use super::client::{self, Client};
use super::vm::{ID, Vm};

pub(crate) const CASES: &[Case] = &[
    ("probe_serves", serves),
    ("probe_says_who_it_is_and_what_it_remembers", says_who_it_is_and_what_it_remembers),
    ("probe_streams_waits_and_takes_memory", streams_waits_and_takes_memory),
    ("probe_speaks_websocket", speaks_websocket),
    ("probe_gives_freed_memory_back_when_idle", gives_freed_memory_back_when_idle),
    ("probe_ends_as_told", ends_as_told),
    ("probe_breaks_rings", breaks_rings),
    ("probe_runs_out_of_memory", runs_out_of_memory),
    ("probe_dies_in_the_middle_of_a_response", dies_in_the_middle_of_a_response),
    ("probe_that_is_never_ready_or_spins_is_stopped", that_is_never_ready_or_spins_is_stopped),
    ("probe_is_silent", is_silent),
    ("probe_is_deaf", is_deaf),
    ("probe_spins_on_request", spins_on_request),
    ("probe_spoofs_and_floods", spoofs_and_floods),
];

/// Why the VM ends that runs the probe as `behaviour`.
fn end(taps: &TapPool, behaviour: &str) -> ExitReason {
    Vm::start(taps, PROBE, &[behaviour]).reason()
}

fn serves(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["serve"]);
    let mut client = Client::connect(vm.address());
    for _ in 0..3 {
        client.get("/any");
        assert_eq!(client.response().text(), "ok\n");
    }
}

fn says_who_it_is_and_what_it_remembers(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["serve"]);
    let mut client = Client::connect(vm.address());
    let mut get = |target: &str| {
        client.get(target);
        client.response().text().trim_end().to_owned()
    };
    let random = [get("/random"), get("/random")];
    assert!(random.iter().all(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert_ne!(random[0], random[1]);
    assert_eq!([get("/count"), get("/count"), get("/connection")], ["0", "1", "5"]);
    let identity = get("/identity");
    let expected = format!("{{\"vm\":{ID},\"generation\":");
    assert!(identity.starts_with(&expected), "{identity}");
    assert!(identity.contains(&format!("\"address\":\"{}\"", vm.address().ip())), "{identity}");
    assert_eq!(client::get(vm.address(), "/count").text(), "2\n");
    assert_eq!(client::get(vm.address(), "/connection").text(), "1\n");
}

fn streams_waits_and_takes_memory(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["serve"]);
    let mut client = Client::connect(vm.address());
    client.get("/hold?ms=20");
    // Behind the one that waits, in one batch.
    client.get("/bytes?n=100001");
    assert_eq!(client.response().text(), "ok\n");
    assert_eq!(client.response().body, vec![b'x'; 100_001]);
    for round in 0..8 {
        assert_eq!(
            client::get(vm.address(), "/eat?n=2000000").status,
            200,
            "{round}: eaten memory is free again"
        );
    }
    let statuses: Vec<_> = (0..8).map(|_| client::get(vm.address(), "/leave?n=2000000").status).collect();
    assert_eq!((statuses[0], statuses[7]), (200, 507), "left memory is not: {statuses:?}");
    assert_eq!(client::get(vm.address(), "/eat").status, 400);
}

/// RFC 6455: the handshake and the masked "Hello" are its examples, sections 1.3 and 5.7.
fn speaks_websocket(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["serve"]);
    assert_eq!(client::get(vm.address(), "/websocket").status, 400, "no key");
    let hello = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let close = b"\x88\x80\x37\xfa\x21\x3d";
    let unmasked = b"\x81\x05Hello";
    let endless = b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    for (sent, expected) in [
        ([&hello[..], close].concat(), &b"\x81\x05Hello\x88\x00"[..]),
        ([&hello[..], unmasked].concat(), b"\x81\x05Hello"),
        ([&hello[..], endless].concat(), b"\x81\x05Hello"),
    ] {
        let mut client = Client::connect(vm.address());
        client.send(
            "GET /websocket HTTP/1.1\r\nhost: guest\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let (status, head) = client.head();
        assert_eq!(status, 101);
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        client.send(sent);
        assert_eq!(client.rest().unwrap(), expected);
    }
}

fn is_deaf(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["deaf"]);
    // The reset may come before connect has returned.
    let connected = TcpStream::connect(vm.address());
    let read = connected.and_then(|mut stream| stream.read(&mut [0; 1]));
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

fn spins_on_request(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["spin-on-request"]);
    let mut client = Client::connect(vm.address());
    client.get("/");
    client.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.rest().is_err(), "no answer");
    assert_eq!(vm.stop(), ExitReason::Stopped);
}

/// Memory of the only VM of this process that the host has given pages for, KiB.
fn resident() -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| line.split_whitespace().ne(["Size:", "16384", "kB"]));
    let line = lines.find(|line| line.starts_with("Rss:")).expect("a mapping of 16 MiB");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn gives_freed_memory_back_when_idle(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["serve"]);
    let before = resident();
    assert_eq!(client::get(vm.address(), "/eat?n=4000000").status, 200);
    let full = resident();
    assert!(full > before + 3900, "{before} KiB, then {full} KiB");
    // A quiet second later; the case's own limit ends this if it never comes.
    while resident() > before + 200 {
        thread::yield_now();
    }
    assert_eq!(client::get(vm.address(), "/eat?n=4000000").status, 200, "it is there to be used again");
    assert_eq!(client::get(vm.address(), "/bytes?n=300000").body, vec![b'x'; 300_000]);
    assert_eq!(vm.stop(), ExitReason::Stopped);
}

fn ends_as_told(taps: &TapPool) {
    assert_eq!(end(taps, "exit=7"), ExitReason::Exited(7));
    assert_eq!(end(taps, "exit=-1"), ExitReason::Exited(-1));
    let ExitReason::Panicked(text) = end(taps, "crash-at-boot") else { panic!("not panicked") };
    assert!(text.starts_with("asked to crash at boot at "), "{text}");
    let ExitReason::Faulted(text) = end(taps, "fault-at-boot") else { panic!("not faulted") };
    assert!(text.starts_with("page fault: write to 0x10 "), "{text}");
}

fn breaks_rings(taps: &TapPool) {
    for behaviour in ["ring-loop", "ring-range", "ring-length", "avail-jump"] {
        let reason = end(taps, behaviour);
        assert!(matches!(reason, ExitReason::Crashed(CrashReason::Virtio(_))), "{behaviour}: {reason:?}");
    }
}

fn runs_out_of_memory(taps: &TapPool) {
    let ExitReason::Panicked(text) = end(taps, "hoard") else { panic!("not panicked") };
    assert!(text.starts_with("memory allocation of 65536 bytes failed"), "{text}");
}

fn dies_in_the_middle_of_a_response(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["die-mid-response"]);
    let mut client = Client::connect(vm.address());
    client.get("/");
    assert_eq!(client.head().0, 200);
    // All but what the sockets' buffers hold, so that the guest is not kept waiting.
    client.skip(450_000);
    let ExitReason::Panicked(text) = vm.reason() else { panic!("not panicked") };
    assert!(text.starts_with("asked to die in the middle of a response"), "{text}");
}

fn that_is_never_ready_or_spins_is_stopped(taps: &TapPool) {
    for behaviour in ["never-ready", "spin-at-boot"] {
        assert_eq!(Vm::start(taps, PROBE, &[behaviour]).stop(), ExitReason::Stopped, "{behaviour}");
    }
    assert_eq!(Vm::ready(taps, PROBE, &["spin"]).stop(), ExitReason::Stopped);
}

fn is_silent(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["silent"]);
    let mut client = Client::connect(vm.address());
    client.get("/");
    client.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.rest().is_err(), "no answer, no end");
    assert_eq!(vm.stop(), ExitReason::Stopped);
}

fn spoofs_and_floods(taps: &TapPool) {
    let vm = Vm::ready(taps, PROBE, &["spoof"]);
    let other = Vm::ready(taps, PROBE, &["serve"]);
    assert_eq!(client::get(other.address(), "/").status, 200);
    assert_eq!(vm.stop(), ExitReason::Stopped);
    let vm = Vm::ready(taps, PROBE, &["flood"]);
    assert_eq!(client::get(other.address(), "/").status, 200);
    assert_eq!(vm.stop(), ExitReason::Stopped);
    let flood = Vm::ready(taps, PROBE, &["log-flood"]);
    assert!(matches!(flood.event(), Some(VmEvent::Log(line)) if line.starts_with("the same line")));
    assert_eq!(flood.stop(), ExitReason::Stopped);
}
