//! One thing that weir needs from the host, for `weir doctor`.

/// Whether it is there, and what to do if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub name: &'static str,
    /// How much it matters.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// How to get it; empty if nothing is to be done, or `detail` says it.
    pub fix: String,
}

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// weir works, but worse than it could.
    Degraded,
    /// No VM can run.
    Broken,
}
