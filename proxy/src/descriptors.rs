//! How many descriptors weir may have open.
//!
//! Each client costs one, each connection to a VM two or, with a bridge, four. Soft limits are low by tradition (1024,
//! for programs that use `select`); the hard limit is what the administrator means. At the limit no client is accepted
//! until another one leaves (pingora looks once a second), and requests that need a new connection to a VM are answered
//! with 500 `internal`.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard one; the limit from then on, `None` if there is none.
///
/// # Errors
///
/// What the kernel says.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}
