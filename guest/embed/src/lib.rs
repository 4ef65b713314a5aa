//! Guest images, built from the guest workspace at compile time.
//!
//! So that weir is one file, and so that every test of the VMM runs the guest that belongs to it.
#![forbid(unsafe_code)]

/// The example guest: a small HTTP server.
pub const HELLO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

/// The test guest, which misbehaves as its first argument says. Not for configurations.
pub const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));

/// Names of the images that a configuration may use.
pub const EMBEDDED: &[&str] = &["hello"];

/// The embedded image called `name`.
pub fn image(name: &str) -> Option<&'static [u8]> {
    match name {
        "hello" => Some(HELLO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_small_elf_files_for_this_machine() {
        for image in [HELLO, PROBE] {
            // ELF64, little-endian, executable, x86-64 (ELF specification, figure 1-3).
            assert_eq!((&image[..6], &image[16..20]), (&b"\x7fELF\x02\x01"[..], &[2, 0, 62, 0][..]));
            assert!(image.len() < 256 * 1024, "{} bytes", image.len());
        }
    }

    #[test]
    fn every_embedded_name_has_an_image() {
        assert!(EMBEDDED.iter().all(|name| image(name).is_some()));
        assert_eq!(image("probe"), None);
    }
}
