//! The stack against another one over an in-memory link.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU16;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use embedded_io_async::{Read, Write};
use proptest::prelude::*;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::Ipv4Address;

mod generation;
mod rings;

use super::ethernet::{Ethernet, Frame, LinkAddress, Offers, Receive, Transmit};
use super::sockets::Sockets;
use super::stack::{IpAddress, Stack};
use super::{TcpListener, TcpStream, offload};
use crate::clock::Instant;

const HOST: [u8; 4] = [10, 0, 0, 0];
const GUEST: [u8; 4] = [10, 0, 0, 1];
const LINK: LinkAddress = LinkAddress { mac: [2, 0, 0, 0, 0, 1], gateway_mac: [2, 0, 0, 0, 0, 2], mtu: 1500 };
const PORT: u16 = 80;
/// Buffers of one connection of the guest, bytes.
const PER_CONNECTION: usize = 96 * 1024;

/// One direction of the link.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<VecDeque<Vec<u8>>>>, Offers, Rc<Cell<usize>>);

/// The receiving end of a wire.
struct End(Wire, Option<Vec<u8>>);

impl Receive for End {
    fn peek(&mut self) -> Option<Frame<'_>> {
        if self.1.is_none() {
            self.1 = self.0.0.borrow_mut().pop_front();
        }
        self.1.as_deref().map(|bytes| Frame { bytes, vouched: false })
    }
    fn release(&mut self) {
        self.1 = None;
    }
}

impl Transmit for Wire {
    fn offers(&self) -> Offers {
        self.1
    }
    fn has_room(&mut self) -> bool {
        self.0.borrow().len() < 64
    }
    fn transmit<R>(
        &mut self,
        length: usize,
        segment: Option<NonZeroU16>,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        self.2.set(self.2.get() + 1);
        if self.1.checksum {
            let header = offload::prepare(&mut frame, segment);
            self.0.borrow_mut().extend(offload::tests::complete(header, &frame));
        } else {
            self.0.borrow_mut().push_back(frame);
        }
        result
    }
}

/// A guest with one listener, and a host with sockets.
struct World {
    guest: Stack<End, Wire>,
    sockets: Rc<RefCell<Sockets>>,
    listener: TcpListener,
    host: smoltcp::iface::Interface,
    device: Ethernet<End, Wire>,
    clients: SocketSet<'static>,
    to_guest: Wire,
    to_host: Wire,
    /// The guest's address now.
    address: [u8; 4],
    now: Instant,
}

impl World {
    /// A guest with room for `connections`.
    fn new(connections: usize) -> Self {
        Self::with(connections, Offers::default())
    }

    /// The same, on a device that makes `offers`.
    fn with(connections: usize, offers: Offers) -> Self {
        let (to_guest, to_host) = (Wire::default(), Wire(Rc::default(), offers, Rc::default()));
        let sockets = Rc::new(RefCell::new(Sockets::new(connections * PER_CONNECTION)));
        let ip = IpAddress { address: GUEST, prefix: 31, gateway: HOST };
        let guest =
            Stack::new(End(to_guest.clone(), None), to_host.clone(), LINK, ip, 1, Rc::clone(&sockets));
        let link = LinkAddress { mac: LINK.gateway_mac, gateway_mac: LINK.mac, ..LINK };
        let mut device = Ethernet::new(End(to_host.clone(), None), to_guest.clone(), link);
        let config = smoltcp::iface::Config::new(smoltcp::wire::HardwareAddress::Ip);
        let mut host = smoltcp::iface::Interface::new(config, &mut device, StackInstant::ZERO);
        let cidr = smoltcp::wire::IpCidr::new(Ipv4Address::from(HOST).into(), 31);
        host.update_ip_addrs(|addresses| addresses.push(cidr).unwrap());
        let listener = TcpListener::bind(&sockets, PORT).unwrap();
        let clients = SocketSet::new(Vec::new());
        let now = Instant::from_nanos(0);
        Self { guest, sockets, listener, host, device, clients, to_guest, to_host, address: GUEST, now }
    }

    fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 8192]);
        let mut socket = Socket::new(buffer(), buffer());
        let remote = (Ipv4Address::from(self.address), PORT);
        socket.connect(self.host.context(), remote, port).unwrap();
        self.clients.add(socket)
    }

    fn client(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.clients.get_mut(handle)
    }

    fn state(&self, handle: SocketHandle) -> State {
        self.clients.get::<Socket<'_>>(handle).state()
    }

    /// One batch in each direction; half a millisecond passes.
    fn step(&mut self) {
        self.now = self.now + Duration::from_micros(500);
        let now = StackInstant::from_micros(i64::try_from(self.now.nanos() / 1000).unwrap());
        self.host.poll(now, &mut self.device, &mut self.clients);
        self.guest.receive(self.now);
        self.guest.transmit(self.now);
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    /// Every connection that waits to be accepted.
    fn accept_all(&self) -> Vec<TcpStream> {
        std::iter::from_fn(|| {
            let accept = pin!(self.listener.accept());
            match accept.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(stream) => Some(stream),
                Poll::Pending => None,
            }
        })
        .collect()
    }
}

