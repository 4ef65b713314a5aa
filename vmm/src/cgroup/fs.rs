//! The few things that are done to the cgroup file systems, and to /proc to find them.
//!
//! A trait, because groups are made of files that the kernel makes up: tests have a small kernel of their own.
//! Files are opened for each write, which costs some microseconds; kept open they would be eight descriptors per VM.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// What is done to files and groups. All paths are absolute, and none comes from a tenant.
pub(super) trait Filesystem: Debug + Send + Sync {
    /// A file's text.
    fn read(&self, file: &Path) -> io::Result<String>;
    /// Writes `text` in one call, as the kernel wants it; the file must be there.
    fn write(&self, file: &Path, text: &str) -> io::Result<()>;
    /// Whether [`Filesystem::write`] would be allowed. Changes nothing.
    fn writable(&self, file: &Path) -> io::Result<()>;
    /// Makes a group.
    fn make(&self, group: &Path) -> io::Result<()>;
    /// Removes an empty group.
    fn remove(&self, group: &Path) -> io::Result<()>;
    /// Names of the groups within a group.
    fn children(&self, group: &Path) -> io::Result<Vec<String>>;
    /// An extended attribute's value, if it has one.
    fn attribute(&self, group: &Path, name: &str) -> Option<Vec<u8>>;
    /// Takes a lock that ends with this process at the latest; `WouldBlock` while another has it.
    fn lock(&self, group: &Path) -> io::Result<Lock>;
}

/// A group that no other weir may remove as a leftover.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held for its end")] pub(super) Option<File>);

/// This host.
#[derive(Debug)]
pub(super) struct Host;

impl Filesystem for Host {
    fn read(&self, file: &Path) -> io::Result<String> {
        fs::read_to_string(file)
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
    }

    fn writable(&self, file: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).open(file).map(drop)
    }

    fn make(&self, group: &Path) -> io::Result<()> {
        fs::create_dir(group)
    }

    fn remove(&self, group: &Path) -> io::Result<()> {
        fs::remove_dir(group)
    }

    fn children(&self, group: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(group)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn attribute(&self, group: &Path, name: &str) -> Option<Vec<u8>> {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(group, name, &mut value).ok()?;
        Some(value[..length].to_vec())
    }

    fn lock(&self, group: &Path) -> io::Result<Lock> {
        let directory = File::open(group)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Lock(Some(directory)))
    }
}
