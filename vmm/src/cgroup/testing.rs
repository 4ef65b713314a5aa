//! A kernel for tests: as much of both cgroup versions as weir sees, with their rules.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::Version;
use super::fs::{Filesystem, Lock};

/// A host. Time stands still in it, so whatever is true stays so until a test changes it.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Mounted hierarchies by mount point.
    pub(super) hierarchies: BTreeMap<PathBuf, Version>,
    pub(super) groups: BTreeMap<PathBuf, Group>,
    /// Files that are no group's, such as those of /proc.
    pub(super) files: BTreeMap<PathBuf, String>,
    /// Processes that live.
    pub(super) alive: BTreeSet<i32>,
    /// Groups that another process holds the lock of.
    pub(super) locked: BTreeSet<PathBuf>,
    /// Every write, in order.
    pub(super) writes: Vec<(PathBuf, String)>,
    /// The next group whose path ends so cannot be made.
    pub(super) unmakeable: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) controllers: BTreeSet<String>,
    /// Version 2: what groups within it get.
    pub(super) subtree: BTreeSet<String>,
    pub(super) processes: Vec<i32>,
    /// Written values.
    pub(super) knobs: BTreeMap<String, String>,
    /// Bytes.
    pub(super) charged: u64,
    pub(super) delegated: bool,
    pub(super) read_only: bool,
}

fn error<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

fn split(file: &Path) -> (PathBuf, String) {
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    (file.parent().unwrap().to_owned(), name)
}

impl Kernel {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Mounts a hierarchy at `point`, whose root has `processes`.
    pub(super) fn mount(&self, version: Version, point: &str, controllers: &str, processes: &[i32]) {
        let mut state = self.state();
        state.hierarchies.insert(point.into(), version);
        state.alive.extend(processes);
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let group = Group { controllers, processes: processes.to_vec(), ..Group::default() };
        state.groups.insert(point.into(), group);
        let (kind, options) = match version {
            Version::V1 => ("cgroup", state.groups[Path::new(point)].controllers.iter().cloned().collect()),
            Version::V2 => ("cgroup2", Vec::new()),
        };
        let line = format!("1 1 0:1 / {point} rw - {kind} {kind} rw,{}\n", options.join(","));
        state.files.entry("/proc/self/mountinfo".into()).or_default().push_str(&line);
    }

    /// Says where process 1 is.
    pub(super) fn membership(&self, text: &str) {
        self.state().files.insert("/proc/self/cgroup".into(), text.to_owned());
    }

    pub(super) fn end(&self, pid: i32) {
        let mut state = self.state();
        state.alive.remove(&pid);
        state.groups.values_mut().for_each(|group| group.processes.retain(|&process| process != pid));
    }

    /// The written value of a group's file.
    pub(super) fn knob(&self, file: &str) -> Option<String> {
        let (group, name) = split(Path::new(file));
        self.state().groups.get(&group)?.knobs.get(&name).map(|text| text.trim().to_owned())
    }

    pub(super) fn processes(&self, group: &str) -> Vec<i32> {
        self.state().groups[Path::new(group)].processes.clone()
    }

    /// The groups below a directory.
    pub(super) fn below(&self, group: &str) -> Vec<String> {
        let state = self.state();
        let below = state.groups.keys().filter_map(|path| path.strip_prefix(group).ok());
        below.map(|path| path.display().to_string()).filter(|path| !path.is_empty()).collect()
    }
}

impl State {
    fn hierarchy(&self, group: &Path) -> (PathBuf, Version) {
        let (point, version) =
            self.hierarchies.iter().find(|(point, _)| group.starts_with(point)).expect("below a mount");
        (point.clone(), *version)
    }

    fn move_process(&mut self, group: &Path, pid: i32) -> io::Result<()> {
        let (point, version) = self.hierarchy(group);
        if !self.alive.contains(&pid) {
            return error(libc::ESRCH);
        }
        if version == Version::V2 && *group != point && !self.groups[group].subtree.is_empty() {
            return error(libc::EBUSY);
        }
        for (_, other) in self.groups.iter_mut().filter(|(path, _)| path.starts_with(&point)) {
            other.processes.retain(|&process| process != pid);
        }
        self.groups.get_mut(group).unwrap().processes.push(pid);
        Ok(())
    }

    fn give(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let is_root = self.hierarchies.contains_key(path);
        let group = self.groups.get_mut(path).unwrap();
        if !group.processes.is_empty() && !is_root {
            return error(libc::EBUSY);
        }
        for name in text.split_whitespace() {
            let name = name.strip_prefix('+').unwrap();
            if !group.controllers.contains(name) {
                return error(libc::ENOENT);
            }
            group.subtree.insert(name.to_owned());
        }
        Ok(())
    }

