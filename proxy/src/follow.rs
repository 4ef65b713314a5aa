//! Files that routes need, read again when they change.
//!
//! ```text
//!  read with the configuration --> in use --another at two looks--> read again --good--> in use
//!                                    ^                                  |
//!                                    '------- bad: logged, counted -----'
//! ```
//!
//! They are looked at once a second by their paths, as certificates are, so that it does not matter how they are changed. One
//! that is being written to is left alone until it has not changed for one look, and one that has gone stays in use as it was.

use std::error::Error as _;
use std::fmt::{self, Debug};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use weir_config::model::{Content, FileError, FileOf, Stamp};

use crate::metrics::Metrics;
use crate::table::Table;

/// Time from one look to the next.
const EVERY: Duration = Duration::from_secs(1);

/// What was made of a file, and is made anew when it changes.
pub(crate) struct Followed<C, T> {
    path: PathBuf,
    ready: ArcSwap<T>,
    make: Box<dyn Fn(&C) -> T + Send + Sync>,
    looks: Mutex<Looks>,
}

#[derive(Debug)]
struct Looks {
    /// What the file was when it was read.
    read: Option<Stamp>,
    /// What it was at the last look.
    last: Option<Stamp>,
}

/// A file that can be looked at.
pub(crate) trait Follow: Debug + Send + Sync {
    /// Where it is.
    fn path(&self) -> &Path;

    /// Looks at it, and reads it again if that is due; `None`: it is not.
    fn look(&self) -> Option<Result<(), FileError>>;
}

impl<C: Content, T> Followed<C, T> {
    /// What `make` makes of the file, now and whenever it is another one.
    pub(crate) fn new(file: &FileOf<C>, make: impl Fn(&C) -> T + Send + Sync + 'static) -> Arc<Self> {
        let ready = ArcSwap::from_pointee(make(&file.content));
        let looks = Mutex::new(Looks { read: file.stamp, last: file.stamp });
        Arc::new(Self { path: file.path.clone(), ready, make: Box::new(make), looks })
    }

    /// Of the file as it was last read.
    pub(crate) fn get(&self) -> Guard<Arc<T>> {
        self.ready.load()
    }
}

impl<C: Content, T: Send + Sync> Follow for Followed<C, T> {
    fn path(&self) -> &Path {
        &self.path
    }

    fn look(&self) -> Option<Result<(), FileError>> {
        let mut looks = self.looks.lock();
        if !looks.is_due(Stamp::of(&self.path)) {
            return None;
        }
        let read = FileOf::read(&self.path);
        Some(read.map(|file: FileOf<C>| {
            looks.read = file.stamp;
            self.ready.store(Arc::new((self.make)(&file.content)));
        }))
    }
}

/// Contents may be secrets, and are long.
impl<C, T> Debug for Followed<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.path).finish()
    }
}

impl Looks {
    /// Whether what is there now is to be read. If it turns out to be bad, it is not read a second time.
    fn is_due(&mut self, now: Option<Stamp>) -> bool {
        let stays = self.last == now;
        self.last = now;
        let due = stays && now.is_some() && now != self.read;
        if due {
            self.read = now;
        }
        due
    }
}

/// Looks at the files of the routes that hold now, for ever.
pub(crate) fn follow(
    table: Arc<ArcSwap<Table>>,
    metrics: &Metrics,
) -> impl Future<Output = ()> + Send + use<> {
    let reloads = metrics.file_reloads.clone();
    async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let table = table.load_full();
            if table.files.is_empty() {
                continue;
            }
            // Files may be slow.
            let look = move || table.files.iter().filter_map(|file| report(&**file)).collect::<Vec<_>>();
            for result in tokio::task::spawn_blocking(look).await.unwrap_or_default() {
                reloads.with_label_values(&[result]).inc();
            }
        }
    }
}

/// Looks at the file; how it went if it was read.
fn report(file: &dyn Follow) -> Option<&'static str> {
    match file.look()? {
        Ok(()) => {
            tracing::info!(file = %file.path().display(), "file reloaded");
            Some("ok")
        }
        Err(error) => {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "file not reloaded, what was in it before stays in use");
            Some("failed")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use weir_config::model::BlockList;

    use super::*;

    fn networks(followed: &Followed<BlockList, usize>) -> usize {
        **followed.get()
    }

    #[test]
    fn a_changed_file_is_read_once_it_rests() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        fs::write(&path, "10.0.0.1\n").unwrap();
        let file = FileOf::read(&path).unwrap();
        let followed = Followed::new(&file, |list: &BlockList| list.0.len());
        assert!(followed.look().is_none());
        fs::write(&path, "10.0.0.1\n10.0.0.2\n").unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().is_ok());
        assert!(followed.look().is_none());
        assert_eq!(networks(&followed), 2);
        // It breaks, is told once, and is mended.
        fs::write(&path, "10.0.0.1\n\nx\n").unwrap();
        assert!(followed.look().is_none());
        let error = followed.look().unwrap().unwrap_err().to_string();
        let expected =
            r#"line 3: "x" is no address and no network such as "192.0.2.0/24" or "2001:db8::/32""#;
        assert_eq!(error, format!("{path:?}: {expected}"));
        assert!(followed.look().is_none());
        assert_eq!(networks(&followed), 2);
        // It goes, and comes back as another.
        fs::remove_file(&path).unwrap();
        assert!((0..3).all(|_| followed.look().is_none()));
        fs::write(&path, "10.0.0.1\n").unwrap();
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().is_ok());
        assert_eq!(networks(&followed), 1);
    }

    #[test]
    fn what_changes_between_reading_and_following_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        fs::write(&path, "10.0.0.1\n").unwrap();
        let file = FileOf::read(&path).unwrap();
        fs::write(&path, "").unwrap();
        let followed = Followed::new(&file, |list: &BlockList| list.0.len());
        assert!(followed.look().is_none());
        assert!(followed.look().unwrap().is_ok());
        assert_eq!(networks(&followed), 0);
    }
}
