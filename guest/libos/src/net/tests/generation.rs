//! A stack that becomes another VM's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use smoltcp::wire::{Ipv4Packet, TcpPacket, TcpSeqNumber};

use super::*;
use crate::net::ConnectionLost;

const OTHER_HOST: [u8; 4] = [10, 0, 0, 2];
const OTHER_GUEST: [u8; 4] = [10, 0, 0, 3];
const OTHER_LINK: LinkAddress =
    LinkAddress { mac: [2, 0, 0, 0, 0, 3], gateway_mac: [2, 0, 0, 0, 0, 4], mtu: 1400 };

impl World {
    /// Moves guest and host to the other link.
    fn renew(&mut self, seed: u64) {
        let ip = IpAddress { address: OTHER_GUEST, prefix: 31, gateway: OTHER_HOST };
        self.guest.renew(OTHER_LINK, ip, seed, self.now);
        self.address = OTHER_GUEST;
        self.device.set_address(LinkAddress {
            mac: OTHER_LINK.gateway_mac,
            gateway_mac: OTHER_LINK.mac,
            ..LINK
        });
        let cidr = smoltcp::wire::IpCidr::new(Ipv4Address::from(OTHER_HOST).into(), 31);
        self.host.update_ip_addrs(|addresses| addresses[0] = cidr);
    }

    /// What the guest has sent since.
    fn sent(&self) -> Vec<Vec<u8>> {
        self.to_host.0.borrow_mut().drain(..).collect()
    }

    fn guest_only(&mut self) {
        self.guest.receive(self.now);
        self.guest.transmit(self.now);
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a read of `stream` once.
fn read(stream: &mut TcpStream, waker: &Waker) -> Poll<Result<usize, ConnectionLost>> {
    let mut buffer = [0; 8];
    pin!(stream.read(&mut buffer)).poll(&mut Context::from_waker(waker))
}

#[test]
fn connections_in_every_state_are_gone_without_a_word() {
    let mut world = World::new(6);
    let clients = [10_001, 10_002, 10_003, 10_004].map(|port| world.connect(port));
    world.steps(4);
    let mut streams = world.accept_all();
    // One is read from, one is written to, one was closed by the guest, one by the client.
    let mut closing = streams.pop().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(read(&mut streams[0], &waker).is_pending());
    assert!(pin!(closing.write(b"bye")).poll(&mut Context::from_waker(&waker)).is_ready());
    drop(closing);
    world.client(clients[1]).close();
    world.steps(4);
    // One waits to be accepted, one is in the handshake.
    world.connect(10_005);
    world.steps(4);
    world.connect(10_006);
    world.host.poll(StackInstant::ZERO, &mut world.device, &mut world.clients);
    world.guest_only();
    assert_ne!(world.sent(), Vec::<Vec<u8>>::new(), "the handshake's answer is lost");
    assert!(pin!(streams[2].write(b"hello")).poll(&mut Context::from_waker(&waker)).is_ready());

    let woken = count.0.load(Ordering::Relaxed);
    world.renew(2);
    world.guest_only();
    assert_eq!(world.sent(), Vec::<Vec<u8>>::new());
    assert_eq!(count.0.load(Ordering::Relaxed), woken + 1, "the task that reads is woken");
    for stream in &mut streams {
        assert_eq!(read(stream, &waker), Poll::Ready(Err(ConnectionLost)));
        let write = pin!(stream.write(b"late")).poll(&mut Context::from_waker(&waker));
        assert_eq!(write, Poll::Ready(Err(ConnectionLost)));
    }
    assert_eq!(world.accept_all().len(), 0);
    drop(streams);
    world.guest_only();
    assert_eq!(world.guest.deadline(world.now), None, "nothing is left of them");
    assert_eq!(world.sent(), Vec::<Vec<u8>>::new());

    // Their buffers are free: as many connections as before fit.
    world.clients = SocketSet::new(Vec::new());
    let clients = [1, 2, 3, 4, 5, 6].map(|port| world.connect(10_000 + port));
    world.steps(6);
    assert_eq!(clients.map(|client| world.state(client)), [State::Established; 6]);
    assert_eq!(world.accept_all().len(), 6);
}

#[test]
fn only_the_new_address_answers_and_segments_fit_the_new_link() {
    let mut world = World::new(2);
    let old = world.connect(10_001);
    world.host.poll(StackInstant::ZERO, &mut world.device, &mut world.clients);
    let to_old = world.to_guest.0.borrow_mut().pop_front().unwrap();
    world.renew(2);
    // Old frames by MAC address, and by IP address only.
    let mut to_old_ip = to_old.clone();
    to_old_ip[..6].copy_from_slice(&OTHER_LINK.mac);
    world.to_guest.0.borrow_mut().extend([to_old, to_old_ip]);
    world.guest_only();
    assert_eq!(world.sent(), Vec::<Vec<u8>>::new());
    world.clients.remove(old);

    world.connect(10_002);
    world.host.poll(StackInstant::ZERO, &mut world.device, &mut world.clients);
    world.guest_only();
    let [frame] = <[_; 1]>::try_from(world.sent()).unwrap();
    assert_eq!((&frame[..6], &frame[6..12]), (&OTHER_LINK.gateway_mac[..], &OTHER_LINK.mac[..]));
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!((ip.src_addr().octets(), ip.dst_addr().octets()), (OTHER_GUEST, OTHER_HOST));
    let mut options = TcpPacket::new_checked(ip.payload()).unwrap().options().to_vec();
    options.truncate(4);
    assert_eq!(options, [2, 4, 5, 80], "MSS 1360");
}

#[test]
fn what_was_left_unread_is_dropped_and_what_comes_then_is_not() {
    let mut world = World::new(2);
    world.connect(10_001);
    world.host.poll(StackInstant::ZERO, &mut world.device, &mut world.clients);
    let syn = world.to_guest.0.borrow().front().cloned().unwrap();
    // Seen, but left where it is; then this VM goes back to its snapshot, under the same address.
    assert_eq!(world.guest.deadline(world.now), Some(world.now));
    let same = IpAddress { address: GUEST, prefix: 31, gateway: HOST };
    world.guest.renew(LINK, same, 2, world.now);
    world.guest_only();
    assert_eq!(world.sent(), Vec::<Vec<u8>>::new());

    assert_eq!(world.guest.deadline(world.now), None);
    world.to_guest.0.borrow_mut().push_back(syn);
    world.guest.renew(LINK, same, 3, world.now);
    world.guest_only();
    assert_eq!(world.sent().len(), 1, "a SYN that came for the new one is answered");
}

#[test]
fn no_two_generations_begin_a_connection_alike() {
    let sequence = |seed: u64| -> TcpSeqNumber {
        let mut world = World::new(1);
        world.renew(seed);
        world.connect(10_001);
        world.host.poll(StackInstant::ZERO, &mut world.device, &mut world.clients);
        world.guest_only();
        let frame = world.sent().pop().unwrap();
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        TcpPacket::new_checked(ip.payload()).unwrap().seq_number()
    };
    let seeds = (0u64..100).map(|seed| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut seen: Vec<i32> = seeds.map(|seed| sequence(seed).0).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 100);
}
