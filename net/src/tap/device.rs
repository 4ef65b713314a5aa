//! One TAP device: how it is made, addressed, emptied.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use parking_lot::Mutex;

use super::TapError;
use crate::address::Link;
use crate::doctor::TUN;
use crate::route::{Index, Route};
use crate::sys;

/// Most frames that can be waiting: the kernel's default transmit queue of a TAP (1000), twice. More means that
/// somebody is still sending.
const DRAIN_MAX: u32 = 2000;

/// A persistent TAP that is up. Closing it leaves the device to the namespace's end, unless [`Self::destroy`] was
/// called.
#[derive(Debug)]
pub(super) struct Device {
    name: String,
    index: Index,
    fd: OwnedFd,
}

impl Device {
    /// Makes the TAP `name` for packets up to `mtu` bytes and gives it `link`. On an error nothing remains of it.
    pub(super) fn create(
        name: String,
        mtu: u16,
        link: &Link,
        route: &Mutex<Route>,
    ) -> Result<Self, TapError> {
        let fd = open(&name)?;
        let created = sys::create_tap(fd.as_fd(), &name)
            .and_then(|()| sys::set_vnet_header(fd.as_fd()))
            .and_then(|()| sys::set_no_offloads(fd.as_fd()))
            .and_then(|()| if_nametoindex(name.as_str()).map_err(io::Error::from));
        let index = created.map_err(|source| TapError::create(&name, source))?;
        let device = Self { name, index, fd };
        {
            let mut route = route.lock();
            route
                .set_up_without_arp(index, mtu)
                .map_err(device.failed(|name| format!("set mtu {mtu} of {name} and bring it up")))?;
            device.address(link, &mut route)?;
        }
        // Last, so that a device that could not be set up goes with its descriptor.
        sys::set_persistent(device.fd(), true).map_err(|source| TapError::create(&device.name, source))?;
        Ok(device)
    }

    /// Gives it the host's end of `link`, and the guest as its only neighbour.
    pub(super) fn address(&self, link: &Link, route: &mut Route) -> Result<(), TapError> {
        route
            .set_mac(self.index, link.host_mac)
            .map_err(self.failed(|name| format!("set mac address of {name}")))?;
        route
            .add_address(self.index, link)
            .map_err(self.failed(|name| format!("add address {link} to {name}")))?;
        route
            .add_neighbour(self.index, link)
            .map_err(self.failed(|name| format!("add neighbour {} to {name}", link.guest)))
    }

    /// Takes both away. From then on nothing is sent to the guest's address.
    pub(super) fn clear(&self, link: &Link, route: &mut Route) -> Result<(), TapError> {
        // In this order: with its last address a device loses its neighbours too.
        route
            .remove_neighbour(self.index, link)
            .map_err(self.failed(|name| format!("remove neighbour {} from {name}", link.guest)))?;
        route
            .remove_address(self.index, link)
            .map_err(self.failed(|name| format!("remove address {link} from {name}")))
    }

    /// Undoes what a VM's process has done to the device and its descriptor, or may have: offloads belong to the
    /// device, flags to the open file, and both were shared with it. Without this the next VM could get frames that it
    /// does not understand, and a process that broke out of its VM could have weir, and the next VM, wait for a frame
    /// for ever.
    pub(super) fn reset(&self) -> Result<(), TapError> {
        fcntl(&self.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|errno| self.failed(|name| format!("make {name} non-blocking"))(errno.into()))?;
        sys::set_no_offloads(self.fd())
            .map_err(self.failed(|name| format!("switch the offloads of {name} off")))
    }

    /// Throws away the frames that wait for the VM.
    pub(super) fn drain(&self) -> Result<(), TapError> {
        // The kernel cuts a longer frame and takes it off the queue all the same.
        let mut frame = [0; 64];
        let mut read = 0;
        let source = loop {
            match nix::unistd::read(&self.fd, &mut frame) {
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(errno) => break errno.into(),
                Ok(_) if read == DRAIN_MAX => break io::Error::from(io::ErrorKind::ResourceBusy),
                Ok(_) => read += 1,
            }
        };
        Err(TapError::Drain { name: self.name.clone(), source })
    }

    /// Lets the device end with its last descriptor.
    pub(super) fn destroy(&self) {
        // It cannot fail on a descriptor that is a TAP's. If it did, the device would stay until the namespace's
        // end, without a reader.
        let _ = sys::set_persistent(self.fd(), false);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes an error of what the kernel answered to `action`.
    fn failed(&self, action: impl FnOnce(&str) -> String) -> impl FnOnce(io::Error) -> TapError {
        move |source| TapError::Configure { action: action(&self.name), source }
    }
}

/// A descriptor of the TUN driver, not a device yet.
fn open(name: &str) -> Result<OwnedFd, TapError> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN);
    file.map(OwnedFd::from).map_err(|source| TapError::open(name, source))
}
