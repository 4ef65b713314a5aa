//! The directory: what is kept in it, found, removed, and when it is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;

#[test]
fn only_names_of_snapshots_are_ours() {
    let name = key().file_name().unwrap();
    assert!(key::is_ours(&name) && key::is_ours(&key::temporary(&name)), "{name}");
    let upper = name.to_uppercase();
    for other in [
        "",
        ".",
        "p",
        &name[1..],
        &name[..name.len() - 1],
        &upper,
        &format!("{name}.bak"),
        &format!("../{name}"),
    ] {
        assert!(!key::is_ours(other), "{other}");
    }
}

fn private() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// A store for the pool of [`pool`], with an image of `image`.
fn store(directory: &Path, image: &[u8]) -> Arc<Store> {
    let pools = BTreeMap::from([("p".to_owned(), Arc::new(pool()))]);
    let image = Arc::new(Image::new(crate::launch::seal("p", image).unwrap()));
    let snapshots = Snapshots { directory: Directory::open(directory).unwrap(), host: host() };
    let metrics = LaunchMetrics::register(&prometheus::Registry::new()).unwrap();
    Arc::new(Store::new(snapshots, &pools, |_| Some(image.clone()), metrics).unwrap())
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Store {
    fn file(&self) -> std::path::PathBuf {
        self.directory.path(&self.place("p").unwrap().name)
    }

    /// How often each of these was counted: loaded, saved, rejected, failed.
    fn counts(&self) -> [u64; 4] {
        use SnapshotResult::{Failed, Loaded, Rejected, Saved};
        [Loaded, Saved, Rejected, Failed].map(|result| self.metrics.snapshots("p", result))
    }
}

#[tokio::test]
async fn a_template_is_kept_and_found_again_but_not_with_another_image() {
    let directory = private();
    let path = &directory.path().join("deep/snapshots");
    let first = store(path, b"image");
    assert!(first.load("p").await.is_none());
    first.save("p", Arc::new(template(b"old", [(1, 1)]))).await;
    first.save("p", Arc::new(template(b"state", [(2, 5)]))).await;
    assert_eq!(first.counts(), [0, 2, 0, 0]);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(first.file()).unwrap().permissions().mode() & 0o7777, 0o600);

    let second = store(path, b"image");
    let kept = second.load("p").await.unwrap();
    assert_eq!((&kept.state[..], pages::resident(&kept.memory).unwrap()), (&b"state"[..], PAGE));
    second.accept("p");
    assert_eq!(second.counts(), [1, 0, 0, 0]);

    let third = store(path, b"another");
    assert!(third.load("p").await.is_none());
    assert_eq!(third.counts(), [0; 4]);
    assert_eq!(files(path), [""; 0], "that of the first image is of no use any more");
}

#[tokio::test]
async fn what_is_damaged_is_counted_removed_and_written_anew() {
    let directory = private();
    let store = store(directory.path(), b"image");
    let good = Arc::new(template(b"state", [(2, 5)]));
    let foreign = written(&good, &foreign()[3].1);
    for (damaged, contents) in [&b""[..], b"weirsnap", &foreign].into_iter().enumerate() {
        fs::write(store.file(), contents).unwrap();
        fs::set_permissions(store.file(), Permissions::from_mode(0o600)).unwrap();
        assert!(store.load("p").await.is_none());
        assert_eq!(files(directory.path()), [""; 0]);
        store.save("p", good.clone()).await;
        let count = damaged as u64 + 1;
        assert_eq!(store.counts(), [0, count, count, 0]);
        assert!(store.load("p").await.is_some());
    }
}

#[tokio::test]
async fn what_others_can_change_or_is_no_file_is_not_read() {
    let directory = private();
    let store = store(directory.path(), b"image");
    store.save("p", Arc::new(template(b"state", []))).await;
    let aside = directory.path().join("aside");
    fs::set_permissions(store.file(), Permissions::from_mode(0o660)).unwrap();
    assert!(store.load("p").await.is_none());
    store.save("p", Arc::new(template(b"state", []))).await;
    fs::rename(store.file(), &aside).unwrap();
    symlink(&aside, store.file()).unwrap();
    assert!(store.load("p").await.is_none());
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, store.file(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(store.load("p").await.is_none(), "and nobody waits for a writer");
    assert_eq!(store.counts(), [0, 2, 3, 0]);
    assert_eq!(files(directory.path()), ["aside"], "what a link points to stays");
}

#[tokio::test]
async fn a_directory_that_is_gone_is_only_counted() {
    let directory = private();
    let path = directory.path().join("snapshots");
    let store = store(&path, b"image");
    fs::remove_dir(&path).unwrap();
    store.save("p", Arc::new(template(b"state", []))).await;
    assert!(store.load("p").await.is_none());
    assert_eq!(store.counts(), [0, 0, 0, 1]);
}

#[test]
fn a_write_that_fails_leaves_what_was_there_and_nothing_else() {
    let directory = private();
    let opened = Directory::open(directory.path()).unwrap();
    let name = key().file_name().unwrap();
    fs::write(directory.path().join(key::temporary(&name)), "of a weir that was killed").unwrap();
    opened.replace(&name, |mut file| io::Write::write_all(&mut file, b"whole")).unwrap();
    let full = opened.replace(&name, |mut file| {
        io::Write::write_all(&mut file, b"half")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(files(directory.path()), [name.as_str()]);
    assert_eq!(fs::read(opened.path(&name)).unwrap(), b"whole");
}

#[test]
fn leftovers_are_removed_and_nothing_else() {
    let directory = private();
    let ours = Key::new(&pool(), Sha256::digest(b"image").into(), &host()).file_name().unwrap();
    let other = key().file_name().unwrap();
    for name in [&ours, &key::temporary(&ours), &other, &key::temporary(&other), "notes", "p.weir-snapshot"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    store(directory.path(), b"image");
    assert_eq!(files(directory.path()), ["notes", &ours, "p.weir-snapshot"]);
}

#[test]
fn a_directory_that_others_can_use_or_that_is_none_is_refused() {
    let directory = private();
    let refused = |path: &Path| Directory::open(path).unwrap_err().to_string();
    let path = directory.path().join("snapshots");
    Directory::open(&path).unwrap();
    for mode in [0o710, 0o701, 0o770, 0o777, 0o1777, 0o740, 0o702] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let expected =
            format!("directory of snapshots {path:?} has mode {mode:04o}, others can use it: chmod 0700 it");
        assert_eq!(refused(&path), expected);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    Directory::open(&path).unwrap();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    for link in [link.clone(), link.join(""), link.join(".")] {
        assert!(refused(&link).starts_with("open directory of snapshots"), "{link:?}");
    }
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refused(&file).starts_with("open directory of snapshots"));
    assert!(refused(&file.join("below")).starts_with("create directory of snapshots"));
}
