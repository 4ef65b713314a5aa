//! CPU exceptions: none is expected, so each ends the VM, with a word on what happened.

use core::fmt::Write;

use weir_abi::control::{EXIT_MAX, exit};
use weir_abi::layout::TRAP_AREA;
use weir_abi::{TrapArea, trap};

use crate::control;
use crate::text::Text;

const PAGE_FAULT: u64 = 14;

/// Has the VMM's gates continue at [`fault`].
pub(crate) fn install() {
    let field = TRAP_AREA + trap::offset::FAULT_HANDLER as u64;
    // SAFETY: the ABI reserves this page for the trap area, writable for the guest.
    unsafe { core::ptr::write_volatile(field as *mut u64, fault as *const () as u64) };
}

/// Entered on the fault stack, aligned as after a call, with all other registers as the fault left them: the
/// direction flag may be set.
#[unsafe(naked)]
unsafe extern "C" fn fault() -> ! {
    core::arch::naked_asm!("cld", "jmp {report}", report = sym report)
}

extern "C" fn report() -> ! {
    // SAFETY: the VMM has just filled the area in, and writes it again only on another fault, which would end the VM.
    let area = unsafe { core::ptr::read_volatile(TRAP_AREA as *const TrapArea) };
    let mut message = Text::<EXIT_MAX>::with_code(exit::FAULTED);
    describe(&area, &mut message);
    control::exit(message.as_bytes())
}

fn describe(area: &TrapArea, message: &mut impl Write) {
    let TrapArea { vector, error, cr2, rip, rsp, .. } = area;
    let name = name(*vector);
    // Text never fails.
    let _ = match *vector {
        PAGE_FAULT => write!(
            message,
            "{name}: {} 0x{cr2:x} at rip 0x{rip:x}, rsp 0x{rsp:x}, error 0x{error:x}",
            access(*error)
        ),
        _ => write!(message, "{name} at rip 0x{rip:x}, rsp 0x{rsp:x}, vector {vector}, error 0x{error:x}"),
    };
}

/// What a page fault's error code says (Intel SDM 3, 4.7).
fn access(error: u64) -> &'static str {
    match error {
        _ if error & 1 << 4 != 0 => "execution of",
        _ if error & 1 << 1 != 0 => "write to",
        _ => "read of",
    }
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        12 => "stack fault",
        13 => "general protection fault",
        PAGE_FAULT => "page fault",
        16 => "floating-point error",
        17 => "alignment check",
        19 => "SIMD floating-point error",
        _ => "exception",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_described_with_what_a_reader_needs() {
        let mut text = String::new();
        let area =
            TrapArea { vector: 14, error: 6, cr2: 0x10, rip: 0x20_0000, rsp: 0x8000, ..TrapArea::default() };
        describe(&area, &mut text);
        assert_eq!(text, "page fault: write to 0x10 at rip 0x200000, rsp 0x8000, error 0x6");
        text.clear();
        describe(&TrapArea { vector: 13, ..area }, &mut text);
        assert_eq!(text, "general protection fault at rip 0x200000, rsp 0x8000, vector 13, error 0x6");
    }
}
