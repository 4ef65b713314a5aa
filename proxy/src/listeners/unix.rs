//! Unix sockets, and their files.
//!
//! ```text
//!  no file, or one that nobody listens on ──bind, chmod, listen──> ours ──last owner gone──> removed
//!  anything else there ──> an error, and it stays
//! ```
//!
//! Who may connect is settled before anybody can: between bind and listen, connections are refused. The file is removed
//! only as long as it is the one that was made here, and as nobody else was handed the socket; see [`super::handed`].

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

/// Connections that may wait to be accepted; the kernel has its own limit besides (net.core.somaxconn).
const BACKLOG: i32 = 65_535;

/// A listening socket, non-blocking and closed on exec.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    pub(crate) socket: UnixListener,
    file: Arc<SocketFile>,
}

/// Its file; dropping it removes it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
    /// Whether it is to be removed.
    ours: Arc<AtomicBool>,
}

impl UnixSocket {
    /// Listens on `path`, for whom `mode` lets connect. Takes the place of a socket that nobody listens on.
    pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = new_socket()?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // From here on a failure removes the file.
        let metadata = fs::symlink_metadata(path)?;
        let ours = Arc::new(AtomicBool::new(true));
        let file = Arc::new(SocketFile { path: path.to_owned(), id: id(&metadata), ours });
        let bound = Self { socket: socket.into(), file };
        bound.set_mode(mode)?;
        listen(&bound.socket, BACKLOG)?;
        Ok(bound)
    }

    /// Takes a listening socket of `path` over, whose file is to be removed if it is `ours` at the end.
    ///
    /// # Errors
    /// If it is another socket.
    pub(super) fn adopt(path: &Path, socket: UnixListener, ours: Arc<AtomicBool>) -> io::Result<Self> {
        let bound = socket.local_addr()?;
        if bound.as_pathname() != Some(path) || !socket_acceptconn(&socket)? {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        socket.set_nonblocking(true)?;
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { socket, file: Arc::new(SocketFile { path: path.to_owned(), id: id(&metadata), ours }) })
    }

    /// The file is another's to remove from now on.
    pub(super) fn disown(&self) {
        self.file.ours.store(false, Relaxed);
    }

    /// Whether clients still find it.
    pub(super) fn has_file(&self) -> bool {
        self.file.is_there()
    }

    /// Changes who may connect.
    ///
    /// # Errors
    /// As chmod(2); [`io::ErrorKind::NotFound`] also if the file is another one by now.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        if !self.file.is_there() {
            return Err(io::ErrorKind::NotFound.into());
        }
        fs::set_permissions(&self.file.path, fs::Permissions::from_mode(mode))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Another descriptor. The file stays until both are gone.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, file: Arc::clone(&self.file) })
    }
}

impl SocketFile {
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| id(&metadata) == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours.load(Relaxed)
            && self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = ?self.path, "a listener's socket file stays behind");
        }
    }
}

fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn new_socket() -> io::Result<rustix::fd::OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if is_stale(path)? { fs::remove_file(path) } else { Ok(()) }
}

/// Whether a socket that nobody listens on is in the way. Looks, and changes nothing.
///
/// # Errors
/// If something else is.
pub(super) fn is_stale(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    // It does not block: with a full backlog it fails, and somebody listens.
    match connect(new_socket()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => Ok(true),
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_there_as_long_as_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = UnixSocket::bind(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        socket.set_mode(0o666).unwrap();
        assert_eq!(mode(&path), 0o666);
        UnixStream::connect(&path).unwrap();
        let second = socket.try_clone().unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bind = || UnixSocket::bind(&path, 0o600).map_err(|error| error.kind());
        let other = UnixListener::bind(&path).unwrap();
        assert_eq!(bind().unwrap_err(), io::ErrorKind::AddrInUse);
        // Its queue is full then, and a connect would wait for it.
        listen(&other, 0).unwrap();
        let _full: Vec<_> =
            (0..2).map(|_| connect(new_socket().unwrap(), &SocketAddrUnix::new(&path).unwrap())).collect();
        assert_eq!(bind().unwrap_err(), io::ErrorKind::AddrInUse);
        drop(other);
        drop(bind().unwrap());
        fs::write(&path, "a file").unwrap();
        assert_eq!(bind().unwrap_err(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"a file");
        let elsewhere = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &elsewhere).unwrap();
        assert_eq!(UnixSocket::bind(&elsewhere, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let nowhere = directory.path().join("none/s");
        assert_eq!(UnixSocket::bind(&nowhere, 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn another_s_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = UnixSocket::bind(&path, 0o600).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        assert_eq!(socket.set_mode(0o666).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(socket);
        UnixStream::connect(&path).unwrap();
    }
}
