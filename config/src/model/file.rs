//! Files that a configuration names, and that are read with it and again whenever they change.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::load::read_bounded;

/// What a file can hold.
pub trait Content: Sized {
    /// The largest file, bytes.
    const LARGEST: u64;

    /// What is in the file.
    ///
    /// # Errors
    /// What is wrong with it and in which line, as a message.
    fn parse(bytes: &[u8]) -> Result<Self, String>;
}

/// A file that has been read. Clones share what was in it.
pub struct FileOf<T> {
    /// Where it is.
    pub path: PathBuf,
    /// What was in it.
    pub content: Arc<T>,
    /// What it was; `None`: it went away while it was read.
    pub stamp: Option<Stamp>,
}

/// What tells two files, or two contents of one, apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Bytes.
    size: u64,
    /// Seconds and nanoseconds since 1970; the change's time, which no program can set.
    changed: (i64, i64),
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read, or is too large.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is wrong with what is in it.
    #[error("{path:?}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What, and in which line.
        message: String,
    },
}

impl<T: Content> FileOf<T> {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, or not be understood.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        // Before it is read: what changes after that is seen.
        let stamp = Stamp::of(path);
        let bytes = read_bounded(path, T::LARGEST)
            .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        let content =
            T::parse(&bytes).map_err(|message| FileError::Invalid { path: path.to_owned(), message })?;
        Ok(Self { path: path.to_owned(), content: Arc::new(content), stamp })
    }
}

impl Stamp {
    /// Of the file that is there now; `None`: there is none, or it may not be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        let changed = (data.ctime(), data.ctime_nsec());
        Some(Self { device: data.dev(), inode: data.ino(), size: data.size(), changed })
    }
}

impl<T> Clone for FileOf<T> {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), content: Arc::clone(&self.content), stamp: self.stamp }
    }
}

/// Contents may be secrets, and are long.
impl<T> fmt::Debug for FileOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileOf").field(&self.path).finish()
    }
}

/// A file that was written anew, but as it was, is the same.
impl<T: PartialEq> PartialEq for FileOf<T> {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.content == other.content
    }
}
