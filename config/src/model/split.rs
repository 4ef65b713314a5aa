//! Which pools a route's requests are divided among.

/// One pool's part of a route's requests, `route.pools`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Name of the pool, which exists; no other share of the route has it.
    pub pool: String,
    /// Its part of the requests, in proportion to the other weights: 0 to 10000, and not 0 in all of a route's shares.
    pub weight: u32,
}
