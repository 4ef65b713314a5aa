//! Lets the linker find `image.ld` by name, wherever the application's own workspace is.
fn main() {
    println!("cargo::rerun-if-changed=image.ld");
    println!("cargo::rustc-link-search=native={}", env!("CARGO_MANIFEST_DIR"));
}
