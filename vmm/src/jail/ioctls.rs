//! The ioctl requests of a VM's life, by number: the names of linux/kvm.h are macros that bindings leave out.

use std::mem::size_of;

use kvm_bindings::{
    kvm_cpuid2, kvm_fpu, kvm_ioeventfd, kvm_msrs, kvm_regs, kvm_sregs, kvm_userspace_memory_region,
    kvm_vcpu_events, kvm_xsave,
};

const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

/// asm-generic/ioctl.h with KVM's type 0xae: direction, number, and the size of the argument.
const fn kvm<T>(direction: u32, number: u32) -> u32 {
    // Ioctl arguments are structures of a few hundred bytes; the field has 14 bits.
    assert!(size_of::<T>() < 1 << 14);
    #[allow(clippy::cast_possible_truncation)]
    let size = size_of::<T>() as u32;
    direction << 30 | size << 16 | 0xae << 8 | number
}

/// linux/if_tun.h: TUNSETOFFLOAD, allowed as long as it asks for no other bits than [`crate::virtio::OFFLOADS`].
pub(super) const TUN_SET_OFFLOAD: u32 = 0x4004_54d0;

/// What [`super::seccomp`] allows whatever its argument.
pub(super) const ALLOWED: &[u32] = &[
    kvm::<()>(NONE, 0x01),                           // KVM_CREATE_VM
    kvm::<()>(NONE, 0x03),                           // KVM_CHECK_EXTENSION
    kvm::<()>(NONE, 0x04),                           // KVM_GET_VCPU_MMAP_SIZE
    kvm::<kvm_cpuid2>(READ | WRITE, 0x05),           // KVM_GET_SUPPORTED_CPUID
    kvm::<()>(NONE, 0x41),                           // KVM_CREATE_VCPU
    kvm::<kvm_userspace_memory_region>(WRITE, 0x46), // KVM_SET_USER_MEMORY_REGION
    kvm::<()>(NONE, 0x47),                           // KVM_SET_TSS_ADDR
    kvm::<kvm_ioeventfd>(WRITE, 0x79),               // KVM_IOEVENTFD
    kvm::<()>(NONE, 0x80),                           // KVM_RUN
    kvm::<kvm_regs>(READ, 0x81),                     // KVM_GET_REGS
    kvm::<kvm_regs>(WRITE, 0x82),                    // KVM_SET_REGS
    kvm::<kvm_sregs>(READ, 0x83),                    // KVM_GET_SREGS
    kvm::<kvm_sregs>(WRITE, 0x84),                   // KVM_SET_SREGS
    kvm::<kvm_msrs>(READ | WRITE, 0x88),             // KVM_GET_MSRS
    kvm::<kvm_msrs>(WRITE, 0x89),                    // KVM_SET_MSRS
    kvm::<kvm_fpu>(WRITE, 0x8d),                     // KVM_SET_FPU
    kvm::<kvm_cpuid2>(WRITE, 0x90),                  // KVM_SET_CPUID2
    kvm::<kvm_vcpu_events>(WRITE, 0xa0),             // KVM_SET_VCPU_EVENTS
    kvm::<()>(NONE, 0xa3),                           // KVM_GET_TSC_KHZ
    kvm::<kvm_xsave>(READ, 0xa4),                    // KVM_GET_XSAVE
    kvm::<kvm_xsave>(WRITE, 0xa5),                   // KVM_SET_XSAVE
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as strace(1) and the kernel's documentation give them.
    #[test]
    fn requests_have_the_numbers_of_the_kernel() {
        assert_eq!(u64::from(TUN_SET_OFFLOAD), libc::TUNSETOFFLOAD);
        assert_eq!(kvm::<()>(NONE, 0x80), 0xae80);
        assert_eq!(kvm::<kvm_userspace_memory_region>(WRITE, 0x46), 0x4020_ae46);
        assert_eq!(kvm::<kvm_regs>(READ, 0x81), 0x8090_ae81);
        assert_eq!(kvm::<kvm_sregs>(WRITE, 0x84), 0x4138_ae84);
        assert_eq!(kvm::<kvm_cpuid2>(READ | WRITE, 0x05), 0xc008_ae05);
        assert_eq!(kvm::<kvm_ioeventfd>(WRITE, 0x79), 0x4040_ae79);
    }
}
