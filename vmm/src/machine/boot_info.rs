//! Composing the boot-info page (see [`weir_abi::boot`]).

use std::mem::size_of;
use std::time::{SystemTime, UNIX_EPOCH};

use kvm_ioctls::VcpuFd;
use rustix::rand::{GetRandomFlags, getrandom};
use weir_abi::{BootInfo, layout};

use super::error::BuildError;
use super::plan::Plan;
use super::vcpu::{self, VcpuError};
use crate::spec::{NetSpec, VmSpec};

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
    let info = BootInfo {
        vcpus: spec.vcpus,
        generation: 1,
        vm_id: spec.id.0,
        heap: plan.heap,
        stack: plan.stack,
        env_count: count(spec.env.len()),
        arg_count: count(spec.args.len()),
        strings: count(offset),
        strings_length: count(strings.len()),
        ..BootInfo::new()
    };
    Ok((place(info, spec.net.as_ref(), clock, entropy), strings))
}

/// `info` with what belongs to one incarnation of a VM: its place in the network and in time, and its secrets.
pub(crate) fn place(info: BootInfo, net: Option<&NetSpec>, clock: Clock, entropy: [u8; 64]) -> BootInfo {
    let mut info = BootInfo {
        tsc_hz: clock.tsc_hz,
        tsc_base: clock.tsc_base,
        unix_nanos: clock.unix_nanos,
        entropy,
        ..info
    };
    if let Some(net) = net {
        info.virtio_net = layout::VIRTIO_NET;
        info.mac = net.mac;
        info.gateway_mac = net.gateway_mac;
        info.address = net.address.octets();
        info.gateway = net.gateway.octets();
        info.prefix = net.prefix;
        info.mtu = net.mtu;
    }
    info
}

/// The clock of a VM now.
pub(crate) fn clock(tsc_hz: u64, vcpu: &VcpuFd) -> Result<Clock, VcpuError> {
    let tsc_base = vcpu::read_tsc(vcpu)?;
    // Before 1970 or after 2554 there is no wall clock to speak of.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    Ok(Clock { tsc_hz, tsc_base, unix_nanos })
}

/// A seed that no other VM gets.
pub(crate) fn entropy() -> Result<[u8; 64], BuildError> {
    let mut entropy = [0; 64];
    getrandom(&mut entropy, GetRandomFlags::empty()).map_err(|error| BuildError::Random(error.into()))?;
    Ok(entropy)
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
            log_lines: 100,
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