    /// Whether a group has this file.
    fn has(&self, path: &Path, name: &str) -> bool {
        let (point, version) = self.hierarchy(path);
        let Some(group) = self.groups.get(path) else { return false };
        match (version, name) {
            (_, "cgroup.procs") | (Version::V2, "cgroup.controllers" | "cgroup.subtree_control") => true,
            (Version::V2, "cgroup.type") => point != path,
            (Version::V1, "memory.max") | (Version::V2, "memory.limit_in_bytes") => false,
            _ => name.split_once('.').is_some_and(|(controller, _)| group.controllers.contains(controller)),
        }
    }
}

impl Filesystem for Kernel {
    fn read(&self, file: &Path) -> io::Result<String> {
        let state = self.state();
        if let Some(text) = state.files.get(file) {
            return Ok(text.clone());
        }
        let (path, name) = split(file);
        if let Some(pid) = path.strip_prefix("/proc").ok().and_then(|path| path.to_str()?.parse().ok()) {
            return if state.alive.contains(&pid) {
                Ok("PPid:\t0\n".to_owned())
            } else {
                error(libc::ENOENT)
            };
        }
        let Some(group) = state.groups.get(&path).filter(|_| state.has(&path, &name)) else {
            return error(libc::ENOENT);
        };
        Ok(match name.as_str() {
            "cgroup.procs" => group.processes.iter().map(|pid| format!("{pid}\n")).collect(),
            "cgroup.controllers" => group.controllers.iter().map(|name| format!("{name} ")).collect(),
            "cgroup.type" => "domain\n".to_owned(),
            "memory.current" | "memory.usage_in_bytes" => format!("{}\n", group.charged),
            _ => group.knobs.get(&name).cloned().unwrap_or_default(),
        })
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        self.writable(file)?;
        let (path, name) = split(file);
        let mut state = self.state();
        state.writes.push((file.to_owned(), text.to_owned()));
        match name.as_str() {
            "cgroup.procs" => state.move_process(&path, text.trim().parse().unwrap()),
            "cgroup.subtree_control" => state.give(&path, text),
            _ => {
                state.groups.get_mut(&path).unwrap().knobs.insert(name, text.to_owned());
                Ok(())
            }
        }
    }

    fn writable(&self, file: &Path) -> io::Result<()> {
        let (path, name) = split(file);
        let state = self.state();
        match state.groups.get(&path) {
            Some(group) if group.read_only => error(libc::EROFS),
            Some(_) if state.has(&path, &name) => Ok(()),
            _ => error(libc::ENOENT),
        }
    }

    fn make(&self, group: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.groups.contains_key(group) {
            return error(libc::EEXIST);
        }
        if state.unmakeable.as_ref().is_some_and(|end| group.to_str().unwrap().ends_with(end)) {
            return error(libc::EAGAIN);
        }
        let (_, version) = state.hierarchy(group);
        let Some(above) = state.groups.get(group.parent().unwrap()) else { return error(libc::ENOENT) };
        let controllers = match version {
            Version::V1 => above.controllers.clone(),
            Version::V2 => above.subtree.clone(),
        };
        state.groups.insert(group.to_owned(), Group { controllers, ..Group::default() });
        Ok(())
    }

    fn remove(&self, group: &Path) -> io::Result<()> {
        let mut state = self.state();
        let Some(found) = state.groups.get(group) else { return error(libc::ENOENT) };
        let has_children = state.groups.keys().any(|path| path.parent() == Some(group));
        if !found.processes.is_empty() || has_children {
            return error(libc::EBUSY);
        }
        state.groups.remove(group);
        Ok(())
    }

    fn children(&self, group: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.groups.contains_key(group) && !state.files.contains_key(group) {
            return error(libc::ENOENT);
        }
        let children = state.groups.keys().filter(|path| path.parent() == Some(group));
        Ok(children.map(|path| split(path).1).collect())
    }

    fn attribute(&self, group: &Path, name: &str) -> Option<Vec<u8>> {
        let delegated = self.state().groups.get(group)?.delegated;
        (delegated && name == "trusted.delegate").then(|| b"1".to_vec())
    }

    fn lock(&self, group: &Path) -> io::Result<Lock> {
        if self.state().locked.contains(group) { Err(ErrorKind::WouldBlock.into()) } else { Ok(Lock(None)) }
    }
}
