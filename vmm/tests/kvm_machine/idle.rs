//! What a machine reports of a guest that nobody asks anything.
//!
//! No upper bounds on the machine's speed: a guest is asked until it has been seen to work, or to rest.

use std::time::{Duration, Instant};

use weir_abi::control;
use weir_vmm::{VmCommand, VmEvent, event};

use super::guests;
use super::harness::Vm;
use super::network::{HEADER, LINK, RECEIVED, RX, Step, TO_SEND, TX, WRITE};
use super::network::{bring_up, control_page, frame, offer_nth, start, to_host, used};

/// Far beyond what any test needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than all times over which a machine adds up what its guest does.
const LONG: Duration = Duration::from_millis(1500);
/// Longer than what a guest sends may be an answer.
const ANSWERED: Duration = Duration::from_millis(300);

fn quiet(vm: &Vm) -> Duration {
    event::command(&vm.weir, &VmCommand::Report, &[]).expect("the vm listens");
    match vm.event() {
        Some(VmEvent::Report { quiet }) => quiet,
        other => panic!("no report: {other:?}"),
    }
}

/// Asks until the report and the time since the first question satisfy `seen`.
fn until(vm: &Vm, what: &str, seen: impl Fn(Duration, Duration) -> bool) {
    let begin = Instant::now();
    while !seen(quiet(vm), begin.elapsed()) {
        assert!(begin.elapsed() < PATIENCE, "never {what}");
    }
}

fn ready(code: &[u8]) -> Vm {
    let vm = Vm::start(code);
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    vm
}

#[test]
fn a_parked_guest_is_quiet_from_then_on_however_often_it_is_asked() {
    let vm = ready(guests::basics::park_forever::code());
    let mut last = Duration::ZERO;
    while last < LONG {
        let now = quiet(&vm);
        assert!(now > last, "{now:?} after {last:?}");
        last = now;
    }
}

#[test]
fn a_guest_that_computes_is_never_quiet() {
    let vm = ready(guests::basics::spin::code());
    until(&vm, "working", |quiet, _| quiet.is_zero());
    for _ in 0..100 {
        assert_eq!(quiet(&vm), Duration::ZERO);
    }
}

#[test]
fn a_guest_that_polls_works() {
    let vm = ready(guests::basics::poll::code());
    until(&vm, "working", |quiet, asked| asked > LONG && quiet < LONG / 2);
}

#[test]
fn what_a_guest_sends_by_itself_is_work() {
    let length = u32::try_from(12 + to_host().len()).expect("a small frame");
    let nap = u64::try_from(ANSWERED.as_nanos()).expect("a short time");
    let mut steps = bring_up();
    steps.push(control_page(control::READY, 0));
    steps.push(control_page(control::PARK, nap));
    steps.extend(offer_nth(1, TX, TO_SEND, length, 0));
    steps.push(Step::Await(used(TX), 1));
    steps.push(Step::Await(used(RX), 0xdead));
    let begin = Instant::now();
    let (vm, host) = start(&steps);
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    host.recv(&mut [0; 2048]).expect("the guest sends a frame");
    let quiet = quiet(&vm);
    assert!(quiet <= begin.elapsed() - ANSWERED, "it sent that later than it began: {quiet:?}");
}

#[test]
fn an_answer_is_no_work() {
    let to_guest = [HEADER.to_vec(), frame(LINK.mac, LINK.gateway_mac, LINK.gateway, LINK.address)].concat();
    let length = u32::try_from(12 + to_host().len()).expect("a small frame");
    let mut steps = bring_up();
    steps.push(control_page(control::READY, 0));
    for nth in [1, 2] {
        steps.extend(offer_nth(nth.into(), RX, RECEIVED, 0x800, WRITE));
        steps.push(Step::Await(used(RX), nth));
        steps.extend(offer_nth(nth.into(), TX, TO_SEND, length, 0));
        steps.push(Step::Await(used(TX), nth));
    }
    steps.push(Step::Await(used(RX), 0xdead));
    let (vm, host) = start(&steps);
    assert_eq!(vm.event(), Some(VmEvent::Ready));
    let exchange = || {
        host.send(&to_guest).expect("the guest is there");
        host.recv(&mut [0; 2048]).expect("the guest answers");
    };
    // It has come up when it has answered this.
    exchange();
    let before = Instant::now();
    exchange();
    let least = before.elapsed();
    assert!(quiet(&vm) >= least);
}
