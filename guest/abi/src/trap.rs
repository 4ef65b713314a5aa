//! How CPU exceptions and the `syscall` instruction reach the guest's ring-3 handlers.

/// Lives at [`crate::layout::TRAP_AREA`], which is also the `%gs` base. The VMM's gates write the trap's facts
/// here and jump to the guest's handler; the guest fills in the handlers first (zero = none: a trap then ends the
/// VM as a double fault).
///
/// Delivery of an exception: the gate refuses if [`Self::in_fault`] is set (EXIT with
/// [`crate::control::EXIT_DOUBLE_FAULT`]); otherwise it sets it, fills `vector` to `ss`, and continues at
/// `fault_handler` in ring 3 with `rsp` = top of the fault stack (16-byte aligned, minus 8), all other registers
/// as they were. The handler clears `in_fault` before it resumes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TrapArea {
    /// This structure's own address.
    pub this: u64,
    /// Return address of the last `syscall`.
    pub syscall_rip: u64,
    /// Ring-3 address that a `syscall` continues at.
    pub syscall_handler: u64,
    /// Ring-3 address that an exception continues at.
    pub fault_handler: u64,
    /// Non-zero while an exception is being handled.
    pub in_fault: u64,
    /// Exception vector.
    pub vector: u64,
    /// Error code, zero for vectors that have none.
    pub error: u64,
    /// CR2 at a page fault, zero otherwise.
    pub cr2: u64,
    /// Interrupted RIP.
    pub rip: u64,
    /// Interrupted CS.
    pub cs: u64,
    /// Interrupted RFLAGS.
    pub rflags: u64,
    /// Interrupted RSP.
    pub rsp: u64,
    /// Interrupted SS.
    pub ss: u64,
    /// RFLAGS of the last `syscall`'s caller.
    pub syscall_rflags: u64,
    /// Scratch of the gates.
    pub scratch: [u64; 2],
}

/// Offsets into [`TrapArea`], for assembler.
pub mod offset {
    use super::TrapArea;
    use core::mem::offset_of;

    /// [`TrapArea::syscall_rip`]
    pub const SYSCALL_RIP: usize = offset_of!(TrapArea, syscall_rip);
    /// [`TrapArea::syscall_handler`]
    pub const SYSCALL_HANDLER: usize = offset_of!(TrapArea, syscall_handler);
    /// [`TrapArea::fault_handler`]
    pub const FAULT_HANDLER: usize = offset_of!(TrapArea, fault_handler);
    /// [`TrapArea::in_fault`]
    pub const IN_FAULT: usize = offset_of!(TrapArea, in_fault);
    /// [`TrapArea::vector`]
    pub const VECTOR: usize = offset_of!(TrapArea, vector);
    /// [`TrapArea::error`]
    pub const ERROR: usize = offset_of!(TrapArea, error);
    /// [`TrapArea::cr2`]
    pub const CR2: usize = offset_of!(TrapArea, cr2);
    /// [`TrapArea::rip`]
    pub const RIP: usize = offset_of!(TrapArea, rip);
    /// [`TrapArea::cs`]
    pub const CS: usize = offset_of!(TrapArea, cs);
    /// [`TrapArea::rflags`]
    pub const RFLAGS: usize = offset_of!(TrapArea, rflags);
    /// [`TrapArea::rsp`]
    pub const RSP: usize = offset_of!(TrapArea, rsp);
    /// [`TrapArea::ss`]
    pub const SS: usize = offset_of!(TrapArea, ss);
    /// [`TrapArea::syscall_rflags`]
    pub const SYSCALL_RFLAGS: usize = offset_of!(TrapArea, syscall_rflags);
    /// [`TrapArea::scratch`]
    pub const SCRATCH: usize = offset_of!(TrapArea, scratch);
}
