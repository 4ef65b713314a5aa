//! What /proc says of this process, its launcher and their VMs.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::time::Duration;

/// CPU time since a process began, or within a span.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) own: Duration,
    pub(crate) launcher: Duration,
    /// Of VMs alive at the end of the span.
    pub(crate) vms: Duration,
    by_vm: BTreeMap<u32, Duration>,
}

impl Usage {
    /// So far.
    pub(crate) fn now() -> Self {
        let (launcher, vms) = children();
        let by_vm: BTreeMap<u32, Duration> = vms.into_iter().map(|vm| (vm, on_cpu(vm))).collect();
        let (own, launcher) = (threads(std::process::id()), on_cpu(launcher));
        let vms = by_vm.values().sum();
        Self { cpu: own + launcher + vms, own, launcher, vms, by_vm }
    }

    /// What was used since `before`, but by processes that have ended.
    pub(crate) fn since(self, before: &Self) -> Self {
        let was = |vm: &u32| before.by_vm.get(vm).copied().unwrap_or_default();
        let vms = self.by_vm.iter().map(|(vm, used)| used.saturating_sub(was(vm))).sum();
        let (own, launcher) = (self.own.saturating_sub(before.own), self.launcher - before.launcher);
        Self { cpu: own + launcher + vms, own, launcher, vms, by_vm: self.by_vm }
    }
}

/// The launcher and its children, oldest first.
pub(crate) fn children() -> (u32, Vec<u32>) {
    let launchers = children_of(std::process::id());
    assert_eq!(launchers.len(), 1, "one launcher");
    (launchers[0], children_of(launchers[0]))
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut born: Vec<_> = ids.filter_map(|id| Some((birth(id, parent)?, id))).collect();
    born.sort_unstable();
    born.into_iter().map(|(_, id)| id).collect()
}

/// When `id` began, ticks, if it is a child of `parent` (proc_pid_stat(5)).
fn birth(id: u32, parent: u32) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{id}/stat")).ok()?;
    // "pid (name) state ppid …"; the name may hold spaces and parentheses.
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if fields.get(1)?.parse() != Ok(parent) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Time on a CPU of a process with one thread; zero if it is gone.
fn on_cpu(id: u32) -> Duration {
    schedstat(&format!("/proc/{id}/schedstat"))
}

/// Time on a CPU of all threads that a process has now.
fn threads(id: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    tasks.map(|task| schedstat(&format!("{}/schedstat", task.path().display()))).sum()
}

/// The first number of a schedstat file (Documentation/scheduler/sched-stats.rst): nanoseconds.
fn schedstat(path: &str) -> Duration {
    let text = read_to_string(path).unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// Adds the lines of /proc/ID/smaps_rollup to `total`, MiB.
pub(crate) fn mebibytes(id: u32, total: &mut BTreeMap<String, f64>) {
    let text = read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.trim_end_matches(" kB").split_once(':'));
    for (key, value) in lines {
        if let Ok(kibibytes) = value.trim().parse::<f64>() {
            *total.entry(key.to_owned()).or_default() += kibibytes / 1024.0;
        }
    }
}

/// MemAvailable of this machine, MiB.
pub(crate) fn available() -> f64 {
    let text = read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
