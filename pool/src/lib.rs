//! weir-pool.
#![forbid(unsafe_code)]
