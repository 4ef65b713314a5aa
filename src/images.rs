//! Images by the name that a configuration gives them: embedded ones first, then paths.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use weir_vmm::image::Image;

/// The VMM maps no larger image, bytes.
const LARGEST: u64 = 1 << 30;

/// Images by the name that a pool gives.
pub(crate) type Images = BTreeMap<String, Cow<'static, [u8]>>;

/// Reads the image `name` and checks that it is one.
///
/// # Errors
/// Why not; names it.
pub(crate) fn load(name: &str) -> Result<Cow<'static, [u8]>, String> {
    weir_config::image_exists(name, weir_guest::EMBEDDED)?;
    let bytes: Cow<'static, [u8]> = match weir_guest::image(name) {
        Some(embedded) => embedded.into(),
        None => read(name).map_err(|error| format!("{name:?} cannot be read: {error}"))?.into(),
    };
    Image::parse(&bytes).map_err(|error| format!("{name:?} is no guest image: {error}"))?;
    Ok(bytes)
}

/// A file of at most [`LARGEST`] bytes.
fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if read as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 GiB"));
    }
    Ok(bytes)
}
