//! Both versions' rules, on a kernel of the tests' own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::testing::Kernel;
use super::{CgroupError, CgroupPool, Cgroups, Controller, CpuLimits, Lack, OVERHEAD, Version, survey};

/// weir's own process.
const WEIR: i32 = 7;
/// Another one, not weir's child.
const STRANGER: i32 = 5;
const VM: i32 = 100;
const MIB: u64 = 1 << 20;

/// Version 1, cpu mounted together with cpuacct, weir in the roots but for memory.
fn v1() -> Arc<Kernel> {
    let kernel = Kernel::default();
    kernel.mount(Version::V1, "/cg/cpu", "cpu,cpuacct", &[STRANGER, WEIR]);
    kernel.mount(Version::V1, "/cg/memory", "memory", &[STRANGER]);
    kernel.mount(Version::V1, "/cg/pids", "pids", &[STRANGER, WEIR]);
    kernel.mount(Version::V2, "/cg/unified", "", &[STRANGER, WEIR]);
    super::fs::Filesystem::make(&kernel, Path::new("/cg/memory/service")).unwrap();
    kernel.membership("3:pids:/\n2:memory:/service\n1:cpu,cpuacct:/\n0::/\n");
    kernel.state().alive.insert(VM);
    Arc::new(kernel)
}

/// Version 2 with systemd; weir alone in a delegated group.
fn v2() -> Arc<Kernel> {
    let kernel = Kernel::default();
    kernel.mount(Version::V2, "/cg", "cpu,memory,pids,io", &[STRANGER]);
    {
        let mut state = kernel.state();
        state.files.insert("/run/systemd/system".into(), String::new());
        let group = state.groups[Path::new("/cg")].clone();
        let group = super::testing::Group { processes: vec![WEIR], delegated: true, ..group };
        state.groups.insert("/cg/weir.service".into(), group);
        state.alive.extend([WEIR, VM]);
    }
    kernel.membership("0::/weir.service\n");
    Arc::new(kernel)
}

fn open(kernel: &Arc<Kernel>) -> CgroupPool {
    Cgroups::detect_on(kernel.clone(), WEIR).unwrap().open_root().unwrap()
}

fn lacks(kernel: &Kernel) -> Vec<Lack> {
    let found = survey::survey(kernel, WEIR).unwrap();
    found.controllers.into_iter().filter_map(|(_, place)| place.err()).collect()
}

fn limits(weight: u32, quota: u32) -> CpuLimits {
    CpuLimits { weight, quota: Some(quota) }
}

#[test]
fn version_1_limits_a_process_in_each_hierarchy() {
    let kernel = v1();
    let pool = open(&kernel);
    assert_eq!(pool.controllers().collect::<Vec<_>>(), Controller::ALL);
    let mut lease = pool.acquire().unwrap();
    lease.add(VM).unwrap();
    lease.set(limits(250, 200), 16 * MIB).unwrap();
    for group in ["/cg/cpu/weir-7/1", "/cg/memory/service/weir-7/1", "/cg/pids/weir-7/1"] {
        assert_eq!(kernel.processes(group), [VM], "{group}");
    }
    let limit = 16 * MIB + 16 * MIB / 256 + OVERHEAD;
    for (file, text) in [
        ("/cg/cpu/weir-7/1/cpu.shares", "2560"),
        ("/cg/cpu/weir-7/1/cpu.cfs_quota_us", "20000"),
        ("/cg/memory/service/weir-7/1/memory.limit_in_bytes", &limit.to_string()),
        ("/cg/memory/service/weir-7/1/memory.swappiness", "0"),
        ("/cg/pids/weir-7/1/pids.max", "16"),
    ] {
        assert_eq!(kernel.knob(file).as_deref(), Some(text), "{file}");
    }
    assert_eq!(kernel.processes("/cg/cpu"), [STRANGER, WEIR], "version 1 needs nobody to step aside");
}

#[test]
fn version_2_limits_a_process_after_weir_stepped_aside() {
    let kernel = v2();
    let pool = open(&kernel);
    let mut lease = pool.acquire().unwrap();
    lease.add(VM).unwrap();
    lease.set(limits(250, 1500), 16 * MIB).unwrap();
    assert_eq!(kernel.processes("/cg/weir.service/weir.main"), [WEIR]);
    assert_eq!(kernel.processes("/cg/weir.service/weir-7/1"), [VM]);
    let limit = 16 * MIB + 16 * MIB / 256 + OVERHEAD;
    for (file, text) in [
        ("cpu.weight", "250"),
        ("cpu.max", "150000 100000"),
        ("memory.max", &limit.to_string()),
        ("memory.swap.max", "0"),
        ("pids.max", "16"),
    ] {
        let file = format!("/cg/weir.service/weir-7/1/{file}");
        assert_eq!(kernel.knob(&file).as_deref(), Some(text), "{file}");
    }
    assert_eq!(kernel.processes("/cg"), [STRANGER], "others are left alone");
}

