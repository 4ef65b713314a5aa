//! Composing the boot-info page (see [`weir_abi::boot`]).

use std::mem::size_of;

use weir_abi::{BootInfo, layout};

use super::plan::Plan;
use crate::spec::VmSpec;

/// Why a spec does not fit into the boot-info page.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BootInfoError {
    #[error("environment variable name {0:?} is empty or contains = or NUL")]
    Name(String),
    #[error("value of environment variable {0} contains a NUL byte")]
    Value(String),
    #[error("argument {0} contains a NUL byte")]
    Argument(usize),
    #[error("environment and arguments take {length} bytes, there is room for {available}")]
    TooLong { length: usize, available: u64 },
}

/// Relation of the guest's time-stamp counter to the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Frequency, Hz.
    pub(crate) tsc_hz: u64,
    /// Counter at `unix_nanos`.
    pub(crate) tsc_base: u64,
    /// Nanoseconds since 1970.
    pub(crate) unix_nanos: u64,
}

/// The structure and the strings behind it.
pub(crate) fn compose(
    spec: &VmSpec,
    plan: &Plan,
    clock: Clock,
    entropy: [u8; 64],
) -> Result<(BootInfo, Vec<u8>), BootInfoError> {
    let strings = strings(spec)?;
    let offset = size_of::<BootInfo>();
    let available = layout::BOOT_INFO_SIZE - offset as u64;
    if strings.len() as u64 > available {
        return Err(BootInfoError::TooLong { length: strings.len(), available });
    }
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let mut info = BootInfo {
        vcpus: spec.vcpus,
        generation: 1,
        vm_id: spec.id.0,
        heap: plan.heap,
        stack: plan.stack,
        tsc_hz: clock.tsc_hz,
        tsc_base: clock.tsc_base,
        unix_nanos: clock.unix_nanos,
        entropy,
        env_count: count(spec.env.len()),
        arg_count: count(spec.args.len()),
        strings: count(offset),
        strings_length: count(strings.len()),
        ..BootInfo::new()
    };
    if let Some(net) = &spec.net {
        info.virtio_net = layout::VIRTIO_NET;
        info.mac = net.mac;
        info.gateway_mac = net.gateway_mac;
        info.address = net.address.octets();
        info.gateway = net.gateway.octets();
        info.prefix = net.prefix;
        info.mtu = net.mtu;
    }
    Ok((info, strings))
}

/// Environment, then arguments, each NUL-terminated.
fn strings(spec: &VmSpec) -> Result<Vec<u8>, BootInfoError> {
    let mut bytes = Vec::new();
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(BootInfoError::Name(name.clone()));
        }
        if value.contains('\0') {
            return Err(BootInfoError::Value(name.clone()));
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
    }
    for (index, argument) in spec.args.iter().enumerate() {
        if argument.contains('\0') {
            return Err(BootInfoError::Argument(index));
        }
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::VmId;
    use weir_abi::boot::Region;

    fn spec(env: &[(&str, &str)], args: &[&str]) -> VmSpec {
        VmSpec {
            id: VmId(7),
            pool: "test".into(),
            memory: 4 << 20,
            vcpus: 1,
            net: None,
            env: env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
        }
    }

    fn composed(spec: &VmSpec) -> Result<(BootInfo, Vec<u8>), BootInfoError> {
        let plan = Plan { mappings: Vec::new(), stack: Region::default(), heap: Region::default() };
        let clock = Clock { tsc_hz: 1, tsc_base: 2, unix_nanos: 3 };
        compose(spec, &plan, clock, [9; 64])
    }

    #[test]
    fn strings_are_environment_then_arguments() {
        let (info, strings) = composed(&spec(&[("PORT", "80"), ("EMPTY", "")], &["a", ""])).unwrap();
        assert_eq!(strings, b"PORT=80\0EMPTY=\0a\0\0");
        assert_eq!((info.env_count, info.arg_count), (2, 2));
        assert_eq!((info.strings as usize, info.strings_length as usize), (size_of::<BootInfo>(), 18));
        assert_eq!((info.vm_id, info.virtio_net), (7, 0));
    }

    #[test]
    fn what_a_guest_would_misread_is_refused() {
        assert_eq!(composed(&spec(&[("", "x")], &[])).unwrap_err(), BootInfoError::Name(String::new()));
        assert_eq!(composed(&spec(&[("A=B", "x")], &[])).unwrap_err(), BootInfoError::Name("A=B".into()));
        assert_eq!(composed(&spec(&[("A", "x\0y")], &[])).unwrap_err(), BootInfoError::Value("A".into()));
        assert_eq!(composed(&spec(&[], &["ok", "\0"])).unwrap_err(), BootInfoError::Argument(1));
    }

    #[test]
    fn the_page_may_be_full_but_not_overfull() {
        let available = usize::try_from(layout::BOOT_INFO_SIZE).unwrap() - size_of::<BootInfo>();
        let full = "x".repeat(available - 1);
        assert_eq!(composed(&spec(&[], &[&full])).unwrap().1.len(), available);
        let over = "x".repeat(available);
        assert!(matches!(composed(&spec(&[], &[&over])), Err(BootInfoError::TooLong { .. })));
    }
}
