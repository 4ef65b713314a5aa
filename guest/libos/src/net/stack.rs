//! The TCP/IP stack (smoltcp) between frames and sockets.

use alloc::rc::Rc;
use core::cell::RefCell;

use smoltcp::iface::{Config, Interface, PollResult};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use super::ethernet::{Ethernet, LinkAddress, Receive, Transmit};
use super::sockets::{Sockets, Verdict};
use super::syn::Syn;
use crate::clock::Instant;

/// This end's IPv4 configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpAddress {
    pub(crate) address: [u8; 4],
    pub(crate) prefix: u8,
    pub(crate) gateway: [u8; 4],
}

/// One link and the sockets behind it.
pub(crate) struct Stack<R, T> {
    interface: Interface,
    device: Ethernet<R, T>,
    sockets: Rc<RefCell<Sockets>>,
    mtu: u16,
    /// Packets were left when [`Self::deadline`] last looked.
    backlog: bool,
}

impl<R: Receive, T: Transmit> Stack<R, T> {
    pub(crate) fn new(
        receiver: R,
        transmitter: T,
        link: LinkAddress,
        ip: IpAddress,
        seed: u64,
        sockets: Rc<RefCell<Sockets>>,
    ) -> Self {
        let mut device = Ethernet::new(receiver, transmitter, link);
        let interface = interface(&mut device, ip, seed, StackInstant::ZERO);
        Self { interface, device, sockets, mtu: link.mtu, backlog: false }
    }

    /// Becomes the stack of another VM: all connections are gone, and what was left of their packets. What arrived
    /// after the last look is for the new VM already. A larger MTU than the first is not used: buffers are made for
    /// that one.
    pub(crate) fn renew(&mut self, link: LinkAddress, ip: IpAddress, seed: u64, now: Instant) {
        if core::mem::take(&mut self.backlog) {
            self.device.drain();
        }
        self.device.set_address(LinkAddress { mtu: link.mtu.min(self.mtu), ..link });
        let now = stack_time(now);
        self.interface = interface(&mut self.device, ip, seed, now);
        self.sockets.borrow_mut().abandon(now);
    }

    /// Takes everything that was received.
    pub(crate) fn receive(&mut self, now: Instant) {
        let now = stack_time(now);
        let mut sockets = self.sockets.borrow_mut();
        while let Some(packet) = self.device.peek() {
            if let Some(syn) = Syn::parse(packet)
                && sockets.admit(syn) == Verdict::Drop
            {
                self.device.discard();
                continue;
            }
            let result = self.interface.poll_ingress_single(now, &mut self.device, &mut sockets.set);
            if matches!(result, smoltcp::iface::PollIngressSingleResult::None) {
                // No room for an answer: the rest waits until the device has taken what is queued.
                break;
            }
        }
        sockets.sort(now);
    }

    /// Queues everything that can be sent.
    pub(crate) fn transmit(&mut self, now: Instant) {
        let now = stack_time(now);
        let mut sockets = self.sockets.borrow_mut();
        while self.interface.poll_egress(now, &mut self.device, &mut sockets.set)
            == PollResult::SocketStateChanged
        {}
        sockets.sort(now);
    }

    /// How many bytes [`Self::discard`] would give back at most.
    pub(crate) fn discardable(&mut self) -> usize {
        self.device.discardable()
    }

    /// Calls `give` with start and length of the driver's memory whose contents are not needed.
    pub(crate) fn discard(&mut self, give: &mut dyn FnMut(usize, usize)) {
        self.device.give_back(give);
    }

    /// When to come back even if nothing is received; not later than `now`: at once.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        self.backlog = self.device.peek().is_some();
        if self.backlog {
            return Some(now);
        }
        let sockets = self.sockets.borrow();
        let stack = self.interface.poll_at(stack_time(now), &sockets.set);
        let earliest = stack.into_iter().chain(sockets.deadline()).min()?;
        Some(Instant::from_nanos(u64::try_from(earliest.total_micros()).unwrap_or(0).saturating_mul(1000)))
    }
}

/// smoltcp's half of a stack. `seed` decides on initial sequence numbers.
fn interface<R: Receive, T: Transmit>(
    device: &mut Ethernet<R, T>,
    ip: IpAddress,
    seed: u64,
    now: StackInstant,
) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, device, now);
    let cidr = Ipv4Cidr::new(Ipv4Address::from(ip.address), ip.prefix.min(32));
    interface.update_ip_addrs(|addresses| {
        // The list is empty and holds at least one.
        let _ = addresses.push(IpCidr::Ipv4(cidr));
    });
    // As above, for the routes.
    let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::from(ip.gateway));
    interface
}

fn stack_time(now: Instant) -> StackInstant {
    StackInstant::from_micros(i64::try_from(now.nanos() / 1000).unwrap_or(i64::MAX))
}