#[test]
fn a_burst_of_connections_is_taken_whole() {
    let mut world = World::new(96);
    let clients: Vec<_> = (0..96).map(|at| world.connect(10_000 + at)).collect();
    world.steps(40);
    assert!(clients.iter().all(|client| world.state(*client) == State::Established));
    assert_eq!(world.accept_all().len(), 96);
}

#[test]
fn at_the_limit_a_connection_waits_and_is_not_refused() {
    let mut world = World::new(2);
    let clients = [10_001, 10_002, 10_003].map(|port| world.connect(port));
    world.steps(20);
    assert_eq!(
        clients.map(|client| world.state(client)),
        [State::Established, State::Established, State::SynSent]
    );
    let mut streams = world.accept_all();
    drop(streams.remove(0));
    world.client(clients[0]).close();
    // The client asks again after a second.
    world.steps(4000);
    assert_eq!(world.state(clients[2]), State::Established);
    assert_eq!(world.accept_all().len(), 1);
}

#[test]
fn a_client_port_can_be_used_again_at_once() {
    let mut world = World::new(4);
    for round in 0..20 {
        let client = world.connect(10_001);
        world.steps(4);
        assert_eq!(world.state(client), State::Established, "round {round}");
        // The guest closes first, so the connection ends in TIME-WAIT on its side.
        assert_eq!(world.accept_all().len(), 1);
        world.steps(4);
        world.client(client).close();
        world.steps(4);
        assert_eq!(world.state(client), State::Closed);
        world.clients.remove(client);
    }
}

#[test]
fn a_listener_that_is_dropped_refuses_connections() {
    let mut world = World::new(4);
    let waiting = world.connect(10_001);
    world.steps(4);
    let sockets = Rc::new(RefCell::new(Sockets::new(PER_CONNECTION)));
    let other = TcpListener::bind(&sockets, PORT).unwrap();
    assert!(TcpListener::bind(&sockets, PORT).is_none());
    drop(std::mem::replace(&mut world.listener, other));
    world.steps(4);
    assert_eq!(world.state(waiting), State::Closed);
    let late = world.connect(10_002);
    world.steps(4);
    assert_eq!(world.state(late), State::Closed);
}

#[test]
fn a_connection_that_its_peer_never_ends_is_ended() {
    let mut world = World::new(1);
    let client = world.connect(10_001);
    world.steps(4);
    drop(world.accept_all());
    world.steps(4);
    assert_eq!(world.state(client), State::CloseWait);
    // The peer goes on sending and never closes; after the linger time it is reset.
    world.steps(2 * 11_000);
    assert_eq!(world.state(client), State::Closed);
    let next = world.connect(10_002);
    world.steps(4);
    assert_eq!(world.state(next), State::Established);
}

/// Sends everything back until the peer closes.
async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1000];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        stream.write_all(&buffer[..count]).await.unwrap();
    }
}

#[test]
fn bytes_come_back_through_streams_and_an_idle_stack_has_no_deadline() {
    let mut world = World::new(1);
    let client = world.connect(10_001);
    world.steps(4);
    let mut task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(echo(world.accept_all().remove(0)));
    let sent: Vec<u8> = (0..300_000u32).map(|at| at.to_le_bytes()[usize::from(at % 7 == 0)]).collect();
    let (mut received, mut at) = (Vec::new(), 0);
    for _ in 0..2000 {
        let socket = world.client(client);
        at += socket.send_slice(&sent[at..]).unwrap();
        if socket.can_recv() {
            socket.recv(|part| (part.len(), received.extend_from_slice(part))).unwrap();
        }
        assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        world.step();
    }
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
    world.client(client).close();
    world.steps(4);
    assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    drop(task);
    world.steps(20);
    assert_eq!(world.state(client), State::TimeWait);
    assert_eq!(world.guest.deadline(world.now), None, "nothing to do, nothing to wait for");
}

