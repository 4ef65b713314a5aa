//! TAP devices for VMs: made on demand, recycled, never destroyed one by one.
//!
//! ```text
//!             acquire                    drop of the TapLink                      acquire
//!   (none) ───────────> leased ──────────────────────────────────────────> idle ───────────> leased
//!            made with           old address and offloads taken away,             drained
//!            a new link          frames thrown away, next address given           once more
//! ```
//!
//! Why recycle: to destroy a TAP takes 20 ms and happens serially, also when a process that holds many ends. So
//! devices are made persistent; all of them go at once with the private namespace (see [`crate::namespace`]),
//! however weir ends. Why a new address each time: weir's kernel may for minutes resend what it had for the old
//! VM. With the old address gone nothing leads there, and the next VM on this TAP, perhaps of another tenant, sees
//! none of it. This work is done when a VM is gone, so that acquiring an idle TAP costs one read.
//!
//! Give `network` many more links than there are VMs at once: an address is taken again only after all others
//! were.

mod device;
mod error;

use std::collections::VecDeque;
use std::error::Error;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ipnetwork::Ipv4Network;
use parking_lot::Mutex;

use self::device::Device;
pub use self::error::TapError;
use crate::address::{AddressPool, Link};
use crate::namespace::PrivateNamespace;
use crate::route::Route;

/// Makes and recycles TAP devices in the private namespace. All its users must be threads in that namespace.
#[derive(Debug)]
pub struct TapPool {
    shared: Arc<Shared>,
}

/// The two locks are never held together, and `state` never during a system call: who acquires an idle TAP does
/// not wait for the recycling of others.
#[derive(Debug)]
struct Shared {
    /// Largest IP packet, bytes.
    mtu: u16,
    state: Mutex<State>,
    route: Mutex<Route>,
}

#[derive(Debug)]
struct State {
    addresses: AddressPool,
    /// How many devices were ever made: the next one's number.
    made: u32,
    /// Devices without a VM, with the link each will have next; longest idle first.
    idle: VecDeque<(Arc<Device>, Link)>,
}

impl TapPool {
    /// An empty pool of TAPs with links out of `network` and packets of up to `mtu` bytes.
    ///
    /// # Errors
    /// [`TapError::Network`] for a network that no host can have addresses of, [`TapError::Netlink`].
    pub fn new(_: &PrivateNamespace, network: Ipv4Network, mtu: u16) -> Result<Self, TapError> {
        let addresses = AddressPool::new(network).map_err(TapError::Network)?;
        let route = Route::open().map_err(TapError::Netlink)?;
        let state = State { addresses, made: 0, idle: VecDeque::new() };
        Ok(Self { shared: Arc::new(Shared { mtu, state: Mutex::new(state), route: Mutex::new(route) }) })
    }

    /// A TAP that is up and empty, with its link: an idle one if there is one, else a new one.
    ///
    /// # Errors
    /// [`TapError`]; the pool is as it was and may be asked again.
    pub fn acquire(&self) -> Result<TapLink, TapError> {
        if let Some(idle) = self.try_idle()? {
            return Ok(idle);
        }
        let (device, link) = self.shared.make()?;
        Ok(TapLink { shared: Arc::clone(&self.shared), device, link })
    }

    /// An idle TAP, drained, if there is one: a few microseconds, where a new one takes most of a millisecond.
    ///
    /// # Errors
    /// As for [`Self::acquire`].
    pub fn try_idle(&self) -> Result<Option<TapLink>, TapError> {
        let idle = self.shared.state.lock().idle.pop_front();
        let Some((device, link)) = idle else { return Ok(None) };
        match device.drain() {
            Ok(()) => Ok(Some(TapLink { shared: Arc::clone(&self.shared), device, link })),
            Err(error) => {
                self.shared.discard(device, link, &error);
                Err(error)
            }
        }
    }
}

impl Shared {
    /// A new device with a link.
    fn make(&self) -> Result<(Arc<Device>, Link), TapError> {
        let (name, link) = {
            let mut state = self.state.lock();
            let name = format!("weir{}", state.made);
            let link = match state.addresses.allocate() {
                Ok(link) => link,
                Err(source) => return Err(TapError::Address { name, source }),
            };
            state.made = state.made.wrapping_add(1);
            (name, link)
        };
        match Device::create(name, self.mtu, &link, &self.route) {
            Ok(device) => Ok((Arc::new(device), link)),
            Err(error) => {
                self.state.lock().addresses.release(link);
                Err(error)
            }
        }
    }

    /// Gets `device`, whose VM is gone, ready for another one. A device with which that fails is destroyed: the
    /// slow way, but nothing of the old VM remains.
    fn recycle(&self, device: Arc<Device>, old: Link) {
        let cleared = device
            .reset()
            .and_then(|()| device.clear(&old, &mut self.route.lock()))
            .and_then(|()| device.drain());
        if let Err(error) = cleared {
            return self.discard(device, old, &error);
        }
        let next = {
            let mut state = self.state.lock();
            state.addresses.release(old);
            state.addresses.allocate().expect("under one lock a release makes room for an allocation")
        };
        if let Err(error) = device.address(&next, &mut self.route.lock()) {
            return self.discard(device, next, &error);
        }
        self.state.lock().idle.push_back((device, next));
    }

    /// Destroys `device`, and only then takes back its link: no two devices may have it.
    fn discard(&self, device: Arc<Device>, link: Link, error: &TapError) {
        let cause = error.source().map(ToString::to_string);
        tracing::warn!(tap = device.name(), %error, cause, "tap cannot be used again and is destroyed");
        device.destroy();
        drop(device);
        self.state.lock().addresses.release(link);
    }
}

/// A TAP and its link, for one VM. Dropping it gives both back to the pool.
///
/// Drop it only when the VM's process is known to be gone: whoever still holds the descriptor could read the next
/// VM's frames. Dropping takes a fraction of a millisecond, so not while a request waits for it.
#[derive(Debug)]
pub struct TapLink {
    shared: Arc<Shared>,
    device: Arc<Device>,
    link: Link,
}

impl TapLink {
    /// The addresses of both ends.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The VM's end, non-blocking and close-on-exec. Each read and write is one Ethernet frame behind a 12-byte
    /// `struct virtio_net_hdr_v1`, whose last two bytes (`num_buffers`) the kernel neither writes nor reads.
    ///
    /// Reads: no offloads, until the holder switches some on by `TUNSETOFFLOAD`, which takes no privilege. Until then
    /// what is read has its checksums and fits the MTU. The next VM gets the device without offloads again.
    /// Writes: the kernel acts on the header whatever was switched on, so it must not be one that a guest wrote.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.device.fd()
    }

    /// The device's name in the private namespace, such as `weir0`.
    pub fn name(&self) -> &str {
        self.device.name()
    }
}

impl Drop for TapLink {
    fn drop(&mut self) {
        self.shared.recycle(Arc::clone(&self.device), self.link);
    }
}
