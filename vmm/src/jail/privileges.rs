//! Capabilities, and the ways to get them back.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use super::{JailError, layer};

/// Empties the bounding set, and makes user 0 and a change of user mean nothing for capabilities from now on. Needs
/// CAP_SETPCAP, so it comes first.
pub(super) fn forbid_gain() -> Result<(), JailError> {
    // By number: a newer kernel may have more capabilities than there are names for here. They have no gaps.
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(layer("empty the bounding set")(error)),
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(layer("lock securebits"))
}

/// Empties the ambient, inheritable, effective and permitted sets.
pub(super) fn drop_all() -> Result<(), JailError> {
    clear_ambient_capability_set().map_err(layer("drop ambient capabilities"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(layer("drop capabilities"))
}
