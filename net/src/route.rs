//! The few requests to rtnetlink(7) that TAP links need, over one blocking socket.
//!
//! A socket belongs to the network namespace in which it was made, whatever its user does afterwards.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::address::{Link, Mac, PREFIX};

/// Index of a network interface, unique in its namespace.
pub(crate) type Index = u32;

/// The loopback interface is the first in every namespace.
pub(crate) const LOOPBACK: Index = 1;

/// Room for an acknowledgement: its header, the error and the request that it answers.
const REPLY: usize = 4096;

/// A socket to the kernel's routing subsystem.
#[derive(Debug)]
pub(crate) struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    /// Opens one for the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Brings `interface` up.
    pub(crate) fn set_up(&mut self, interface: Index) -> io::Result<()> {
        self.request(RouteNetlinkMessage::SetLink(up(interface)), 0)
    }

    /// Sets the MTU and brings `interface` up without ARP: it asks nobody and answers nobody.
    pub(crate) fn set_up_without_arp(&mut self, interface: Index, mtu: u16) -> io::Result<()> {
        let mut message = up(interface);
        message.header.flags |= LinkFlags::Noarp;
        message.header.change_mask |= LinkFlags::Noarp;
        message.attributes.push(LinkAttribute::Mtu(mtu.into()));
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the Ethernet address of `interface`.
    pub(crate) fn set_mac(&mut self, interface: Index, mac: Mac) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives `interface` the host's address of `link`, which makes a route to the guest's.
    pub(crate) fn add_address(&mut self, interface: Index, link: &Link) -> io::Result<()> {
        self.request(
            RouteNetlinkMessage::NewAddress(address(interface, link.host)),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes the host's address of `link` and the route that came with it from `interface`.
    pub(crate) fn remove_address(&mut self, interface: Index, link: &Link) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelAddress(address(interface, link.host)), 0)
    }

    /// Says once and for all which Ethernet address the guest's end of `link` has.
    pub(crate) fn add_neighbour(&mut self, interface: Index, link: &Link) -> io::Result<()> {
        let mut message = neighbour(interface, link.guest);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(link.guest_mac.to_vec()));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Forgets it.
    pub(crate) fn remove_neighbour(&mut self, interface: Index, link: &Link) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelNeighbour(neighbour(interface, link.guest)), 0)
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.acknowledgement()
    }

    /// Reads until the answer to the last request. Answers to earlier ones, whose reading was interrupted, are
    /// passed over.
    fn acknowledgement(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(REPLY);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if reply.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = reply.payload {
                return match error.code {
                    None => Ok(()),
                    Some(_) => Err(error.to_io()),
                };
            }
        }
    }
}

fn up(interface: Index) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = interface;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn address(interface: Index, host: Ipv4Addr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = PREFIX;
    message.header.index = interface;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(host)));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(host)));
    message
}

fn neighbour(interface: Index, guest: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = interface;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(guest)));
    message
}
