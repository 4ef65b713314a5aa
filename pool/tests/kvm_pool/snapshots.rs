//! Templates outlive weir: each case is a weir that starts, with the directory that the one before it left.

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use prometheus::TextEncoder;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use weir_pool::{Snapshots, Start};

use super::{Images, World, get, run_with, start};

pub(super) const NAME: &str = "snapshots_outlive_weir_and_damaged_ones_are_replaced";

pub(super) fn trial() -> Result<(), Failed> {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir()?;
    let path = directory.path().to_str().unwrap();
    start(&["booted", path])?;
    let first = fs::read(snapshot(directory.path()))?;
    start(&["kept", path])?;
    assert_eq!(fs::read(snapshot(directory.path()))?, first, "there was no reason to write it again");

    let damaged = File::options().write(true).open(snapshot(directory.path()))?;
    let middle = first.len() / 2;
    damaged.write_all_at(&[!first[middle]], middle as u64)?;
    start(&["damaged", path])?;
    start(&["kept", path])
}

pub(super) fn case(name: &str, directory: &Path) {
    let snapshots = Some(Snapshots::open(directory).unwrap());
    let watch = Watch::new(directory);
    run_with(Images::Hello, snapshots, async |world| match name {
        "booted" => {
            clones_serve(&world).await;
            watch.renamed().await;
            assert_eq!(world.counts(["loaded", "rejected", "failed"]), [0, 0, 0]);
        }
        "kept" => {
            clones_serve(&world).await;
            assert_eq!(world.counts(["loaded", "saved", "rejected", "failed"]), [1, 0, 0, 0]);
            assert!(!world.metrics().contains("weir_vm_templates_made_total{"), "nothing booted");
        }
        "damaged" => {
            clones_serve(&world).await;
            watch.renamed().await;
            assert_eq!(world.counts(["loaded", "rejected", "failed"]), [0, 1, 0]);
        }
        other => panic!("no case {other}"),
    });
}

async fn clones_serve(world: &World) {
    for _ in 0..2 {
        let lease = world.lease().await;
        assert_eq!(lease.start(), Start::Clone);
        let answer = get(lease.address(), "/").await;
        assert!(answer.contains(&format!("from vm {}, request 1", lease.vm())), "{answer}");
        drop(lease);
        world.until(|now| now.total() == 0).await;
    }
}

/// The only file in `directory`.
fn snapshot(directory: &Path) -> PathBuf {
    let mut paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let path = paths.next().unwrap();
    assert_eq!(paths.next(), None);
    path
}

impl World {
    fn metrics(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }

    fn counts<const N: usize>(&self, results: [&str; N]) -> [u64; N] {
        let metrics = self.metrics();
        results.map(|result| {
            let name = format!("weir_vm_snapshots_total{{pool=\"p\",result=\"{result}\"}} ");
            metrics
                .lines()
                .find_map(|line| line.strip_prefix(&name))
                .map_or(0, |count| count.parse().unwrap())
        })
    }
}

/// Sees files of a directory get their names.
struct Watch(OwnedFd);

impl Watch {
    fn new(directory: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, directory, inotify::WatchFlags::MOVED_TO).unwrap();
        Self(watch)
    }

    async fn renamed(self) {
        let watch = AsyncFd::new(self.0).unwrap();
        let _event = watch.readable().await.unwrap();
    }
}
