//! weir's private network: a namespace of its own, and point-to-point TAP links in it.
#![deny(unsafe_code)]
