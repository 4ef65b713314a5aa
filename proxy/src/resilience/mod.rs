//! What stands between a route's requests and a pool that does not serve them well.
//!
//! ```text
//!  route --weights--> backing (a pool) --lease--> VM
//! ```
//!
//! A route knows its pools as [`Backing`]s. The request remembers which one it went to by its place among them.

mod backings;
mod split;

pub(crate) use backings::{Backing, Backings};
use split::Split;
