//! What passes between a weir and the one that takes its place.
//!
//! ```text
//!  earlier weir                                          later weir: the same command, its standard input the other
//!                                                        end of a socket pair, `WEIR_HANDOVER=1`
//!     ── Socket, and its descriptor; for each listener ──>   reads the configuration, binds what it was not handed,
//!     ── Complete ────────────────────────────────────────>  starts its pools
//!     <──────────────────────────────────────── Prepared ──
//!     ── Accept ──────────────────────────────────────────>  accepts
//!     <───────────────────────────────────────── Serving ──
//!     drains                                                 the sockets' files are its own
//! ```
//!
//! Until `Accept` the later weir takes no connection, so that none is lost when it fails, or takes so long that it is
//! killed. An end of file before `Accept`: the earlier weir has ended or given up, and the later one ends too.
//!
//! The two may be of different versions. What is here may only be changed together with [`VERSION`]: a weir that does not
//! know the version it is told binds its addresses by itself, cannot, and ends, and the earlier one goes on.

mod heir;
mod program;

use serde::{Deserialize, Serialize};
use weir_proxy::Role;

pub(crate) use self::heir::Inheritance;
pub(crate) use self::program::{Conversation, Program, Successor, SuccessorError};

/// The environment variable by which a weir is told that its standard input is such a socket, and the version of this.
const VARIABLE: &str = "WEIR_HANDOVER";
const VERSION: &str = "1";

/// What the earlier weir says.
#[derive(Debug, Deserialize, Serialize)]
enum FromEarlier {
    /// A listening socket; its descriptor comes with this.
    Socket {
        /// For administration, not for clients.
        admin: bool,
        /// As in that weir's configuration.
        address: String,
    },
    /// Those were all sockets.
    Complete,
    /// Connections are the later weir's, too, from now on.
    Accept,
}

/// What the later weir says.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
enum FromLater {
    /// It could accept.
    Prepared,
    /// It accepts.
    Serving,
}

/// Whom a message's socket is for.
fn role(admin: bool) -> Role {
    if admin { Role::Admin } else { Role::Http }
}

#[cfg(test)]
mod tests;
