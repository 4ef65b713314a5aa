//! A transport's state on its way into a snapshot and back.
//!
//! A snapshot's state comes from the process of a VM, which its guest may have taken over: it is as hostile as what a
//! guest writes to registers. So restoring sets up every queue by the very check of QueueReady, lets the status only
//! be what steps in order lead to, and the features only what this device offers. A restored device can do no more
//! than one that a driver has set up.
//!
//! `virtio_queue::QueueState` is not used: turned back into a queue it is checked for alignment, but not for where its
//! rings are, and it brings its own maximum size along.
//!
//! Of the device itself there is nothing to keep. Between two calls of `service` a device holds no chain and no frame;
//! its configuration belongs to the new VM's link, its counters and token buckets to the new VM. A reset or [`Transport::rewind`] fills no bucket.

use std::io;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_mmio as register;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::Transport;
use crate::virtio::queue::QueueSetup;
use crate::virtio::status::Status;
use crate::virtio::{DeviceError, DmaMemory, Violation, VirtioDevice};

/// The interrupt reasons that there are.
const INTERRUPTS: u32 = register::VIRTIO_MMIO_INT_VRING | register::VIRTIO_MMIO_INT_CONFIG;

/// What a driver has made of a [`Transport`], between two calls of [`Transport::service`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<QueueState>,
}

/// One queue: its registers, and how it was when it became ready, for those may have been written to since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct QueueState {
    registers: QueueSetup,
    ready: Option<ReadyQueue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ReadyQueue {
    setup: QueueSetup,
    /// Position in the available ring.
    next_available: u16,
    /// Position in the used ring.
    next_used: u16,
}

/// Why a state is none of this device.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing to register for kicks.
    #[error("create eventfd of the device")]
    Notify(#[source] io::Error),
    /// The driver had accepted what this device does not offer: mostly a snapshot from a host with another kernel.
    #[error("accepted features {accepted:#x} of offered {offered:#x}")]
    Features {
        /// The driver's features.
        accepted: u64,
        /// This device's features.
        offered: u64,
    },
    /// No order of steps leads there.
    #[error("device status {status:#x}")]
    Status {
        /// The register.
        status: u32,
    },
    /// Reasons that do not exist.
    #[error("interrupt status {status:#x}")]
    InterruptStatus {
        /// The register.
        status: u32,
    },
    /// Another kind of device.
    #[error("{found} queues instead of {expected}")]
    QueueCount {
        /// In the state.
        found: usize,
        /// Of this device.
        expected: usize,
    },
    /// A queue that was set up before features were agreed on.
    #[error("queue {queue} is ready with device status {status:#x}")]
    QueueReady {
        /// Index of the queue.
        queue: u16,
        /// The status register.
        status: u32,
    },
    /// A queue that QueueReady would have refused.
    #[error(transparent)]
    Queue(#[from] Violation),
    /// The host's side of the device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Chains that the device still holds.
    #[error("queue {queue}: {next_available} chains taken, {next_used} given back")]
    QueuePosition {
        /// Index of the queue.
        queue: u16,
        /// Position in the available ring.
        next_available: u16,
        /// Position in the used ring.
        next_used: u16,
    },
}

impl<D: VirtioDevice> Transport<D> {
    /// All that the driver has done, to be restored to another transport in front of the same memory.
    pub fn state(&self) -> TransportState {
        let queue = |(registers, queue): (&QueueSetup, &Queue)| QueueState {
            registers: *registers,
            ready: queue.ready().then(|| ReadyQueue {
                setup: QueueSetup::of(queue),
                next_available: queue.next_avail(),
                next_used: queue.next_used(),
            }),
        };
        TransportState {
            status: self.status.bits(),
            interrupt_status: self.interrupt_status,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            driver_features: self.driver_features,
            queue_select: self.queue_select,
            queues: self.setups.iter().zip(&self.queues).map(queue).collect(),
        }
    }

    /// [`Self::new`], with what a driver has already done. Guest memory is only looked at. Nothing is to be polled
    /// before the first [`Self::service`].
    ///
    /// # Errors
    /// [`RestoreError`] if a driver cannot have led this device there.
    pub fn restore(
        device: D,
        dma_floor: u64,
        state: &TransportState,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, RestoreError> {
        let mut transport = Self::new(device, dma_floor).map_err(RestoreError::Notify)?;
        transport.rewind(state, memory)?;
        Ok(transport)
    }

    /// Takes this very transport back to `state`: the eventfd stays registered, and the device keeps its counters. What the
    /// host's side had for the guest until now is thrown away.
    ///
    /// # Errors
    /// [`RestoreError`] if a driver cannot have led this device there; then it is as after a reset.
    pub fn rewind(&mut self, state: &TransportState, memory: &GuestMemoryMmap) -> Result<(), RestoreError> {
        self.device.discard();
        self.forget();
        let adopted = self.adopt(state, memory);
        if adopted.is_err() {
            self.forget();
        }
        if !self.status.live() {
            self.device.reset()?;
        }
        adopted
    }

    fn adopt(&mut self, state: &TransportState, memory: &GuestMemoryMmap) -> Result<(), RestoreError> {
        self.driver_features = state.driver_features;
        self.status = self.reached(state.status)?;
        let status = state.interrupt_status;
        if status & !INTERRUPTS != 0 {
            return Err(RestoreError::InterruptStatus { status });
        }
        self.interrupt_status = status;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.queue_select = state.queue_select;
        let (found, expected) = (state.queues.len(), self.queues.len());
        if found != expected {
            return Err(RestoreError::QueueCount { found, expected });
        }
        for (index, state) in (0..).zip(&state.queues) {
            self.setups[usize::from(index)] = state.registers;
            if let Some(ready) = &state.ready {
                self.adopt_queue(index, ready, DmaMemory::new(memory, self.dma_floor))?;
            }
        }
        if self.status.live() {
            self.device.activate(self.driver_features)?;
        }
        Ok(())
    }

    fn reached(&self, status: u32) -> Result<Status, RestoreError> {
        let acceptable = self.acceptable();
        if Status::agreed(status) && !acceptable {
            let (accepted, offered) = (self.driver_features, self.offered());
            return Err(RestoreError::Features { accepted, offered });
        }
        Status::reached(status, acceptable).ok_or(RestoreError::Status { status })
    }

    fn adopt_queue(
        &mut self,
        index: u16,
        state: &ReadyQueue,
        memory: DmaMemory<'_>,
    ) -> Result<(), RestoreError> {
        let status = self.status.bits();
        if !Status::agreed(status) {
            return Err(RestoreError::QueueReady { queue: index, status });
        }
        let (next_available, next_used) = (state.next_available, state.next_used);
        if next_available != next_used {
            return Err(RestoreError::QueuePosition { queue: index, next_available, next_used });
        }
        let queue = &mut self.queues[usize::from(index)];
        state.setup.apply(queue, index, memory)?;
        queue.set_next_avail(next_available);
        queue.set_next_used(next_used);
        Ok(())
    }
}
