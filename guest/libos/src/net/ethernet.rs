//! Ethernet as far as a point-to-point link needs it: one neighbour, whose address boot-info gives. No ARP; the
//! stack above sees IP packets.

use core::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

use super::offload;

/// Length of an Ethernet header, bytes.
pub(crate) const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];

/// A frame that was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) bytes: &'a [u8],
    /// The other side vouches for its checksum.
    pub(crate) vouched: bool,
}

/// What the other side does for us with frames that we send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offers {
    /// Completes checksums of TCP.
    pub(crate) checksum: bool,
    /// Divides TCP segments, in IP packets of up to so many bytes.
    pub(crate) segment: Option<usize>,
}

/// Where frames come from.
pub(crate) trait Receive {
    /// The oldest frame that was not released, without leaving the queue.
    fn peek(&mut self) -> Option<Frame<'_>>;
    /// Drops that frame.
    fn release(&mut self);
    /// Lets go of memory that is not needed now.
    fn forget(&mut self) {}
}

/// Where frames go.
pub(crate) trait Transmit {
    /// What is done with them.
    fn offers(&self) -> Offers {
        Offers::default()
    }
    /// Whether [`Self::transmit`] may be called.
    fn has_room(&mut self) -> bool;
    /// Queues a frame of `length` bytes that `fill` writes, to be divided into TCP segments of `segment` bytes.
    fn transmit<R>(
        &mut self,
        length: usize,
        segment: Option<NonZeroU16>,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R;
    /// How many bytes [`Self::discard`] would give back.
    fn discardable(&mut self) -> usize {
        0
    }
    /// Calls `give` with start and length of memory whose contents are not needed.
    fn discard(&mut self, _give: &mut dyn FnMut(usize, usize)) {}
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
    /// The frame at hand is ours and intact.
    checked: bool,
}

impl<R: Receive, T: Transmit> Ethernet<R, T> {
    pub(crate) fn new(receiver: R, transmitter: T, address: LinkAddress) -> Self {
        Self { receiver, transmitter, address, checked: false }
    }

    /// Becomes another end of another link.
    pub(crate) fn set_address(&mut self, address: LinkAddress) {
        self.address = address;
    }

    /// Drops everything that was received.
    pub(crate) fn drain(&mut self) {
        self.checked = false;
        while self.receiver.peek().is_some() {
            self.receiver.release();
        }
    }

    /// The oldest IPv4 packet that is for us; drops what stands before it.
    pub(crate) fn peek(&mut self) -> Option<&[u8]> {
        while !self.checked {
            let Frame { bytes, vouched } = self.receiver.peek()?;
            let is_ours = bytes.len() > HEADER && bytes[..6] == self.address.mac && bytes[12..HEADER] == IPV4;
            self.checked = is_ours && (vouched || offload::is_intact(&bytes[HEADER..]));
            if !self.checked {
                self.receiver.release();
            }
        }
        self.receiver.peek().and_then(|frame| frame.bytes.get(HEADER..))
    }

    /// Drops the packet that [`Self::peek`] shows.
    pub(crate) fn discard(&mut self) {
        self.checked = false;
        self.receiver.release();
    }

    /// How many bytes [`Self::give_back`] would give.
    pub(crate) fn discardable(&mut self) -> usize {
        self.transmitter.discardable()
    }

    /// Calls `give` with start and length of memory whose contents are not needed.
    pub(crate) fn give_back(&mut self, give: &mut dyn FnMut(usize, usize)) {
        self.receiver.forget();
        self.transmitter.discard(give);
    }
}

/// The packet at hand.
pub(crate) struct Incoming<'a, R: Receive>(&'a mut R, &'a mut bool);

impl<R: Receive> RxToken for Incoming<'_, R> {
    fn consume<O, F: FnOnce(&[u8]) -> O>(self, f: F) -> O {
        let Self(receiver, checked) = self;
        let result = f(receiver.peek().and_then(|frame| frame.bytes.get(HEADER..)).unwrap_or_default());
        *checked = false;
        receiver.release();
        result
    }
}

/// Room for a packet.
pub(crate) struct Outgoing<'a, T: Transmit> {
    transmitter: &'a mut T,
    address: LinkAddress,
    segment: Option<NonZeroU16>,
}

impl<T: Transmit> TxToken for Outgoing<'_, T> {
    fn consume<O, F: FnOnce(&mut [u8]) -> O>(self, length: usize, f: F) -> O {
        let Self { transmitter, address, segment } = self;
        transmitter.transmit(HEADER + length, segment, |frame| {
            frame[..6].copy_from_slice(&address.gateway_mac);
            frame[6..12].copy_from_slice(&address.mac);
            frame[12..HEADER].copy_from_slice(&IPV4);
            f(&mut frame[HEADER..])
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
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
        let outgoing = Outgoing { transmitter: &mut self.transmitter, address: self.address, segment: None };
        Some((Incoming(&mut self.receiver, &mut self.checked), outgoing))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_, T>> {
        self.transmitter.has_room().then_some(Outgoing {
            transmitter: &mut self.transmitter,
            address: self.address,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.address.mtu);
        let offers = self.transmitter.offers();
        // Received ones are looked at in `peek`: whether anyone vouches for them is not for all frames the same.
        capabilities.checksum.tcp = if offers.checksum { Checksum::None } else { Checksum::Tx };
        capabilities.segmentation.tcpv4 = offers.segment.and_then(NonZeroUsize::new);
        capabilities
    }
}
