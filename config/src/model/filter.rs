//! Which requests a route lets through, and how it changes headers.

use ipnetwork::IpNetwork;

use super::{BlockList, Edits, FileOf, Patience, Rule};

/// `[route.filter]`. Without any of it all requests pass as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Clients that are let through, if there is a list: not empty.
    pub allow: Option<Vec<IpNetwork>>,
    /// Clients that are not, whatever `allow` says.
    pub deny: Vec<IpNetwork>,
    /// Nor are those that the file names.
    pub block_list: Option<FileOf<BlockList>>,
    /// The first one whose condition holds says what becomes of a request that the lists let through; at most 10,000.
    pub rules: Vec<Rule>,
    /// Largest body, bytes.
    pub max_body: Option<u64>,
    /// Largest header, bytes as HTTP/1.1 writes it: 1 KiB to 32 KiB.
    pub max_header: Option<u64>,
    /// Requests of one client that may be under way at once, from 1.
    pub max_in_flight_per_client: Option<u32>,
    /// How long it waits for a client.
    pub patience: Patience,
    /// Changes of the header that a VM gets.
    pub request: Edits,
    /// Changes of the header that a client gets.
    pub response: Edits,
}
