//! /dev/kvm: opening it, what it must be able to do, and what to tell an operator whose machine cannot.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

use crate::doctor::{Finding, State};
use crate::sys;

/// Where KVM is.
pub const PATH: &str = "/dev/kvm";
/// The only version of the API there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Without these no VM can run, or none could be stopped.
const REQUIRED: [(Cap, &str); 4] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];
/// These only make it faster or more exact.
const OPTIONAL: [(Cap, &str); 3] = [
    (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::GetTscKhz, "KVM_CAP_GET_TSC_KHZ"),
];

/// Why there is no KVM.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No such device.
    #[error(
        "{PATH} does not exist: load the kvm module (modprobe kvm_intel or kvm_amd), switch virtualisation on in \
         the firmware, or give this container or VM the device"
    )]
    Missing,
    /// Not ours to use.
    #[error(
        "{PATH} may not be opened: add this user to the group that owns it (usually: usermod -aG kvm USER)"
    )]
    Forbidden,
    /// Anything else.
    #[error("open {PATH}")]
    Open(#[source] io::Error),
    /// It opens but is no KVM that we know.
    #[error("{PATH} has API version {0}, not {API_VERSION}")]
    Version(i32),
    /// It does not say what guests can have.
    #[error("get supported cpuid of {PATH}")]
    Cpuid(#[source] io::Error),
    /// It is a KVM that cannot do what is needed.
    #[error("{PATH} lacks {0}: a newer kernel is needed")]
    Lacks(&'static str),
}

/// Opens /dev/kvm, checks that it can run VMs, and learns what all of them have in common.
///
/// # Errors
/// See [`KvmError`]; each names the device and, where there is one, the fix.
pub fn open() -> Result<OwnedFd, KvmError> {
    let file = OpenOptions::new().read(true).write(true).open(PATH).map_err(classify)?;
    let fd = OwnedFd::from(file);
    let kvm = sys::kvm(fd.try_clone().map_err(KvmError::Open)?);
    check(&kvm)?;
    supported_cpuid(&kvm).map_err(|error| KvmError::Cpuid(error.into()))?;
    Ok(fd)
}

/// The CPU features that a guest can have here. The same for every VM, and slow to find out, so a launcher that has
/// opened /dev/kvm hands them on to its children by the fork.
pub(crate) fn supported_cpuid(kvm: &Kvm) -> Result<&'static CpuId, kvm_ioctls::Error> {
    static SUPPORTED: OnceLock<CpuId> = OnceLock::new();
    if let Some(known) = SUPPORTED.get() {
        return Ok(known);
    }
    let asked = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    Ok(SUPPORTED.get_or_init(|| asked))
}

fn classify(error: io::Error) -> KvmError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => KvmError::Missing,
        Some(libc::EACCES | libc::EPERM) => KvmError::Forbidden,
        _ => KvmError::Open(error),
    }
}

fn check(kvm: &Kvm) -> Result<(), KvmError> {
    match kvm.get_api_version() {
        API_VERSION => {}
        other => return Err(KvmError::Version(other)),
    }
    match REQUIRED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::Lacks(name)),
        None => Ok(()),
    }
}

/// Looks at KVM for `weir doctor`.
pub fn doctor() -> Vec<Finding> {
    let finding = |name, state, detail| Finding { name, state, detail, fix: String::new() };
    let kvm = match open() {
        Ok(fd) => sys::kvm(fd),
        Err(error) => return vec![finding(PATH, State::Broken, crate::message(&error))],
    };
    let detail = format!("API version {API_VERSION}, {} capabilities as needed", REQUIRED.len());
    let mut findings = vec![finding(PATH, State::Good, detail)];
    findings.extend(OPTIONAL.iter().map(|&(cap, name)| {
        if kvm.check_extension(cap) {
            finding(name, State::Good, "present".to_owned())
        } else {
            finding(name, State::Degraded, "absent: a newer kernel would be faster".to_owned())
        }
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_device_and_the_fix() {
        let missing = classify(io::Error::from_raw_os_error(libc::ENOENT)).to_string();
        assert!(missing.contains("/dev/kvm") && missing.contains("modprobe"), "{missing}");
        let forbidden = classify(io::Error::from_raw_os_error(libc::EACCES)).to_string();
        assert!(forbidden.contains("/dev/kvm") && forbidden.contains("usermod"), "{forbidden}");
        let other = crate::message(&classify(io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(other.starts_with("open /dev/kvm: "), "{other}");
    }
}