#[test]
fn a_weir_that_stepped_aside_before_finds_its_place_again() {
    let kernel = v2();
    drop(open(&kernel));
    kernel.membership("0::/weir.service/weir.main\n");
    let pool = open(&kernel);
    pool.prepare(1).unwrap();
    assert_eq!(kernel.below("/cg/weir.service"), ["weir-7", "weir-7/1", "weir.main"]);
}

#[test]
fn each_version_gives_what_it_has_on_a_mixed_host() {
    let kernel = Kernel::default();
    kernel.mount(Version::V1, "/cg/cpu", "cpu", &[WEIR]);
    kernel.mount(Version::V2, "/cg/unified", "memory", &[WEIR, STRANGER]);
    kernel.membership("1:cpu:/\n0::/\n");
    kernel.state().files.insert("/proc/cgroups".into(), "#name\ncpu\t1\t1\t1\npids\t0\t1\t0\n".into());
    kernel.state().alive.insert(VM);
    assert_eq!(lacks(&kernel), [Lack::Disabled]);
    let kernel = Arc::new(kernel);
    let mut lease = open(&kernel).acquire().unwrap();
    lease.add(VM).unwrap();
    lease.set(limits(1, 10), 8 * MIB).unwrap();
    assert_eq!(kernel.knob("/cg/cpu/weir-7/1/cpu.shares").as_deref(), Some("10"));
    assert_eq!(kernel.knob("/cg/cpu/weir-7/1/cpu.cfs_quota_us").as_deref(), Some("1000"));
    assert!(kernel.knob("/cg/unified/weir-7/1/memory.max").is_some());
    assert_eq!(kernel.processes("/cg/unified"), [WEIR, STRANGER], "a hierarchy's root may have processes");
}

#[test]
fn only_what_changes_is_written() {
    let kernel = v1();
    let mut lease = open(&kernel).acquire().unwrap();
    let writes = |lease: &mut super::CgroupLease, limits: CpuLimits, memory| {
        let before = kernel.state().writes.len();
        lease.set(limits, memory).unwrap();
        kernel.state().writes.len() - before
    };
    assert_eq!(writes(&mut lease, CpuLimits::default(), 8 * MIB), 1);
    assert_eq!(writes(&mut lease, CpuLimits::default(), 8 * MIB), 0);
    assert_eq!(writes(&mut lease, limits(100, 500), 8 * MIB), 1);
    assert_eq!(writes(&mut lease, limits(10, 50), 9 * MIB), 3);
}

#[test]
fn a_group_is_used_again_without_its_limits() {
    let kernel = v1();
    let pool = open(&kernel);
    let mut lease = pool.acquire().unwrap();
    lease.add(VM).unwrap();
    lease.set(limits(250, 200), 16 * MIB).unwrap();
    kernel.end(VM);
    drop(lease);
    let again = pool.acquire().unwrap();
    assert_eq!(kernel.below("/cg/cpu/weir-7"), ["1"]);
    for (file, text) in [
        ("/cg/cpu/weir-7/1/cpu.shares", "1024"),
        ("/cg/cpu/weir-7/1/cpu.cfs_quota_us", "-1"),
        ("/cg/memory/service/weir-7/1/memory.limit_in_bytes", "-1"),
    ] {
        assert_eq!(kernel.knob(file).as_deref(), Some(text), "{file}");
    }
    drop(again);
}

#[test]
fn a_group_with_a_process_waits_and_one_with_memory_goes() {
    let kernel = v2();
    let pool = open(&kernel);
    let lease = pool.acquire().unwrap();
    lease.add(VM).unwrap();
    drop(lease);
    let other = pool.acquire().unwrap();
    assert_eq!(kernel.below("/cg/weir.service/weir-7"), ["1", "2"], "the first still has its process");
    kernel.end(VM);
    let first = pool.acquire().unwrap();
    assert_eq!(kernel.below("/cg/weir.service/weir-7"), ["1", "2"], "the first is free");
    kernel.state().groups.get_mut(Path::new("/cg/weir.service/weir-7/1")).unwrap().charged = 16 * MIB;
    drop(first);
    assert_eq!(kernel.below("/cg/weir.service/weir-7"), ["2"], "what is charged would be the next one's");
    drop(other);
}

#[test]
fn all_groups_go_with_the_pool_and_its_leases() {
    for (kernel, base) in [(v1(), "/cg/cpu"), (v2(), "/cg/weir.service")] {
        let pool = open(&kernel);
        pool.prepare(5).unwrap();
        let lease = pool.acquire().unwrap();
        assert_eq!(kernel.below(&format!("{base}/weir-7")).len(), 5);
        drop(pool);
        assert_eq!(kernel.below(&format!("{base}/weir-7")).len(), 5, "a lease lives");
        drop(lease);
        assert!(!kernel.below(base).contains(&"weir-7".to_owned()));
    }
}

