//! Each limit, held against what a process does.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity};
use weir_vmm::cgroup::{CgroupLease, CgroupPool, Cgroups, CpuLimits};

use crate::subject::Subject;

pub(crate) const ALL: [(&str, fn()); 5] = [
    ("a_quota_is_kept", a_quota_is_kept),
    ("weights_divide_a_cpu", weights_divide_a_cpu),
    ("a_process_beyond_its_memory_is_killed_alone", a_process_beyond_its_memory_is_killed_alone),
    ("a_group_is_used_again_without_its_limits", a_group_is_used_again_without_its_limits),
    ("groups_are_gone_with_their_pool", groups_are_gone_with_their_pool),
];

const MIB: u64 = 1 << 20;

fn pool() -> CgroupPool {
    Cgroups::detect().unwrap().open_root().unwrap()
}

fn limited(pool: &CgroupPool, cpu: CpuLimits, guest_memory: u64) -> CgroupLease {
    let mut lease = pool.acquire().unwrap();
    lease.set(cpu, guest_memory).unwrap();
    lease
}

/// A CPU that this process may use.
fn a_cpu() -> usize {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap()
}

/// Waits until `subject` has had so much CPU time, ticks; panics if it ends.
fn until(subject: &Subject, ticks: u64) {
    let begin = Instant::now();
    while subject.ticks() < ticks {
        assert!(!subject.ends_within(Duration::from_millis(20)), "it ended");
        assert!(begin.elapsed() < Duration::from_secs(9), "it gets no CPU");
    }
}

fn a_quota_is_kept() {
    let pool = pool();
    let lease = limited(&pool, CpuLimits { weight: 100, quota: Some(200) }, 8 * MIB);
    let mut subject = Subject::spinning().join(&lease);
    subject.go();
    let begin = Instant::now();
    until(&subject, 30);
    let (ticks, wall) = (subject.ticks(), begin.elapsed());
    // 0.3 s of CPU time at a fifth of a CPU take 1.5 s. However busy the host is, it is not faster; the bound leaves
    // room for what its start took and for the slice that a quota may be exceeded by.
    let share = ticks as f64 / 100.0 / wall.as_secs_f64();
    assert!(share < 0.27, "{share:.2} CPUs");
}

fn weights_divide_a_cpu() {
    let pool = pool();
    let cpu = a_cpu();
    let [light, heavy] = [100, 400].map(|weight| limited(&pool, CpuLimits { weight, quota: None }, 8 * MIB));
    let [mut one, mut four] = [&light, &heavy].map(|lease| Subject::spinning().join(lease).on(cpu));
    one.go();
    four.go();
    // From when both run.
    until(&one, 3);
    until(&four, 3);
    let before = [one.ticks(), four.ticks()];
    until(&four, before[1] + 80);
    let ratio = (four.ticks() - before[1]) as f64 / (one.ticks() - before[0]).max(1) as f64;
    assert!((2.5..6.5).contains(&ratio), "{ratio:.1} : 1");
}

fn a_process_beyond_its_memory_is_killed_alone() {
    let pool = pool();
    let small = limited(&pool, CpuLimits::default(), 8 * MIB);
    let large = limited(&pool, CpuLimits::default(), 256 * MIB);
    let [mut beyond, mut within] = [&small, &large].map(|lease| Subject::hoarding(128).join(lease));
    let mut neighbour = Subject::spinning().join(&large);
    neighbour.go();
    beyond.go();
    assert_eq!(beyond.status().signal(), Some(9), "128 MiB for a guest of 8 MiB");
    assert!(!neighbour.ends_within(Duration::ZERO));
    within.go();
    assert!(within.status().success(), "128 MiB for a guest of 256 MiB");
}

fn a_group_is_used_again_without_its_limits() {
    let pool = pool();
    let lease = limited(&pool, CpuLimits { weight: 1, quota: Some(300) }, 8 * MIB);
    let mut first = Subject::hoarding(64).join(&lease);
    first.go();
    assert_eq!(first.status().signal(), Some(9));
    drop(lease);
    let again = pool.acquire().unwrap();
    let mut second = Subject::hoarding(64).join(&again);
    second.go();
    assert!(second.status().success(), "the limit of the VM before is still there");
}

fn groups_are_gone_with_their_pool() {
    let pool = pool();
    pool.prepare(3).unwrap();
    let lease = pool.acquire().unwrap();
    let subject = Subject::spinning().join(&lease);
    drop(lease);
    drop(pool);
    // A process held one group back; the next pool of this process removes it once it can.
    drop(subject);
    let next = self::pool();
    next.prepare(1).unwrap();
    drop(next);
    let name = format!("weir-{}", std::process::id());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    for mount in cgroups.filter_map(|line| line.split(' ').nth(4)) {
        assert_eq!(find(mount.as_ref(), &name, 0), None);
    }
}

/// A directory called `name` at most a few levels below `directory`.
fn find(directory: &std::path::Path, name: &str, depth: u32) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut paths = directories.map(|entry| entry.path());
    paths.find_map(|path| {
        if path.ends_with(name) {
            Some(path)
        } else if depth < 8 {
            find(&path, name, depth + 1)
        } else {
            None
        }
    })
}
