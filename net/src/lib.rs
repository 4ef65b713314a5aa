//! weir's private network: a namespace of its own, and point-to-point TAP links in it.
//!
//! ```text
//!   host's namespace          weir's private namespace (ip_forward 0, rp_filter 1, no IPv6, no route out)
//!  ┌───────────────────┐     ┌─────────────────────────────────────────────────────────────────────────┐
//!  │ listeners, bound  │     │  weir0  10.88.0.2/31 ═══ 10.88.0.3  VM                                    │
//!  │ before weir enters│     │  weir1  10.88.0.4/31 ═══ 10.88.0.5  VM        connections to VMs only     │
//!  └───────────────────┘     └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! * [`namespace`] gets weir in there, as root or through a user namespace, and says what a VM can reach and why
//!   no more than that.
//! * [`address`] gives each VM a /31 link of its own and the MAC addresses that go with it.
//! * [`tap`] makes TAP devices for those links and recycles them.
//! * [`host`] keeps a thread outside, for connections that are to leave.
//! * [`doctor`] says beforehand what a machine lacks for all this.
//!
//! Everything is synchronous and quick (a fraction of a millisecond), and nothing here runs another program. The
//! crate knows nothing about VMs: a TAP leaves it as a file descriptor.
#![deny(unsafe_code)]

pub mod address;
pub mod doctor;
pub mod host;
pub mod namespace;
mod process;
mod route;
mod sys;
pub mod tap;
