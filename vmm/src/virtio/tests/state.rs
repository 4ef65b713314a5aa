//! State of a transport: what is restored behaves as what was saved, and a forged one does no harm.

use proptest::prelude::*;
use serde::Serialize;
use virtio_bindings::virtio_mmio as register;

use super::driver::{BUFFERS, Driver, FEATURES, FLOOR, MEMORY, QUEUES, WRITE};
use super::fake::FakeIo;
use super::hostile::value;
use super::{LINK, frame_to_guest, frame_to_host, with_header};
use crate::virtio::net::{NetDevice, RX, TX};
use crate::virtio::{RestoreError, Transport, TransportState, Violation};

/// A [`TransportState`] as its own process could write it: the same fields, any values.
#[derive(Clone, Debug, Serialize)]
struct Forged {
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<ForgedQueue>,
}

/// Size, descriptor table, available ring, used ring.
type Setup = (u32, u64, u64, u64);
/// Registers; for a ready queue its set-up, positions in available and used ring.
type ForgedQueue = (Setup, Option<(Setup, u16, u16)>);

const GOOD: [Setup; 2] =
    [(16, QUEUES[0][0], QUEUES[0][1], QUEUES[0][2]), (16, QUEUES[1][0], QUEUES[1][1], QUEUES[1][2])];

/// What `Driver::start(16)` leads to.
fn live() -> Forged {
    Forged {
        status: 0xf,
        interrupt_status: 0,
        device_features_select: 0,
        driver_features_select: 1,
        driver_features: FEATURES,
        queue_select: 1,
        queues: GOOD.map(|setup| (setup, Some((setup, 0, 0)))).to_vec(),
    }
}

impl Forged {
    fn state(&self) -> TransportState {
        postcard::from_bytes(&postcard::to_stdvec(self).unwrap()).unwrap()
    }

    fn restore(&self) -> Result<Transport<NetDevice<FakeIo>>, RestoreError> {
        let memory = Driver::reset().memory;
        Transport::restore(NetDevice::new(FakeIo::new().0, &LINK), FLOOR, &self.state(), &memory)
    }
}

#[test]
fn a_live_device_goes_on_where_it_was() {
    let (mut driver, _wire) = Driver::on_wire(16);
    assert_eq!(driver.transport.state(), live().state(), "the forger's layout is the real one");
    for seed in 0..5 {
        driver.put(BUFFERS, &with_header([0; 12], &frame_to_host(60, seed)));
        driver.offer(TX, 0, &[(BUFFERS, 72)], 0);
        driver.service().unwrap();
    }
    driver.put(BUFFERS, &with_header([0; 12], &frame_to_host(60, 9)));
    driver.offer(TX, 3, &[(BUFFERS, 72)], 0);
    driver.offer(RX, 2, &[(BUFFERS + 0x1000, 0x800)], WRITE);
    driver.take_used(TX);

    let (io, wire) = FakeIo::new();
    let mut clone = driver.cloned(io).unwrap();
    assert_eq!(clone.transport.state(), driver.transport.state());
    assert!(clone.transport.readable_fd().is_none() && clone.transport.writable_fd().is_none());
    wire.borrow_mut().to_guest.push_back(with_header([0; 12], &frame_to_guest(60, 1)));
    clone.service().unwrap();
    assert_eq!(clone.take_used(TX), [(3, 0)]);
    assert_eq!(clone.take_used(RX), [(2, 72)]);
    assert_eq!(wire.borrow().from_guest, [with_header([0; 12], &frame_to_host(60, 9))]);
    assert_eq!(clone.transport.device().counters().tx_frames, 1, "its own, not the template's");
}

