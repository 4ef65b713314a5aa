//! Noticing that the configuration's file is another one.
//!
//! It is looked at once a second by its path, so that it does not matter how it is changed: written to, replaced by a
//! rename as editors and configuration management do, or by a symbolic link that leads elsewhere, as mounts of a cluster's
//! configuration do. A file that is being written to is left alone until it has not changed for one look.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time from one look to the next.
const EVERY: Duration = Duration::from_secs(1);

/// What tells two files, or two contents of one, apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since 1970; the change's time, which no program can set.
    changed: (i64, i64),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    looks: Looks,
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    /// What the file was when it was last told of; `None`: there was none.
    told: Option<Stamp>,
    /// What it was at the last look.
    last: Option<Stamp>,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let data = std::fs::metadata(path)?;
        let changed = (data.ctime(), data.ctime_nsec());
        Ok(Self { device: data.dev(), inode: data.ino(), size: data.size(), changed })
    }
}

impl Looks {
    fn of(now: Option<Stamp>) -> Self {
        Self { told: now, last: now }
    }

    /// Whether what is seen now is to be told of. That there is no file is not: another one will come.
    fn look(&mut self, now: Option<Stamp>) -> bool {
        let stays = self.last == now;
        self.last = now;
        let is_new = stays && now.is_some() && now != self.told;
        if is_new {
            self.told = now;
        }
        is_new
    }
}

impl ConfigFile {
    /// The file as it is now.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), looks: Looks::of(Stamp::of(path).ok()) }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It is about to be read as it is now.
    pub(super) fn seen(&mut self) {
        self.looks = Looks::of(Stamp::of(&self.path).ok());
    }

    /// Resolves when it is another one than the last time, or than at first.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let path = self.path.clone();
            // On a file system that hangs it hangs, too, and nothing else does.
            let Ok(stamp) = tokio::task::spawn_blocking(move || Stamp::of(&path).ok()).await else {
                continue;
            };
            if self.looks.look(stamp) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_when_it_is_over() {
        let stamp = |inode, size| Some(Stamp { device: 1, inode, size, changed: (1, 2) });
        let mut looks = Looks::of(stamp(1, 1));
        let seen = [
            (stamp(1, 1), false),
            // It grows.
            (stamp(1, 2), false),
            (stamp(1, 3), false),
            (stamp(1, 3), true),
            (stamp(1, 3), false),
            // It is replaced.
            (None, false),
            (stamp(2, 3), false),
            (stamp(2, 3), true),
            // It is gone, and comes back.
            (None, false),
            (None, false),
            (stamp(2, 3), false),
            (stamp(2, 3), false),
            // It changes, and changes back.
            (stamp(3, 3), false),
            (stamp(2, 3), false),
            (stamp(2, 3), false),
        ];
        for (index, (now, told)) in seen.into_iter().enumerate() {
            assert_eq!(looks.look(now), told, "{index}");
        }
    }

    #[test]
    fn a_rewritten_and_a_renamed_file_are_others() {
        let directory = tempfile::tempdir().expect("make a directory");
        let [path, beside] = ["a", "b"].map(|name| directory.path().join(name));
        std::fs::write(&path, "one").expect("write");
        let first = Stamp::of(&path).expect("there is one");
        std::fs::write(&beside, "one").expect("write");
        std::fs::rename(&beside, &path).expect("rename");
        let second = Stamp::of(&path).expect("there is one");
        assert_ne!(first, second);
        std::fs::write(&path, "three").expect("write");
        assert_ne!(second, Stamp::of(&path).expect("there is one"));
        assert!(Stamp::of(&beside).is_err());
    }
}
