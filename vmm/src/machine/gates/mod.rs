//! Code that the VMM puts into every guest: the `syscall` stub and the exception gates.
//!
//! **Exceptions.** The gates follow [`weir_abi::trap`]: they refuse a second fault, write the facts into the
//! [`weir_abi::TrapArea`] and continue at the guest's handler in ring 3 on the fault stack. All but #PF arrive in ring 3
//! directly; #PF must arrive in ring 0, the only place that can read CR2.
//!
//! **`syscall`.** It arrives in ring 0 on hardware and may stay in ring 3 on a software KVM. The stub hides the
//! difference. The guest's handler starts in ring 3 with
//! - the return address in `TrapArea::syscall_rip`,
//! - the caller's RFLAGS in `TrapArea::syscall_rflags`, and TF, DF, NT, AC clear in its own,
//! - RCX and R11 lost (as `syscall` always does), every other register, RSP included, the caller's.
//!
//! It returns by restoring the flags and `jmp *TrapArea::syscall_rip`.
//!
//! **Addresses.** The gates reach the trap area by its absolute address, not through `%gs`: a guest may load any `%gs`
//! base it likes, and a stub in ring 0 that stores through it would write page tables on the guest's behalf, or
//! fault. So the stub never faults whatever ring 3 did before.
//!
//! Instructions are the plainest there are (mov, push, test, jmp, iretq, sysretq), because a software KVM emulates ring
//! 0 with gaps.

mod sys;

use weir_abi::layout;

use super::system;

/// Distance between the entry points of two vectors, bytes.
const VECTOR_STRIDE: u64 = 16;

/// The code, and where its entry points will be in the guest.
pub(crate) struct Gates {
    /// Belongs at [`layout::GATE_CODE`], reachable from ring 3.
    pub(crate) user: &'static [u8],
    /// Belongs at [`system::GATES`], ring 0 only.
    pub(crate) kernel: &'static [u8],
    entries: sys::Entries,
}

impl Gates {
    /// The gates as assembled into this program.
    pub(crate) fn load() -> Self {
        let (user, kernel, entries) = sys::code();
        Self { user, kernel, entries }
    }

    /// Where `syscall` goes.
    pub(crate) fn syscall(&self) -> u64 {
        layout::GATE_CODE + self.entries.syscall
    }

    /// Where exception `vector` (0 to 31) enters ring 3.
    pub(crate) fn vector(&self, vector: usize) -> u64 {
        layout::GATE_CODE + self.entries.vectors + vector as u64 * VECTOR_STRIDE
    }

    /// Where a page fault enters ring 0.
    pub(crate) fn page_fault(&self) -> u64 {
        system::GATES + self.entries.page_fault
    }

    /// Where a double fault enters ring 0.
    pub(crate) fn double_fault(&self) -> u64 {
        system::GATES + self.entries.double_fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PAGE;

    #[test]
    fn gates_fit_their_pages_and_entries_lie_inside() {
        let gates = Gates::load();
        assert!(gates.user.len() as u64 <= PAGE && gates.kernel.len() as u64 <= PAGE);
        let user = layout::GATE_CODE..layout::GATE_CODE + gates.user.len() as u64;
        assert!(
            user.contains(&gates.syscall())
                && user.contains(&gates.vector(0))
                && user.contains(&gates.vector(31))
        );
        let kernel = system::GATES..system::GATES + gates.kernel.len() as u64;
        assert!(kernel.contains(&gates.page_fault()) && kernel.contains(&gates.double_fault()));
    }

    #[test]
    fn every_vector_pushes_its_own_number_at_its_own_place() {
        let gates = Gates::load();
        for vector in 0..32u8 {
            let at = usize::try_from(gates.vector(vector.into()) - layout::GATE_CODE).unwrap();
            let code = &gates.user[at..at + 16];
            // push imm8 is 6a ib; vectors without an error code push a zero first.
            let has_error = matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30);
            let expected: &[u8] = if has_error { &[0x6a, vector] } else { &[0x6a, 0, 0x6a, vector] };
            assert!(code.starts_with(expected), "vector {vector}: {code:02x?}");
        }
    }
}
