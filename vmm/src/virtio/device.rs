//! What a virtio device is to the transport, and how it can fail.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use virtio_queue::Queue;

use super::DmaMemory;

/// A device behind a [`super::Transport`].
pub trait VirtioDevice {
    /// Device type (virtio 1.2, section 5).
    fn device_id(&self) -> u32;

    /// Feature bits of the device itself; the transport adds `VIRTIO_F_VERSION_1`.
    fn features(&self) -> u64;

    /// Largest size of each queue, in descriptors: powers of two. Its length is the number of queues.
    fn queue_sizes(&self) -> &'static [u16];

    /// Device-specific configuration; everything behind its end reads as zero.
    fn config(&self) -> &[u8];

    /// Whether `features`, all of them offered, go together.
    fn accepts(&self, features: u64) -> bool;

    /// The driver set DRIVER_OK after accepting `features`. What belongs to a former driver is to be forgotten.
    ///
    /// # Errors
    /// If the host's side failed.
    fn activate(&mut self, features: u64) -> Result<(), DeviceError>;

    /// The driver reset the device: forget all that belongs to the former driver.
    ///
    /// # Errors
    /// If the host's side failed.
    fn reset(&mut self) -> Result<(), DeviceError>;

    /// Throws away what waits on the host's side for the former driver: none of it may reach the next one's memory.
    fn discard(&mut self);

    /// Does a bounded amount of the work that the rings ask for. Queues that are not ready are to be left alone.
    ///
    /// # Errors
    /// [`DeviceError::Violation`] if the guest broke the ring protocol, any other if the host's side failed.
    fn service(
        &mut self,
        queues: &mut [Queue],
        memory: DmaMemory<'_>,
        now: Instant,
    ) -> Result<Progress, DeviceError>;

    /// When the device could go on with what a limit keeps it from, as of the last [`Self::service`]; `None` if nothing
    /// does.
    fn deadline(&self) -> Option<Instant>;

    /// To be polled for reading while the guest sleeps; `None` while the guest has no buffer to receive into, or a limit
    /// keeps it from receiving.
    fn readable_fd(&self) -> Option<BorrowedFd<'_>>;

    /// To be polled for writing while the guest sleeps; `Some` only while something waits to be sent.
    fn writable_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// What one call of [`super::Transport::service`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Frames received, each in one buffer or several.
    pub rx_delivered: u32,
    /// Buffers returned to the guest after their content was sent or dropped.
    pub tx_completed: u32,
    /// The guest has something to look at and must not sleep: it received something, or a sent buffer came back on a
    /// queue whose driver did not set `VIRTQ_AVAIL_F_NO_INTERRUPT`.
    pub wake: bool,
    /// The bound on the work of one call was reached: call again before sleeping (and look for commands in between: a
    /// flood from the host's side can keep this true).
    pub more: bool,
}

/// Why a device cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The guest's fault.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The host's fault: the TAP is broken.
    #[error("receive a frame from the tap")]
    Receive(#[source] io::Error),
    /// The host's fault: the TAP does not do what it said it would.
    #[error("set the offloads of the tap")]
    Offloads(#[source] io::Error),
}

/// How a guest broke the ring protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// QueueReady with a size that is zero, no power of two, or above QueueNumMax.
    #[error("queue {queue}: size {size}")]
    QueueSize {
        /// Index of the queue.
        queue: u16,
        /// What the driver wrote.
        size: u32,
    },
    /// QueueReady with a ring that is misaligned or not in memory that the guest may use.
    #[error("queue {queue}: {part} at {address:#x} is misaligned or outside of memory")]
    QueueAddress {
        /// Index of the queue.
        queue: u16,
        /// Which of the three.
        part: &'static str,
        /// What the driver wrote.
        address: u64,
    },
    /// The available index is further ahead than the queue is long.
    #[error("queue {queue}: available index jumps by more than the queue's size")]
    AvailableIndex {
        /// Index of the queue.
        queue: u16,
    },
    /// A descriptor index that the table does not have.
    #[error("queue {queue}: no descriptor {index}")]
    DescriptorIndex {
        /// Index of the queue.
        queue: u16,
        /// The index.
        index: u16,
    },
    /// A chain with more descriptors than the table has: it must contain a loop.
    #[error("queue {queue}: descriptor chain from {head} is a loop")]
    DescriptorLoop {
        /// Index of the queue.
        queue: u16,
        /// Where it begins.
        head: u16,
    },
    /// An indirect descriptor, which was not offered.
    #[error("queue {queue}: indirect descriptor {index}")]
    IndirectDescriptor {
        /// Index of the queue.
        queue: u16,
        /// The descriptor.
        index: u16,
    },
    /// A buffer of the wrong direction, or a readable one behind a writable one.
    #[error("queue {queue}: chain from {head} has a buffer of the wrong direction")]
    Direction {
        /// Index of the queue.
        queue: u16,
        /// Where the chain begins.
        head: u16,
    },
    /// A buffer that is not in memory that the guest may use.
    #[error("queue {queue}: buffer of {length} bytes at {address:#x} is outside of memory")]
    Buffer {
        /// Index of the queue.
        queue: u16,
        /// Where it begins.
        address: u64,
        /// Its length, bytes.
        length: u32,
    },
    /// A chain too short for what every chain of this queue holds.
    #[error("queue {queue}: chain from {head} has {length} bytes, needs {needed}")]
    ChainLength {
        /// Index of the queue.
        queue: u16,
        /// Where the chain begins.
        head: u16,
        /// Its length, bytes.
        length: usize,
        /// The least that it must have.
        needed: usize,
    },
    /// The rings of a live queue cannot be accessed any more.
    #[error("queue {queue}: rings cannot be accessed")]
    Ring {
        /// Index of the queue.
        queue: u16,
    },
}