#[test]
fn a_rewound_transport_keeps_its_eventfd_and_forgets_what_came_after() {
    let (mut driver, _wire) = Driver::on_wire(16);
    let (before, notify) = (driver.transport.state(), format!("{:?}", driver.transport.notify_fd()));
    driver.write(register::VIRTIO_MMIO_STATUS, 0).unwrap();
    driver.write(register::VIRTIO_MMIO_QUEUE_SEL, 9).unwrap();
    driver.transport.rewind(&before, &driver.memory).unwrap();
    assert_eq!(driver.transport.state(), before);
    assert_eq!(format!("{:?}", driver.transport.notify_fd()), notify);

    let bad = Forged { status: 0x10, ..live() };
    driver.transport.rewind(&bad.state(), &driver.memory).unwrap_err();
    assert_eq!(driver.transport.state(), Driver::reset().transport.state(), "as after a reset");
}

#[test]
fn what_waits_for_the_guest_when_it_is_rewound_never_reaches_it() {
    let (mut driver, wire) = Driver::on_wire(16);
    let before = driver.transport.state();
    wire.borrow_mut()
        .to_guest
        .extend((0..100).map(|number| with_header([0; 12], &frame_to_guest(1000, number))));
    driver.transport.rewind(&before, &driver.memory).unwrap();
    assert!(wire.borrow().to_guest.is_empty());
}

#[test]
fn states_that_no_driver_can_lead_to_are_refused() {
    let queue = |edit: fn(&mut ForgedQueue)| {
        let mut forged = live();
        edit(&mut forged.queues[1]);
        forged.restore().map(drop)
    };
    for status in [0x8, 0x4, 0xc, 0xe, 0x10, 0x1f, 0x20, 0xff, u32::MAX] {
        let error = Forged { status, ..live() }.restore().unwrap_err();
        assert!(matches!(error, RestoreError::Status { .. }), "{status:#x} {error:?}");
    }
    for driver_features in [0, 1 << 5, FEATURES | 1 << 8, FEATURES | 1 << 7, FEATURES | 1 << 28, u64::MAX] {
        let error = Forged { driver_features, ..live() }.restore().unwrap_err();
        assert!(matches!(error, RestoreError::Features { .. }), "{driver_features:#x} {error:?}");
    }
    for status in [0, 1, 3, 0x40, 0x83] {
        let error = Forged { status, ..live() }.restore().unwrap_err();
        assert!(matches!(error, RestoreError::QueueReady { queue: 0, .. }), "{status:#x} {error:?}");
    }
    for count in [0, 1, 3, 300] {
        let queues = vec![(GOOD[0], None); count];
        let error = Forged { queues, ..live() }.restore().unwrap_err();
        assert!(matches!(error, RestoreError::QueueCount { expected: 2, .. }));
    }
    let error = Forged { interrupt_status: 4, ..live() }.restore().unwrap_err();
    assert!(matches!(error, RestoreError::InterruptStatus { status: 4 }));
    let error = queue(|(_, ready)| *ready = Some((GOOD[1], 7, 6))).unwrap_err();
    assert!(matches!(error, RestoreError::QueuePosition { queue: 1, next_available: 7, next_used: 6 }));
    let error = queue(|(_, ready)| *ready = Some(((512, GOOD[1].1, GOOD[1].2, GOOD[1].3), 0, 0)));
    assert!(matches!(error, Err(RestoreError::Queue(Violation::QueueSize { queue: 1, size: 512 }))));
    let error = queue(|(_, ready)| *ready = Some(((16, FLOOR - 16, GOOD[1].2, GOOD[1].3), 0, 0)));
    assert!(matches!(error, Err(RestoreError::Queue(Violation::QueueAddress { queue: 1, .. }))));
    queue(|(registers, _)| *registers = (u32::MAX, 1, 2, u64::MAX)).expect("registers hold anything");
}

/// An address that is mostly near to a good one.
fn address() -> impl Strategy<Value = u64> {
    let good = prop::sample::select(QUEUES.as_flattened().to_vec());
    let edges =
        prop::sample::select(vec![0, FLOOR, FLOOR - 16, FLOOR - 2, MEMORY, MEMORY - 16, u64::MAX - 15]);
    prop_oneof![12 => good, 1 => edges, 1 => any::<u64>()]
}

