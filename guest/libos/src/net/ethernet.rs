//! Ethernet as far as a point-to-point link needs it: one neighbour, whose address boot-info gives. No ARP; the
//! stack above sees IP packets.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Length of an Ethernet header, bytes.
pub(crate) const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];

/// Where frames come from.
pub(crate) trait Receive {
    /// The oldest frame that was not released, without leaving the queue.
    fn peek(&mut self) -> Option<&[u8]>;
    /// Drops that frame.
    fn release(&mut self);
}

/// Where frames go.
pub(crate) trait Transmit {
    /// Whether [`Self::transmit`] may be called.
    fn has_room(&mut self) -> bool;
    /// Queues a frame of `length` bytes that `fill` writes.
    fn transmit<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R;
}

/// The two ends' addresses and the link's packet size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkAddress {
    pub(crate) mac: [u8; 6],
    pub(crate) gateway_mac: [u8; 6],
    pub(crate) mtu: u16,
}

/// A smoltcp device of medium IP over frames.
pub(crate) struct Ethernet<R, T> {
    receiver: R,
    transmitter: T,
    address: LinkAddress,
}

impl<R: Receive, T: Transmit> Ethernet<R, T> {
    pub(crate) fn new(receiver: R, transmitter: T, address: LinkAddress) -> Self {
        Self { receiver, transmitter, address }
    }

    /// Becomes another end of another link.
    pub(crate) fn set_address(&mut self, address: LinkAddress) {
        self.address = address;
    }

    /// Drops everything that was received.
    pub(crate) fn drain(&mut self) {
        while self.receiver.peek().is_some() {
            self.receiver.release();
        }
    }

    /// The oldest IPv4 packet that is for us; drops what stands before it.
    pub(crate) fn peek(&mut self) -> Option<&[u8]> {
        loop {
            let frame = self.receiver.peek()?;
            if frame.len() > HEADER && frame[..6] == self.address.mac && frame[12..HEADER] == IPV4 {
                break;
            }
            self.receiver.release();
        }
        self.receiver.peek().and_then(|frame| frame.get(HEADER..))
    }

    /// Drops the packet that [`Self::peek`] shows.
    pub(crate) fn discard(&mut self) {
        self.receiver.release();
    }
}

pub(crate) struct Incoming<'a, R: Receive>(&'a mut R);

impl<R: Receive> RxToken for Incoming<'_, R> {
    fn consume<O, F: FnOnce(&[u8]) -> O>(self, f: F) -> O {
        let result = f(self.0.peek().and_then(|frame| frame.get(HEADER..)).unwrap_or_default());
        self.0.release();
        result
    }
}

pub(crate) struct Outgoing<'a, T: Transmit>(&'a mut T, LinkAddress);

impl<T: Transmit> TxToken for Outgoing<'_, T> {
    fn consume<O, F: FnOnce(&mut [u8]) -> O>(self, length: usize, f: F) -> O {
        let Self(transmitter, address) = self;
        transmitter.transmit(HEADER + length, |frame| {
            frame[..6].copy_from_slice(&address.gateway_mac);
            frame[6..12].copy_from_slice(&address.mac);
            frame[12..HEADER].copy_from_slice(&IPV4);
            f(&mut frame[HEADER..])
        })
    }
}

impl<R: Receive, T: Transmit> Device for Ethernet<R, T> {
    type RxToken<'a>
        = Incoming<'a, R>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a, T>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_, R>, Outgoing<'_, T>)> {
        if !self.transmitter.has_room() {
            return None;
        }
        self.peek()?;
        Some((Incoming(&mut self.receiver), Outgoing(&mut self.transmitter, self.address)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_, T>> {
        self.transmitter.has_room().then_some(Outgoing(&mut self.transmitter, self.address))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.address.mtu);
        capabilities
    }
}
