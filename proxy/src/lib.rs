//! weir-proxy.
#![forbid(unsafe_code)]