fn setup() -> impl Strategy<Value = Setup> {
    (prop_oneof![8 => Just(16u32), 2 => 0u32..300, 1 => any::<u32>()], address(), address(), address())
}

fn queue() -> impl Strategy<Value = ForgedQueue> {
    let position = prop_oneof![4 => any::<u16>().prop_map(|at| (at, at)), 1 => any::<(u16, u16)>()];
    let ready = (setup(), position).prop_map(|(setup, (available, used))| (setup, available, used));
    (setup(), prop_oneof![5 => ready.prop_map(Some), 1 => Just(None)])
}

fn forged() -> impl Strategy<Value = Forged> {
    let status = prop_oneof![6 => Just(0xfu32), 2 => 0u32..0x100, 1 => any::<u32>()];
    let features = prop_oneof![8 => Just(FEATURES), 1 => any::<u64>()];
    let queues = prop_oneof![
        9 => prop::collection::vec(queue(), 2),
        1 => prop::collection::vec(queue(), 0..5),
    ];
    let interrupts = prop_oneof![4 => 0u32..4, 1 => any::<u32>()];
    (status, interrupts, any::<[u32; 3]>(), features, queues).prop_map(
        |(status, interrupt_status, selects, driver_features, queues)| Forged {
            status,
            interrupt_status,
            device_features_select: selects[0],
            driver_features_select: selects[1],
            driver_features,
            queue_select: selects[2],
            queues,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_device_behaves_as_the_saved_one(
        before in prop::collection::vec((0u32..0x40, value()), 0..60),
        after in prop::collection::vec((0u32..0x40, value()), 0..60),
        live in any::<bool>(),
    ) {
        let mut driver = Driver::reset();
        if live {
            driver.start(16);
        } else {
            driver.negotiate(FEATURES);
        }
        for (word, value) in before {
            if driver.write(4 * word, value).is_err() || driver.service().is_err() {
                return Ok(());
            }
        }
        let mut clone = driver.cloned(FakeIo::new().0).unwrap();
        prop_assert_eq!(clone.transport.state(), driver.transport.state());
        for (word, value) in after {
            let both = [&mut driver, &mut clone].map(|driver| {
                format!("{:?} {:?}", driver.write(4 * word, value), driver.service())
            });
            prop_assert_eq!(&both[0], &both[1]);
            prop_assert_eq!(clone.read(4 * word), driver.read(4 * word));
            prop_assert_eq!(clone.transport.state(), driver.transport.state());
        }
    }

    #[test]
    fn a_forged_state_gives_nothing_below_the_floor(forged in forged(), frames in 0u8..4) {
        let (io, wire) = FakeIo::new();
        let mut driver = Driver::fresh(io);
        let state = forged.state();
        if driver.transport.rewind(&state, &driver.memory).is_err() {
            prop_assert_eq!(driver.transport.state(), Driver::reset().transport.state());
            return Ok(());
        }
        prop_assert_eq!(driver.transport.state(), state);
        for (_, ready) in &forged.queues {
            let Some(((size, descriptors, available, used), ..)) = *ready else { continue };
            prop_assert!(size.is_power_of_two() && size <= 256);
            for (start, length) in [(descriptors, 16 * size), (available, 6 + 2 * size), (used, 6 + 8 * size)] {
                prop_assert!(start >= FLOOR && start + u64::from(length) <= MEMORY);
            }
        }
        let low = driver.get(0, FLOOR as usize);
        wire.borrow_mut().to_guest.extend((0..frames).map(|seed| with_header([0; 12], &frame_to_guest(60, seed))));
        for _ in 0..4 {
            if driver.service().is_err() {
                break;
            }
        }
        prop_assert_eq!(driver.get(0, FLOOR as usize), low);
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(state) = postcard::from_bytes::<TransportState>(&bytes) {
            let mut driver = Driver::reset();
            let restored = driver.transport.rewind(&state, &driver.memory);
            prop_assert!(restored.is_err() || driver.transport.state() == state);
        }
    }
}
