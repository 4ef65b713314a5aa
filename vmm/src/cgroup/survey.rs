//! Which controllers this process may use, where, and why not the others. Changes nothing.
//!
//! A controller belongs to one hierarchy: one of version 1, or that of version 2. On hosts with both ("hybrid") each
//! is looked for by itself.

use std::fmt;
use std::path::{Path, PathBuf};

use super::fs::Filesystem;
use super::mounts::{Membership, Mount, mounts};
use super::{CgroupError, Controller, Version};

/// The group that weir itself moves to in a hierarchy of version 2, where a group with processes of its own cannot
/// give controllers to groups within it.
pub(super) const LEAF: &str = "weir.main";

/// Where this process may make groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The version of its hierarchy.
    pub version: Version,
    /// The directory in which groups are made: this process's own group, or the one above its [`LEAF`].
    pub base: PathBuf,
}

/// Why a controller cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// No hierarchy has it.
    NotMounted,
    /// The kernel was booted without it.
    Disabled,
    /// This process's group, of version 2, does not have it.
    NotGiven(PathBuf),
    /// systemd owns this process's group.
    NotDelegated(PathBuf),
    /// This process's group has other processes.
    Shared(PathBuf),
    /// This process's group lies outside of what is mounted.
    OutOfSight(PathBuf),
    /// Groups cannot be made here.
    Forbidden(PathBuf),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted => f.write_str("not mounted"),
            Self::Disabled => f.write_str("disabled at boot"),
            Self::NotGiven(group) => write!(f, "not given to {}", group.display()),
            Self::NotDelegated(group) => write!(f, "{} is not delegated", group.display()),
            Self::Shared(group) => write!(f, "{} has other processes", group.display()),
            Self::OutOfSight(group) => write!(f, "group {} is not mounted here", group.display()),
            Self::Forbidden(group) => write!(f, "{} cannot be written", group.display()),
        }
    }
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Each of [`Controller::ALL`], in that order.
    pub controllers: [(Controller, Result<Place, Lack>); 3],
}

/// Looks around.
pub(super) fn survey(fs: &dyn Filesystem, own: i32) -> Result<Survey, CgroupError> {
    let read = |file: &str| {
        fs.read(Path::new(file)).map_err(|source| CgroupError::Read { file: file.into(), source })
    };
    let scene = Scene {
        fs,
        own,
        mounts: mounts(&read("/proc/self/mountinfo")?),
        membership: Membership::parse(&read("/proc/self/cgroup")?),
        kernel: read("/proc/cgroups").unwrap_or_default(),
    };
    Ok(Survey { controllers: Controller::ALL.map(|controller| (controller, scene.look_for(controller))) })
}

/// What a survey looks at.
struct Scene<'a> {
    fs: &'a dyn Filesystem,
    /// This process.
    own: i32,
    mounts: Vec<Mount>,
    membership: Membership,
    /// /proc/cgroups.
    kernel: String,
}

impl Scene<'_> {
    fn look_for(&self, controller: Controller) -> Result<Place, Lack> {
        let name = controller.name();
        if let Some(group) = self.membership.v1(name) {
            let candidates = self.mounts.iter().filter(|mount| mount.has(name));
            let base = self.writable(group, candidates)?;
            return Ok(Place { version: Version::V1, base });
        }
        if self.is_disabled(name) {
            return Err(Lack::Disabled);
        }
        let Some(group) = &self.membership.v2 else { return Err(Lack::NotMounted) };
        let mut candidates = self.mounts.iter().filter(|mount| mount.version == Version::V2).peekable();
        if candidates.peek().is_none() {
            return Err(Lack::NotMounted);
        }
        // What a weir that went to its leaf before (and became this one by exec) may use is the group above.
        let group = match group.parent() {
            Some(above) if group.ends_with(LEAF) => above,
            _ => group,
        };
        let base = self.writable(group, candidates)?;
        self.usable(&base, controller)?;
        Ok(Place { version: Version::V2, base })
    }

    /// The directory of `group` in the first of `mounts` that has it and can be written.
    fn writable<'m>(&self, group: &Path, mounts: impl Iterator<Item = &'m Mount>) -> Result<PathBuf, Lack> {
        let mut lack = None;
        for mount in mounts {
            let Some(directory) = mount.directory(group) else {
                lack.get_or_insert(Lack::OutOfSight(group.to_owned()));
                continue;
            };
            if self.fs.writable(&directory.join("cgroup.procs")).is_ok() {
                return Ok(directory);
            }
            lack = Some(Lack::Forbidden(directory));
        }
        Err(lack.unwrap_or(Lack::NotMounted))
    }

    /// Whether a group of version 2 can give `controller` to groups within it.
    fn usable(&self, base: &Path, controller: Controller) -> Result<(), Lack> {
        let given = self.fs.read(&base.join("cgroup.controllers")).unwrap_or_default();
        if !given.split_whitespace().any(|name| name == controller.name()) {
            return Err(Lack::NotGiven(base.to_owned()));
        }
        if self.fs.writable(&base.join("cgroup.subtree_control")).is_err() {
            return Err(Lack::Forbidden(base.to_owned()));
        }
        if self.is_root(base) {
            return Ok(());
        }
        if self.has_systemd() && !is_delegated(self.fs, base) {
            return Err(Lack::NotDelegated(base.to_owned()));
        }
        if strangers(self.fs, base, self.own) { Err(Lack::Shared(base.to_owned())) } else { Ok(()) }
    }

    /// The hierarchy's own root, in which processes are no obstacle, has no type.
    fn is_root(&self, base: &Path) -> bool {
        self.fs.read(&base.join("cgroup.type")).is_err()
    }

    /// sd_booted(3).
    fn has_systemd(&self) -> bool {
        self.fs.children(Path::new("/run/systemd/system")).is_ok()
    }

    /// /proc/cgroups: name, hierarchy, number of groups, enabled.
    fn is_disabled(&self, controller: &str) -> bool {
        let line = self.kernel.lines().find(|line| line.split_whitespace().next() == Some(controller));
        line.is_some_and(|line| line.split_whitespace().nth(3) == Some("0"))
    }
}

/// Delegation is marked on the group (systemd's "Control Group APIs and Delegation").
fn is_delegated(fs: &dyn Filesystem, group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| fs.attribute(group, name).as_deref() == Some(b"1"))
}

/// Whether `group` has processes that are neither `own` nor its children.
fn strangers(fs: &dyn Filesystem, group: &Path, own: i32) -> bool {
    processes(fs, group).len() > family(fs, group, own).len()
}

/// Those of `group`'s processes that are `own` or its children.
pub(super) fn family(fs: &dyn Filesystem, group: &Path, own: i32) -> Vec<i32> {
    let mut processes = processes(fs, group);
    processes.retain(|&pid| pid == own || is_child(fs, pid, own));
    processes
}

/// The processes of a group. 0 is one of another pid namespace: never its own, nor its child.
fn processes(fs: &dyn Filesystem, group: &Path) -> Vec<i32> {
    let text = fs.read(&group.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|line| line.trim().parse().unwrap_or(0)).collect()
}

/// Whether `pid` is a child of `parent`: proc_pid_status(5).
fn is_child(fs: &dyn Filesystem, pid: i32, parent: i32) -> bool {
    let status = fs.read(Path::new(&format!("/proc/{pid}/status"))).unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    found.is_some_and(|text| text.trim().parse() == Ok(parent))
}
