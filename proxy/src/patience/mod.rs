//! How long weir waits for clients within a request, so that nobody holds a VM by being slow.
//!
//! | what | who sees it | what happens |
//! |---|---|---|
//! | HTTP/1: a body comes too slowly | the connection, which knows when it is read from ([`BodyDeadline`]) | the read fails |
//! | HTTP/2: the same | a [`Watch`] beside the request, told of each piece | the connection to the VM is cut |
//! | the whole takes too long | who waits for a lease; then the [`Watch`]; then each write's time limit | the same |
//! | an answer is not taken | pingora, which limits each write | the write fails |
//!
//! pingora has a request's body and its answer in one task, and nothing there wakes up because of a time. Its connection
//! to the VM is weir's own, though: when that ends the request does, with whatever answer is still possible.

mod body;
mod hooks;
mod meter;
mod watch;

pub(crate) use body::BodyDeadline;
pub(crate) use meter::Meter;
pub(crate) use watch::Watch;