#[test]
fn a_group_that_cannot_be_made_leaves_nothing() {
    let kernel = v1();
    let pool = open(&kernel);
    kernel.state().unmakeable = Some("pids/weir-7/1".to_owned());
    assert!(matches!(pool.acquire(), Err(CgroupError::Make { .. })));
    assert!(
        kernel.below("/cg/cpu/weir-7").is_empty() && kernel.below("/cg/memory/service/weir-7").is_empty()
    );
    assert!(pool.acquire().is_ok());
}

#[test]
fn groups_of_dead_weirs_go_and_those_of_others_stay() {
    let kernel = v1();
    for (name, alive, locked) in [
        ("weir-50", false, false),
        ("weir-51", true, false),
        ("weir-52", false, true),
        ("weird", false, false),
    ] {
        for group in [format!("/cg/cpu/{name}"), format!("/cg/cpu/{name}/3")] {
            super::fs::Filesystem::make(&*kernel, Path::new(&group)).unwrap();
        }
        let mut state = kernel.state();
        if alive {
            state.alive.insert(51);
        }
        if locked {
            state.locked.insert(PathBuf::from(format!("/cg/cpu/{name}")));
        }
    }
    kernel.state().groups.get_mut(Path::new("/cg/cpu/weird/3")).unwrap().processes.push(STRANGER);
    let _pool = open(&kernel);
    let left = kernel.below("/cg/cpu");
    assert_eq!(left, ["weir-51", "weir-51/3", "weir-52", "weir-52/3", "weir-7", "weird", "weird/3"]);
}

#[test]
fn what_a_dead_weir_with_this_pid_left_is_not_mixed_up() {
    let kernel = v1();
    for group in ["/cg/cpu/weir-7", "/cg/cpu/weir-7/3", "/cg/cpu/weir-7/4"] {
        super::fs::Filesystem::make(&*kernel, Path::new(group)).unwrap();
    }
    kernel.state().groups.get_mut(Path::new("/cg/cpu/weir-7/4")).unwrap().processes.push(VM);
    let pool = open(&kernel);
    pool.prepare(2).unwrap();
    assert_eq!(kernel.below("/cg/cpu/weir-7"), ["4", "5", "6"]);
}

#[test]
fn each_lack_is_told() {
    let set = |kernel: &Kernel, change: fn(&mut super::testing::Group)| {
        change(kernel.state().groups.get_mut(Path::new("/cg/weir.service")).unwrap());
    };
    let service = || PathBuf::from("/cg/weir.service");
    let kernel = v2();
    assert!(lacks(&kernel).is_empty());
    set(&kernel, |group| {
        group.controllers.remove("memory");
    });
    assert_eq!(lacks(&kernel), [Lack::NotGiven(service())]);
    set(&kernel, |group| group.processes.push(STRANGER));
    assert_eq!(lacks(&kernel)[0], Lack::Shared(service()));
    set(&kernel, |group| group.delegated = false);
    assert_eq!(lacks(&kernel)[0], Lack::NotDelegated(service()));
    set(&kernel, |group| group.read_only = true);
    assert_eq!(lacks(&kernel), [const { Lack::NotMounted }; 3].map(|_| Lack::Forbidden(service())));
    kernel.membership("0::/../other\n");
    assert_eq!(lacks(&kernel)[0], Lack::OutOfSight("/../other".into()));
    kernel.membership("");
    assert_eq!(lacks(&kernel)[0], Lack::NotMounted);
    kernel.state().files.remove(Path::new("/proc/self/cgroup"));
    assert!(matches!(Cgroups::detect_on(kernel.clone(), WEIR), Err(CgroupError::Read { .. })));
}

#[test]
fn without_any_controller_every_reason_is_in_the_error() {
    let kernel = v2();
    kernel.membership("");
    let error = Cgroups::detect_on(kernel, WEIR).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no cgroup controller is usable: cpu not mounted, memory not mounted, pids not mounted"
    );
}

#[test]
fn a_weir_that_cannot_step_aside_stays() {
    let kernel = v2();
    let cgroups = Cgroups::detect_on(kernel.clone(), WEIR).unwrap();
    kernel.state().groups.get_mut(Path::new("/cg/weir.service")).unwrap().processes.push(STRANGER);
    assert!(matches!(cgroups.open_root(), Err(CgroupError::Write { .. })));
    assert_eq!(kernel.processes("/cg/weir.service"), [STRANGER, WEIR]);
    assert!(kernel.below("/cg/weir.service").is_empty());
}

#[test]
fn a_process_that_is_gone_is_not_added() {
    let kernel = v2();
    let lease = open(&kernel).acquire().unwrap();
    kernel.end(VM);
    assert!(matches!(lease.add(VM), Err(CgroupError::Write { .. })));
}
