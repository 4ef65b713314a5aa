use std::collections::VecDeque;

use ipnetwork::Ipv4Network;
use proptest::prelude::*;

use super::{AddressError, AddressPool, Link};

fn network(text: &str) -> Ipv4Network {
    text.parse().expect("a network")
}

fn pool(text: &str) -> AddressPool {
    AddressPool::new(network(text)).expect("usable")
}

#[test]
fn first_link_of_the_default_network_is_what_the_documents_say() {
    let link = pool("10.88.0.0/16").allocate().expect("a link");
    assert_eq!(link.to_string(), "10.88.0.2/31");
    assert_eq!(link.guest.to_string(), "10.88.0.3");
    assert_eq!(link.host_mac, [0x02, 0x57, 10, 88, 0, 2]);
    assert_eq!(link.guest_mac, [0x02, 0x57, 10, 88, 0, 3]);
}

#[test]
fn capacity_leaves_out_both_ends_only_where_something_remains() {
    for (text, links) in [
        ("10.0.0.0/8", (1 << 23) - 2),
        ("10.0.0.0/29", 2),
        ("10.0.0.0/30", 2),
        ("10.0.0.0/31", 1),
        ("10.0.0.0/32", 0),
    ] {
        assert_eq!(pool(text).capacity(), links, "{text}");
    }
}

#[test]
fn networks_that_no_host_can_have_are_refused() {
    for text in [
        "0.0.0.0/0",
        "0.0.0.0/8",
        "127.0.0.0/8",
        "127.1.0.0/16",
        "126.0.0.0/7",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "64.0.0.0/2",
    ] {
        let network = network(text);
        assert_eq!(AddressPool::new(network).err(), Some(AddressError::NotUnicast { network }), "{text}");
    }
}

#[test]
fn release_of_a_link_that_is_not_in_use_gives_it_no_second_holder() {
    let mut pool = pool("10.0.0.0/29");
    let (a, b) = (pool.allocate().expect("first"), pool.allocate().expect("second"));
    pool.release(a);
    pool.release(a);
    pool.release(Link::at(u32::from(std::net::Ipv4Addr::new(192, 168, 0, 2))));
    assert_eq!(pool.allocate(), Ok(a));
    assert!(matches!(pool.allocate(), Err(AddressError::Exhausted { capacity: 2, .. })));
    pool.release(b);
    assert_eq!(pool.allocate(), Ok(b));
}

/// What a pool must do, in the simplest way that can be written down.
#[derive(Default)]
struct Model {
    live: Vec<Link>,
    released: VecDeque<Link>,
    touched: u64,
}

proptest! {
    #[test]
    fn links_never_overlap_and_come_back_oldest_first(
        low in 0x0100_0000_u32..0x7e00_0000,
        prefix in 20_u8..=32,
        steps in prop::collection::vec(any::<(bool, prop::sample::Index)>(), 0..200),
    ) {
        let network = Ipv4Network::new(low.into(), prefix).expect("a prefix");
        let mut pool = AddressPool::new(network).expect("usable");
        let capacity = pool.capacity();
        let mut model = Model::default();
        for (allocate, index) in steps {
            if !allocate && !model.live.is_empty() {
                let link = model.live.swap_remove(index.index(model.live.len()));
                pool.release(link);
                model.released.push_back(link);
                continue;
            }
            match pool.allocate() {
                Ok(link) => {
                    prop_assert!(network.contains(link.host) && network.contains(link.guest));
                    prop_assert_eq!(u32::from(link.host) & 1, 0);
                    prop_assert_eq!(u32::from(link.guest), u32::from(link.host) + 1);
                    prop_assert!(model.live.iter().all(|other| other.host != link.host));
                    prop_assert!(link.host_mac != link.guest_mac);
                    if model.touched < capacity {
                        prop_assert!(!model.released.contains(&link), "reused before every link was used once");
                        model.touched += 1;
                    } else {
                        prop_assert_eq!(Some(link), model.released.pop_front());
                    }
                    model.live.push(link);
                }
                Err(error) => {
                    prop_assert_eq!(model.live.len() as u64, capacity);
                    prop_assert_eq!(error, AddressError::Exhausted { network, capacity });
                }
            }
        }
    }
}
