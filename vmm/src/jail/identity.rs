//! Which user a VM's process runs as.
//!
//! Real root gives every VM a user of its own, so that no VM may signal, trace or read another even if all
//! namespaces failed. Inside a user namespace only the ids of its map exist; an unprivileged user's map has exactly
//! one, so there all VMs share that one: it is root in name only, without any capability once jailed.

use std::io;
use std::ops::Range;

use rustix::process::{Gid, Uid};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{JailError, layer};

/// The users and groups that VMs run as: above the range that systemd gives to containers (0x0008_0000 to
/// 0x6fff_ffff) and below its reserved ids at 0x7fff_0000.
pub const IDS: Range<u32> = 0x7000_0000..0x7fff_0000;
/// How many of them one launcher uses: a block that it chooses at random, so that another weir on this host (whose
/// containers may well share its users) most likely has other ones.
pub const BLOCK: u32 = 0x1_0000;

/// Who a VM's process becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The user and group of this number, which no other VM has now.
    Unique(u32),
    /// The launcher's: its user namespace has no other.
    Launcher,
}

/// What the launcher's user namespace allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// First id of this launcher's block, if [`IDS`] are mapped.
    pub first: Option<u32>,
    /// Supplementary groups may be dropped; a user namespace made without privilege forbids it.
    pub set_groups: bool,
}

impl Users {
    /// Reads this process's user namespace; needs /proc.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn detect() -> io::Result<Self> {
        let maps =
            [std::fs::read_to_string("/proc/self/uid_map")?, std::fs::read_to_string("/proc/self/gid_map")?];
        Ok(Self {
            first: if maps.iter().all(|map| is_mapped(map, &IDS)) { Some(random_block()?) } else { None },
            set_groups: std::fs::read_to_string("/proc/self/setgroups")?.trim() == "allow",
        })
    }

    /// The identity for the VM in `slot`, which is below [`BLOCK`].
    pub fn identity(self, slot: u32) -> Identity {
        self.first.map_or(Identity::Launcher, |first| Identity::Unique(first + slot))
    }
}

fn random_block() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(block(u32::from_ne_bytes(bytes)))
}

/// First id of the block that `random` picks.
fn block(random: u32) -> u32 {
    let blocks = (IDS.end - IDS.start) / BLOCK;
    IDS.start + random % blocks * BLOCK
}

/// True if one line of `map` (user_namespaces(7): inside, outside, count) covers all of `ids`.
fn is_mapped(map: &str, ids: &Range<u32>) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) = (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        first <= u64::from(ids.start) && u64::from(ids.end) <= first.saturating_add(count)
    })
}

/// Becomes `identity`, without supplementary groups where they may be dropped. Needs CAP_SETUID and CAP_SETGID.
///
/// # Errors
/// The kernel refused.
pub fn assume(identity: Identity, set_groups: bool) -> Result<(), JailError> {
    if set_groups {
        set_thread_groups(&[]).map_err(layer("drop supplementary groups"))?;
    }
    if let Identity::Unique(id) = identity {
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        set_thread_res_gid(gid, gid, gid).map_err(layer("set group"))?;
        set_thread_res_uid(uid, uid, uid).map_err(layer("set user"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_namespace_maps_everything() {
        assert!(is_mapped("         0          0 4294967295\n", &IDS));
    }

    #[test]
    fn a_map_of_one_user_or_of_a_container_maps_no_vm_user() {
        assert!(!is_mapped("0 1000 1\n", &IDS));
        assert!(!is_mapped("0 100000 65536\n1000 1000 1\n", &IDS));
        assert!(!is_mapped("1879048192 0 65535\n", &IDS));
    }

    #[test]
    fn what_is_no_map_maps_nothing() {
        for text in
            ["", "\n", "0 0", "a b c", "-1 0 99999999999", "18446744073709551615 0 18446744073709551615"]
        {
            assert!(!is_mapped(text, &IDS), "{text:?}");
        }
    }

    #[test]
    fn slots_have_different_users() {
        let users = Users { first: Some(IDS.start), set_groups: true };
        assert_eq!(users.identity(0), Identity::Unique(IDS.start));
        assert_ne!(users.identity(1), users.identity(2));
        assert_eq!(Users { first: None, ..users }.identity(3), Identity::Launcher);
    }

    proptest::proptest! {
        #[test]
        fn every_block_lies_within_the_ids_and_none_overlap(random: u32) {
            let first = block(random);
            proptest::prop_assert!(IDS.contains(&first) && IDS.contains(&(first + BLOCK - 1)));
            proptest::prop_assert_eq!(first % BLOCK, 0);
        }
    }
}
