//! TAPs end with their namespace, however the process that holds them ends.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use weir_net::tap::TapLink;

use crate::{command, enter, pool};

/// How many TAPs the process holds.
const TAPS: usize = 50;
/// The multicast group that hears of devices coming and going (`RTNLGRP_LINK`).
const LINK_GROUP: u32 = 1;

/// Holds [`TAPS`] until it is killed; a byte on stdout says that it has them.
pub(crate) fn hold_taps() {
    let pool = pool();
    let taps: Vec<TapLink> = (0..TAPS).map(|_| pool.acquire().expect("a tap")).collect();
    let mut stdout = std::io::stdout();
    stdout.write_all(b"r").expect("heard");
    stdout.flush().expect("heard");
    let devices = fs::read_to_string("/proc/net/dev").expect("devices");
    assert_eq!(devices.matches("weir").count(), taps.len());
    // Ends only with the other side.
    let _ = std::io::stdin().read(&mut [0]);
}

/// A veth pair shows when the holder's namespace is taken down: our end goes with the other, in the same batch as
/// the TAPs.
pub(crate) fn sigkill_leaves_no_tap() {
    let _private = enter();
    let mut holder =
        command("root", "hold_taps").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
    holder.stdout.take().expect("piped").read_exact(&mut [0]).expect("the holder has its taps");

    let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
    socket.bind_auto().expect("an address");
    add_veth(&socket, holder.id());
    socket.add_membership(LINK_GROUP).expect("the group");
    holder.kill().expect("killed");
    holder.wait().expect("gone");
    // A namespace that stays would hang here, until the case's limit.
    while !is_end_of_veth(&receive(&socket)) {}

    // sysfs shows the namespace it was mounted in, the host's. Devices without a home would move there.
    let left: Vec<_> = fs::read_dir("/sys/class/net")
        .expect("devices")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("weir"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

const OUR_END: &str = "ours";

fn add_veth(socket: &Socket, holder: u32) {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![LinkAttribute::IfName("theirs".to_owned()), LinkAttribute::NetNsPid(holder)];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(OUR_END.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut request =
        NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::NewLink(message)));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).expect("sent");
    match receive(socket) {
        NetlinkPayload::Error(error) if error.code.is_none() => {}
        other => panic!("no veth pair: {other:?}"),
    }
}

fn is_end_of_veth(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) = payload else { return false };
    message.attributes.contains(&LinkAttribute::IfName(OUR_END.to_owned()))
}

fn receive(socket: &Socket) -> NetlinkPayload<RouteNetlinkMessage> {
    let (bytes, _) = socket.recv_from_full().expect("a message");
    NetlinkMessage::deserialize(&bytes).expect("a netlink message").payload
}
