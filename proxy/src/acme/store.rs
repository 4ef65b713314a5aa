//! Where accounts, keys and certificates outlive weir: a directory that only weir's user enters (0700), files that only
//! it reads (0600). A file is written beside and renamed, so that it is there whole or not at all, whenever the power
//! fails.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No file is longer, bytes.
const LONGEST: u64 = 1 << 20;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Store {
    home: PathBuf,
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or looked at.
    #[error("open {}", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could read keys, or put files there.
    #[error("{} is open to other users (mode {mode:03o}), make it 700", .path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Store {
    /// Makes the directory if there is none.
    ///
    /// # Errors
    /// If it cannot be made, or is open to others.
    pub(super) fn open(home: PathBuf) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: home.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&home).map_err(failed)?;
        let mode = fs::metadata(&home).map_err(failed)?.mode() & 0o777;
        if mode & 0o077 == 0 { Ok(Self { home }) } else { Err(StoreError::Shared { path: home, mode }) }
    }

    /// The path of a file of the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// A file's bytes; `None`: there is no such file.
    ///
    /// # Errors
    /// If there is one and it cannot be read.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(name);
        let read = || {
            let mut bytes = Vec::new();
            File::open(&path)?.take(LONGEST).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    /// Puts `bytes` in the place of the file at `path`, which is in the directory.
    ///
    /// # Errors
    /// If that fails; then what was there is there.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace(path, bytes).map_err(|source| StoreError::Write { path: path.to_owned(), source })
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The rename is on the disk when the directory is.
        File::open(&self.home)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("a/b")).unwrap();
        let path = store.path("f");
        assert!(store.read("f").unwrap().is_none());
        // What a crash has left.
        fs::write(store.path("f.new"), "half").unwrap();
        for bytes in [&b"one"[..], b"two"] {
            store.write(&path, bytes).unwrap();
            assert_eq!(store.read("f").unwrap().unwrap(), bytes);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&directory.path().join("a/b"))), (0o600, 0o700));
        assert_eq!(
            fs::read_dir(directory.path().join("a/b")).unwrap().count(),
            1,
            "nothing is left beside it"
        );

        fs::set_permissions(directory.path().join("a/b"), fs::Permissions::from_mode(0o750)).unwrap();
        let error = Store::open(directory.path().join("a/b")).unwrap_err();
        assert!(error.to_string().ends_with("is open to other users (mode 750), make it 700"), "{error}");
    }
}
