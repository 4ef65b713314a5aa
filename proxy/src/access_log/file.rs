//! A log in a file that somebody else may rename.
//!
//! Whoever rotates logs renames the file and says so (SIGUSR1, as to nginx): from the next line on there is a new one at
//! the path. What cannot be written, because the disk is full, is counted and not tried again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use prometheus::IntCounter;

/// The file as the writing thread has it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    reopen: Arc<AtomicBool>,
    dropped: IntCounter,
    /// The last write failed, maybe within a line.
    torn: bool,
}

impl LogFile {
    /// Opens the file, or makes it, to add to its end. `reopen` asks to do so again; `dropped` counts lines.
    pub(super) fn open(path: &Path, reopen: Arc<AtomicBool>, dropped: IntCounter) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, reopen, dropped, torn: false })
    }

    /// Whole lines.
    fn add(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        self.file.write_all(lines)?;
        self.torn = false;
        Ok(())
    }
}

impl Write for LogFile {
    /// Takes all of it, which has to be whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let wrote = !self.torn;
        if !lines.is_empty()
            && let Err(error) = self.add(lines)
        {
            let lost = lines.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.inc_by(lost as u64);
            // Once, not for every line until there is room again.
            if wrote {
                tracing::error!(%error, path = %self.path.display(), "cannot write the access log");
            }
        }
        Ok(lines.len())
    }

    /// Between two batches of lines.
    fn flush(&mut self) -> io::Result<()> {
        if self.reopen.swap(false, Relaxed) {
            match open(&self.path) {
                Ok(file) => {
                    (self.file, self.torn) = (file, false);
                    tracing::info!(path = %self.path.display(), "access log opened again");
                }
                Err(error) => {
                    tracing::error!(%error, path = %self.path.display(), "cannot open the access log again, the former file stays");
                }
            }
        }
        Ok(())
    }
}

/// Not for everybody's eyes: what a query has in it may be a secret.
fn open(path: &Path) -> io::Result<File> {
    // To open one waits for its reader.
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a FIFO is no file to log to"));
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn counter() -> IntCounter {
        IntCounter::new("c", "c").unwrap()
    }

    #[test]
    fn a_renamed_file_is_left_when_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        fs::write(&path, "before\n").unwrap();
        let reopen = Arc::<AtomicBool>::default();
        let mut file = LogFile::open(&path, reopen.clone(), counter()).unwrap();
        file.write_all(b"a\n").unwrap();
        file.flush().unwrap();
        fs::rename(&path, &old).unwrap();
        file.write_all(b"b\n").unwrap();
        reopen.store(true, Relaxed);
        file.flush().unwrap();
        file.write_all(b"c\n").unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\na\nb\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
        // Its directory is gone: the file that is open stays.
        drop(directory);
        reopen.store(true, Relaxed);
        file.flush().unwrap();
        file.write_all(b"d\n").unwrap();
        file.flush().unwrap();
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted() {
        let dropped = counter();
        let mut file = LogFile::open(Path::new("/dev/full"), Arc::default(), dropped.clone()).unwrap();
        file.write_all(b"a\nb\n").unwrap();
        file.write_all(b"c\n").unwrap();
        assert_eq!(dropped.get(), 3);
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let error = LogFile::open(&path, Arc::default(), counter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
