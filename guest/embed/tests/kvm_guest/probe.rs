//! Each misbehaviour of the probe ends that VM, with a reason that names it, or is harmless.

use std::time::Duration;

use weir_guest::PROBE;
use weir_net::tap::TapPool;
use weir_vmm::{CrashReason, ExitReason, VmEvent};

use super::Case;
use super::client::{self, Client};
use super::vm::Vm;

pub(crate) const CASES: &[Case] = &[
    ("probe_serves", serves),
    ("probe_ends_as_told", ends_as_told),
    ("probe_breaks_rings", breaks_rings),
    ("probe_runs_out_of_memory", runs_out_of_memory),
    ("probe_dies_in_the_middle_of_a_response", dies_in_the_middle_of_a_response),
    ("probe_that_is_never_ready_or_spins_is_stopped", that_is_never_ready_or_spins_is_stopped),
    ("probe_is_silent", is_silent),
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
    let flood = Vm::ready(taps, PROBE, &["log-flood"]);
    assert!(matches!(flood.event(), Some(VmEvent::Log(line)) if line.starts_with("the same line")));
    assert_eq!(flood.stop(), ExitReason::Stopped);
}