#[test]
fn large_responses_leave_in_few_frames_where_the_device_divides_them() {
    let sent = |offers: Offers| {
        let mut world = World::with(1, offers);
        let mut socket = Socket::new(SocketBuffer::new(vec![0; 60_000]), SocketBuffer::new(vec![0; 100]));
        let remote = (Ipv4Address::from(GUEST), PORT);
        socket.connect(world.host.context(), remote, 10_001).unwrap();
        let client = world.clients.add(socket);
        world.steps(4);
        let mut stream = world.accept_all().remove(0);
        let body: Vec<u8> = (0..50_000u32).map(|at| at.to_le_bytes()[usize::from(at % 7 == 0)]).collect();
        let write = pin!(stream.write(&body)).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(write, Poll::Ready(Ok(body.len())));
        let before = world.to_host.2.get();
        world.guest.transmit(world.now);
        let frames = world.to_host.2.get() - before;
        let lengths: Vec<_> = world.to_host.0.borrow().iter().map(Vec::len).collect();
        assert!(lengths.iter().all(|length| *length <= 14 + 1500), "{lengths:?}");
        world.step();
        let received = world.client(client).recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap();
        assert!(received == body, "{} of {} bytes", received.len(), body.len());
        frames
    };
    assert_eq!(sent(Offers::default()), 35);
    assert_eq!(sent(Offers { checksum: true, segment: None }), 35);
    assert_eq!(sent(Offers { checksum: true, segment: Some(64_280) }), 1);
    assert_eq!(sent(Offers { checksum: true, segment: Some(40 + 20 * 1460) }), 2);
}

#[test]
fn a_segment_that_nobody_vouches_for_must_have_its_checksum() {
    let mut world = World::new(1);
    world.connect(10_001);
    world.host.poll(StackInstant::ZERO, &mut world.device, &mut world.clients);
    let mut syn = world.to_guest.0.borrow_mut().pop_front().unwrap();
    syn[50] ^= 1;
    world.to_guest.0.borrow_mut().push_back(syn);
    world.steps(1);
    assert_eq!(world.to_host.2.get(), 0);
}

#[test]
fn frames_for_others_are_dropped() {
    let mut world = World::new(1);
    world.connect(10_001);
    let now = StackInstant::ZERO;
    world.host.poll(now, &mut world.device, &mut world.clients);
    let syn = world.to_guest.0.borrow_mut().pop_front().unwrap();
    let altered = |at: usize, byte: u8| {
        let mut frame = syn.clone();
        frame[at] = byte;
        frame
    };
    // Another MAC address, another protocol, another IP address, no payload.
    let frames = [altered(5, 9), altered(13, 6), altered(33, 9), syn[..14].to_vec(), Vec::new()];
    world.to_guest.0.borrow_mut().extend(frames);
    world.steps(2);
    assert_eq!(world.accept_all().len(), 0);
    world.to_guest.0.borrow_mut().push_back(syn);
    world.steps(4);
    assert_eq!(world.accept_all().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn damaged_frames_never_panic(changes in proptest::collection::vec((0usize..80, any::<u8>(), 0usize..90), 1..30)) {
        let mut world = World::new(2);
        world.connect(10_001);
        for (at, byte, length) in changes {
            let now = StackInstant::from_micros(i64::try_from(world.now.nanos() / 1000).unwrap());
            world.host.poll(now, &mut world.device, &mut world.clients);
            let damaged = world.to_guest.0.borrow().back().map(|frame| {
                let mut frame = frame.clone();
                let at = at % frame.len();
                frame[at] = byte;
                frame.truncate(length);
                frame
            });
            world.to_guest.0.borrow_mut().extend(damaged);
            world.step();
        }
    }
}

#[test]
fn memory_of_past_connections_goes_but_for_the_warmest_and_is_used_again() {
    let mut world = World::new(6);
    let sockets = world.sockets.clone();
    let discard = || {
        let mut given = 0;
        let promised = sockets.borrow().discardable();
        sockets.borrow_mut().discard(|start, length| {
            // SAFETY: the sockets have just disowned these bytes.
            unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) }.fill(0xa5);
            given += length;
        });
        assert_eq!(given, promised);
        given / PER_CONNECTION
    };
    for round in 0..3 {
        let clients = [1, 2, 3, 4, 5].map(|port| world.connect(10_000 + port));
        world.steps(4);
        assert_eq!(discard(), 0, "round {round}: all in use");
        assert!(!sockets.borrow().is_quiet());
        for stream in world.accept_all() {
            stream.abort();
        }
        world.steps(4);
        assert_eq!(clients.map(|client| world.state(client)), [State::Closed; 5], "round {round}");
        assert!(sockets.borrow().is_quiet());
        assert_eq!((discard(), discard()), (3, 0), "round {round}");
    }
    // What was discarded still carries bytes.
    let client = world.connect(10_009);
    world.steps(4);
    let mut stream = world.accept_all().remove(0);
    let write = pin!(stream.write(b"hello")).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(write, Poll::Ready(Ok(5)));
    world.steps(4);
    assert_eq!(world.client(client).recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap(), b"hello");
}
