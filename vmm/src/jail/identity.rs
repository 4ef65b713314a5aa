//! Which user a VM's process runs as.
//!
//! Real root gives every VM a user of its own, so that no VM may signal, trace or read another even if all
//! namespaces failed. Inside a user namespace only the ids of its map exist; an unprivileged user's map has exactly
//! one, so there all VMs share that one: it is root in name only, without any capability once jailed.

use std::io;
use std::ops::Range;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{JailError, layer};

/// First of the users and groups that VMs run as: above the range that systemd gives to containers
/// (0x0008_0000 to 0x6fff_ffff) and below its reserved ids at 0x7fff_0000.
pub const FIRST_ID: u32 = 0x7000_0000;
/// How many VMs of one launcher can have a user of their own at the same time.
pub const ID_COUNT: u32 = 0x1_0000;

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
    /// The ids from [`FIRST_ID`] are mapped.
    pub unique: bool,
    /// Supplementary groups may be dropped; a user namespace made without privilege forbids it.
    pub set_groups: bool,
}

impl Users {
    /// Reads this process's user namespace; needs /proc.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn detect() -> io::Result<Self> {
        let wanted = FIRST_ID..FIRST_ID + ID_COUNT;
        let maps =
            [std::fs::read_to_string("/proc/self/uid_map")?, std::fs::read_to_string("/proc/self/gid_map")?];
        Ok(Self {
            unique: maps.iter().all(|map| is_mapped(map, &wanted)),
            set_groups: std::fs::read_to_string("/proc/self/setgroups")?.trim() == "allow",
        })
    }

    /// The identity for the VM in `slot`.
    pub fn identity(self, slot: u32) -> Identity {
        if self.unique { Identity::Unique(FIRST_ID + slot) } else { Identity::Launcher }
    }
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

    const WANTED: Range<u32> = FIRST_ID..FIRST_ID + ID_COUNT;

    #[test]
    fn the_initial_namespace_maps_everything() {
        assert!(is_mapped("         0          0 4294967295\n", &WANTED));
    }

    #[test]
    fn a_map_of_one_user_or_of_a_container_maps_no_vm_user() {
        assert!(!is_mapped("0 1000 1\n", &WANTED));
        assert!(!is_mapped("0 100000 65536\n1000 1000 1\n", &WANTED));
        assert!(!is_mapped("1879048192 0 65535\n", &WANTED));
    }

    #[test]
    fn what_is_no_map_maps_nothing() {
        for text in
            ["", "\n", "0 0", "a b c", "-1 0 99999999999", "18446744073709551615 0 18446744073709551615"]
        {
            assert!(!is_mapped(text, &WANTED), "{text:?}");
        }
    }

    #[test]
    fn slots_have_different_users() {
        let users = Users { unique: true, set_groups: true };
        assert_eq!(users.identity(0), Identity::Unique(FIRST_ID));
        assert_ne!(users.identity(1), users.identity(2));
        assert_eq!(Users { unique: false, ..users }.identity(3), Identity::Launcher);
    }
}
