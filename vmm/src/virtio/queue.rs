//! The registers that set a queue up, and the check when the driver says that it is ready.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::{DmaMemory, Violation};

/// Size of the descriptor table per descriptor; of the available and the used ring: fixed part, and per descriptor
/// (virtio 1.2, section 2.7). The trailing event fields count, whether in use or not.
const DESCRIPTOR: usize = 16;
const AVAILABLE: (usize, usize) = (6, 2);
const USED: (usize, usize) = (6, 8);

/// What the driver wrote to QueueNum and the queue's address registers. Unlike [`Queue`]'s own setters it keeps values
/// that make no sense, so that QueueReady can report them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueSetup {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

impl QueueSetup {
    /// The set-up before the driver wrote anything.
    pub(super) fn new(max_size: u16) -> Self {
        Self { size: max_size.into(), ..Self::default() }
    }

    /// The set-up that made `queue` live.
    pub(super) fn of(queue: &Queue) -> Self {
        Self {
            size: queue.size().into(),
            descriptors: queue.desc_table(),
            available: queue.avail_ring(),
            used: queue.used_ring(),
        }
    }

    /// Makes `queue` (number `index`) live with this set-up, from the rings' start.
    pub(super) fn apply(
        &self,
        queue: &mut Queue,
        index: u16,
        memory: DmaMemory<'_>,
    ) -> Result<(), Violation> {
        queue.reset();
        let bad_size = Violation::QueueSize { queue: index, size: self.size };
        let size = u16::try_from(self.size).map_err(|_| bad_size)?;
        queue.try_set_size(size).map_err(|_| bad_size)?;

        let length = usize::from(size);
        let check = |part, address, length, aligned: bool| {
            // An address of zero means "not set" to `Queue`.
            let usable = aligned && address != 0 && memory.contains(address, length);
            usable.then_some(()).ok_or(Violation::QueueAddress { queue: index, part, address })
        };
        let aligned = queue.try_set_desc_table_address(GuestAddress(self.descriptors)).is_ok();
        check("descriptor table", self.descriptors, DESCRIPTOR * length, aligned)?;
        let aligned = queue.try_set_avail_ring_address(GuestAddress(self.available)).is_ok();
        check("available ring", self.available, AVAILABLE.0 + AVAILABLE.1 * length, aligned)?;
        let aligned = queue.try_set_used_ring_address(GuestAddress(self.used)).is_ok();
        check("used ring", self.used, USED.0 + USED.1 * length, aligned)?;

        queue.set_ready(true);
        Ok(())
    }
}
