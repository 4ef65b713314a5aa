//! An image as a sealed memfd: made once per pool, mapped by each of its VMs, changed by none.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Why an image cannot be given to VMs.
#[derive(Debug, thiserror::Error)]
#[error("put image {name} into sealed memory")]
pub struct SealError {
    /// Which image.
    pub name: String,
    /// What failed.
    pub source: io::Error,
}

/// `image` in memory that nobody can change or resize any more, `name` being for `/proc`.
///
/// # Errors
/// If there is no memory or no file descriptor left.
pub fn seal(name: &str, image: &[u8]) -> Result<OwnedFd, SealError> {
    sealed(name, image).map_err(|source| SealError { name: name.to_owned(), source })
}

fn sealed(name: &str, image: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(image)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn sealed_image_can_be_read_but_not_changed() {
        let file = File::from(seal("hello", b"image").unwrap());
        let mut read = [0; 5];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"image");
        assert_eq!(file.metadata().unwrap().len(), 5);
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(4).is_err());
        assert!(file.set_len(6).is_err());
        assert!(fcntl_add_seals(&file, SealFlags::empty()).is_err());
    }
}
