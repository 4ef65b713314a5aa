//! The network: virtqueues, a link without ARP, smoltcp, TCP for applications.
//!
//! ```text
//! rings: receiver, transmitter <-> ethernet <-> stack (smoltcp; SYNs seen first) <-> sockets <-> tcp (async)
//!    (virtio-net)                  (frames)
//! ```

mod arena;
mod block;
pub(crate) mod ethernet;
pub(crate) mod mmio;
pub(crate) mod offload;
pub(crate) mod receiver;
pub(crate) mod rings;
pub(crate) mod sockets;
pub(crate) mod stack;
mod syn;
mod tcp;
pub(crate) mod transmitter;

pub use tcp::{ConnectionLost, TcpListener, TcpStream};

#[cfg(test)]
mod tests;
