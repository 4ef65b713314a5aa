//! The memory that devices may touch on a guest's behalf.
//!
//! A guest runs in ring 3, and below its image lies what ring 3 must not write: page tables, descriptor tables, gates,
//! boot-info. Without a check it could have a device write there ("receive a frame into the page tables") and so
//! become its own ring 0. Hence a floor: a device reaches no further down than the guest's own memory.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Guest memory from a floor upwards.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory<'m> {
    memory: &'m GuestMemoryMmap,
    floor: u64,
}

impl<'m> DmaMemory<'m> {
    /// `memory` without everything below the guest-physical address `floor`.
    pub fn new(memory: &'m GuestMemoryMmap, floor: u64) -> Self {
        Self { memory, floor }
    }

    /// The whole memory, for rings that [`Self::contains`] has checked before.
    pub fn memory(&self) -> &'m GuestMemoryMmap {
        self.memory
    }

    /// Whether a device may touch all of these `length` bytes.
    pub fn contains(&self, address: u64, length: usize) -> bool {
        address >= self.floor && GuestMemoryBackend::check_range(self.memory, GuestAddress(address), length)
    }

    /// Appends these `length` bytes to `segments`; false, and an arbitrary part of them appended, if a device may not
    /// touch them all.
    pub fn append(&self, address: u64, length: u32, segments: &mut Vec<VolatileSlice<'m>>) -> bool {
        if address < self.floor && length > 0 {
            return false;
        }
        for slice in self.memory.get_slices(GuestAddress(address), length as usize) {
            match slice {
                Ok(slice) => segments.push(slice),
                Err(_) => return false,
            }
        }
        true
    }
}
