//! What stands between a route's requests and a pool that does not serve them well.
//!
//! ```text
//!  route --weights--> backing (a pool) --breaker--> lease --> VM
//!                        `-- refused --> fallback --breaker--> lease --> VM
//! ```
//!
//! A route knows its pools as [`Backing`]s. The request remembers which one it went to by its place among them.

mod affinity;
mod backings;
mod breaker;
mod fallback;
mod instead;
mod mirror;
mod refuse;
mod split;

pub(crate) use affinity::{Affinity, Belongs, cookies};
pub(crate) use backings::{Backing, Backings};
pub(crate) use breaker::{Breaker, BreakerSeries, Permit};
pub(crate) use instead::{Instead, Intercepted, Page, Pages};
pub(crate) use mirror::{Copying, Mirror, MirrorSeries, Sender};
pub(crate) use refuse::is_interception;
use split::Split;
