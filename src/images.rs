//! Images by the name that a configuration gives them: embedded ones first, then paths.

use std::borrow::Cow;

use weir_vmm::image::Image;

/// Reads the image `name` and checks that it is one.
///
/// # Errors
/// Why not; names it.
pub(crate) fn load(name: &str) -> Result<Cow<'static, [u8]>, String> {
    weir_config::image_exists(name, weir_guest::EMBEDDED)?;
    let bytes: Cow<'static, [u8]> = match weir_guest::image(name) {
        Some(embedded) => embedded.into(),
        None => std::fs::read(name).map_err(|error| format!("{name:?} cannot be read: {error}"))?.into(),
    };
    Image::parse(&bytes).map_err(|error| format!("{name:?} is no guest image: {error}"))?;
    Ok(bytes)
}
