//! One thing that weir needs from the host, for `weir doctor`.

/// Whether it is there, and what to do if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub name: &'static str,
    /// It can be used.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// How to get it; empty if `ok`.
    pub fix: String,
}
