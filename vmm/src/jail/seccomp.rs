//! The system calls that a running VM needs. Any other ends its process at once.
//!
//! The filter is compiled once by the launcher; a child only installs it. Whatever can be limited by its arguments
//! is: `ioctl` to [`super::ioctls`], on a TAP to the offloads that a guest may have, `fcntl` to the set-up of the
//! control socket, memory to what is not executable, `prlimit64` to the process's own address space.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{JailError, ioctls, layer};
use crate::virtio::OFFLOADS;

/// Allowed whatever their arguments.
const ALWAYS: &[c_long] = &[
    // Packets, control socket, ioeventfd.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_close,
    // Memory; mmap and mprotect are limited.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Size of the image; with an empty path it takes a descriptor, and there are no other paths.
    libc::SYS_statx,
    // Time, where the vDSO has no clock, and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    // The signal that interrupts a running vCPU, and abort().
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // The end.
    libc::SYS_exit_group,
];

/// The control socket: non-blocking, and a signal to this thread for every message. The image: is it sealed? The
/// standard library: is a descriptor that it closes open? Besides these F_SETFL, as long as it leaves O_NONBLOCK on:
/// the TAP's flags are weir's and the next VM's too, and neither must ever wait in a read.
const FCNTLS: &[i32] = &[libc::F_GETFD, libc::F_GETFL, F_SETSIG, F_SETOWN_EX, libc::F_GET_SEALS];
/// include/uapi/asm-generic/fcntl.h
const F_SETSIG: i32 = 10;
/// include/uapi/asm-generic/fcntl.h
const F_SETOWN_EX: i32 = 15;

/// include/uapi/asm-generic/resource.h
const RLIMIT_AS: i32 = 9;

/// Compiles the allow-list.
///
/// # Errors
/// A bug in the list.
pub fn compile() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        ALWAYS.iter().map(|&call| (call, Vec::new())).collect();
    let ioctls = ioctls::ALLOWED.iter().map(|&request| argument(1, SeccompCmpOp::Eq, u64::from(request)));
    let mut ioctls = ioctls.collect::<Result<Vec<_>, _>>()?;
    ioctls.push(SeccompRule::new(vec![
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, ioctls::TUN_SET_OFFLOAD.into())?,
        SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(!OFFLOADS), 0)?,
    ])?);
    rules.insert(libc::SYS_ioctl, ioctls);
    let mut fcntls = FCNTLS
        .iter()
        .map(|&command| SeccompRule::new(vec![equals(1, command)?]))
        .collect::<Result<Vec<_>, BackendError>>()?;
    fcntls.push(SeccompRule::new(vec![equals(1, libc::F_SETFL)?, has(2, libc::O_NONBLOCK)?])?);
    rules.insert(libc::SYS_fcntl, fcntls);
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![argument(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    // This process's own address space, which cannot be unlimited any more.
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![equals(0, 0)?, equals(1, RLIMIT_AS)?])?]);
    // abort() raises this at itself; it is no way to reach anything else, for the process is alone in its namespace.
    rules.insert(
        libc::SYS_tgkill,
        vec![argument(2, SeccompCmpOp::Eq, u64::from(libc::SIGABRT.unsigned_abs()))?],
    );
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?
        .try_into()
}

/// A rule of one condition on a 32-bit argument.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}

/// The argument is `value`.
fn equals(index: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.unsigned_abs().into())
}

/// The argument has all bits of `flags`.
fn has(index: u8, flags: i32) -> Result<SeccompCondition, BackendError> {
    let flags = u64::from(flags.unsigned_abs());
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flags), flags)
}

/// Installs `filter`, for good; sets no_new_privs too.
pub(super) fn apply(filter: &BpfProgram) -> Result<(), JailError> {
    seccompiler::apply_filter(filter)
        .map_err(|error| layer("install the system call filter")(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_allow_list_compiles_to_what_the_kernel_takes() {
        // linux/filter.h: BPF_MAXINSNS
        assert!(super::compile().unwrap().len() <= 4096);
    }
}
