//! The directory of snapshots. What is in it holds tenants' secrets and becomes the memory of VMs: nobody but weir's
//! user may read or write there.

use std::ffi::CStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::key;

/// How many files are looked at for leftovers: more than there are pools, far less than takes long.
const ENTRIES_MAX: usize = 16 * 1024;
/// Anything for anyone but the owner.
const OTHERS: u32 = 0o077;

/// Why snapshots cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotsError {
    /// It is not there and cannot be made.
    #[error("create directory of snapshots {path:?}")]
    Create {
        /// Which directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("open directory of snapshots {path:?}, which must be a directory and not a link to one")]
    Open {
        /// Which directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is somebody else's.
    #[error("directory of snapshots {path:?} belongs to user {owner}, not to weir's user {user}: chown it")]
    Owner {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        user: u32,
    },
    /// Others can get at it.
    #[error("directory of snapshots {path:?} has mode {mode:04o}, others can use it: chmod 0700 it")]
    Mode {
        /// Which directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is unknown what this machine's snapshots depend on.
    #[error("find out which cpu and kernel snapshots are for")]
    Host(#[source] io::Error),
}

/// Why a file in the directory is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot be opened")]
    Open(#[source] io::Error),
    #[error("is no regular file of weir's user alone")]
    Unsafe,
}

/// An open directory that is only ours.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens `path`, and creates it if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, SnapshotsError> {
        // Without a slash at its end, behind which a link would be followed.
        let path: PathBuf = path.components().collect();
        if let Err(source) = DirBuilder::new().recursive(true).mode(0o700).create(&path)
            && source.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(SnapshotsError::Create { path, source });
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, &path, flags, Mode::empty()).and_then(|fd| Ok((fstat(&fd)?, fd)));
        let (status, fd) =
            opened.map_err(|errno| SnapshotsError::Open { path: path.clone(), source: errno.into() })?;
        let user = geteuid().as_raw();
        if status.st_uid != user {
            return Err(SnapshotsError::Owner { path, owner: status.st_uid, user });
        }
        match status.st_mode & 0o7777 {
            mode if mode & OTHERS != 0 => Err(SnapshotsError::Mode { path, mode }),
            _ => Ok(Self { path, fd }),
        }
    }

    /// Where `name` is, for people.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file `name` and its length; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<(File, u64)>, FileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(FileError::Open(errno.into())),
        };
        let metadata = file.metadata().map_err(FileError::Open)?;
        let ours = metadata.uid() == geteuid().as_raw() && metadata.mode() & OTHERS == 0;
        if metadata.is_file() && ours { Ok(Some((file, metadata.len()))) } else { Err(FileError::Unsafe) }
    }

    /// Has `write` fill a file, which then takes the place of `name` at once and whole.
    pub(super) fn replace(&self, name: &str, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let temporary = key::temporary(name);
        self.remove(&temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&self.fd, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
        let written = write(&file)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&self.fd, &temporary, &self.fd, name)?));
        match written {
            Ok(()) => Ok(fsync(&self.fd)?),
            Err(error) => {
                // A full disk is what it fails for most: what there is of the file must not stay.
                self.remove(&temporary)?;
                Err(error)
            }
        }
    }

    /// Removes `name`, if it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes all snapshots, whole and half, but those that `keep` wants. How many that were.
    pub(super) fn sweep(&self, keep: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut swept = 0;
        for entry in Dir::read_from(&self.fd)?.take(ENTRIES_MAX) {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            let Ok(name) = name.to_str() else { continue };
            if key::is_ours(name) && !keep(name) {
                self.remove(name)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}
