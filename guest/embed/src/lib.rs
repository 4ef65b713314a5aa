//! Guest images, built from the guest workspace at compile time.
