//! The network: virtqueues, a link without ARP, smoltcp, TCP for applications.
//!
//! ```text
//! rings (virtio-net) <-> ethernet (frames, SYNs seen first) <-> stack (smoltcp) <-> sockets <-> tcp (async)
//! ```

mod block;
pub(crate) mod ethernet;
pub(crate) mod mmio;
pub(crate) mod rings;
pub(crate) mod sockets;
pub(crate) mod stack;
mod syn;
mod tcp;

pub use tcp::{ConnectionLost, TcpListener, TcpStream};

#[cfg(test)]
mod tests;
