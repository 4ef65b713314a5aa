//! The launcher: a tiny single-threaded process that forks one jailed process per VM.

pub mod protocol;
