use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use weir_vmm::VmId;

use super::*;

fn member(id: u64) -> Member {
    Member::Vm(VmId(id))
}

/// Which of these VMs comes first.
fn highest(belongs: Belongs, keys: &RandomState, vms: impl Iterator<Item = u64>) -> Option<u64> {
    vms.filter_map(|id| Some((belongs.rank(keys, member(id))?, id))).max().map(|(_, id)| id)
}

#[test]
fn keys_are_spread_and_a_new_vm_takes_its_part_only() {
    let keys = RandomState::new();
    let mut counts = BTreeMap::<u64, u32>::new();
    let mut moved = 0;
    for hash in 0..10_000 {
        let of = |count| highest(Belongs::Hash(hash), &keys, 0..count).unwrap();
        let (before, after) = (of(9), of(10));
        *counts.entry(after).or_default() += 1;
        if before != after {
            assert_eq!(after, 9, "who moves, moves to the new one");
            moved += 1;
        }
    }
    // A tenth each: 1000, with a standard deviation of 30.
    assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
    assert!((800..1200).contains(&moved), "{moved}");
}

#[test]
fn a_tag_is_one_vms_of_one_session() {
    let keys = RandomState::new();
    let tags: HashSet<_> =
        (0..100).flat_map(|n| [(n, 1), (1000, n)]).map(|(s, vm)| tag(&keys, s, member(vm))).collect();
    assert_eq!(tags.len(), 200);
    assert!(!tags.contains(&tag(&RandomState::new(), 1000, member(1))), "the key is the process's");
    let belongs = Belongs::Session { session: 7, tag: Some(tag(&keys, 7, member(3))) };
    assert_eq!(highest(belongs, &keys, 0..10), Some(3));
    assert_eq!(highest(belongs, &keys, 4..10), None, "any of them");
    let forged = Belongs::Session { session: 8, tag: Some(tag(&keys, 7, member(3))) };
    assert_eq!(highest(forged, &keys, 0..10), None);
}

fn hashed(
    key: AffinityKey,
    field: (&'static str, &str),
    client: &str,
    keys: &RandomState,
) -> Option<Belongs> {
    let mut headers = HeaderMap::new();
    headers.insert(field.0, field.1.parse().unwrap());
    let client = client.parse().ok();
    Affinity::Hash(key).of(&headers, client, keys, || unreachable!("there are no sessions"))
}

#[test]
fn who_brings_the_same_belongs_together() {
    let keys = RandomState::new();
    let of_client = |client| hashed(AffinityKey::Client, ("x", "y"), client, &keys);
    assert_eq!(of_client("192.0.2.1"), of_client("::ffff:192.0.2.1"));
    assert_eq!(of_client("2001:db8::1"), of_client("2001:db8::2"));
    assert_ne!(of_client("192.0.2.1"), of_client("192.0.2.2"));
    assert_eq!(of_client("nowhere"), None);
    let user = || AffinityKey::Header("x-user".parse().unwrap());
    let of_user = |name, user_is| hashed(user(), (name, user_is), "192.0.2.1", &keys);
    assert_eq!(of_user("x-user", "a"), of_user("x-user", "a"));
    assert_ne!(of_user("x-user", "a"), of_user("x-user", "b"));
    assert_eq!(of_user("x-other", "a"), None);
    let of_cookie =
        |cookies| hashed(AffinityKey::Cookie("sid".to_owned()), ("cookie", cookies), "192.0.2.1", &keys);
    assert_eq!(of_cookie("sid=a"), of_cookie("b=c; sid=a; sid=d"));
    assert_ne!(of_cookie("sid=a"), of_cookie("sid=b"));
    assert_eq!(of_cookie("side=a"), None);
}

proptest! {
    #[test]
    fn no_cookie_is_too_strange(value in "[ -~]{0,80}", drawn: u64) {
        let cookie = model::SessionCookie { name: "w".to_owned(), max_age: None };
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("w={value}").parse().unwrap());
        let affinity = Affinity::Session(SetCookie::new(&cookie, "/"));
        let belongs = affinity.of(&headers, None, &RandomState::new(), || drawn);
        prop_assert_eq!(belongs, Some(Belongs::Session { session: drawn, tag: None }));
    }
}
