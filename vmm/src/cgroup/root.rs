//! The group of one weir, in which its VMs' groups are.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fs::{Filesystem, Host, Lock};
use super::pool::CgroupPool;
use super::survey::{LEAF, Place, Survey, family, survey};
use super::{CgroupError, Controller, Version};

/// What weir's groups are called, with its pid.
const PREFIX: &str = "weir-";

/// The controllers that this process may use.
#[derive(Debug)]
pub struct Cgroups {
    fs: Arc<dyn Filesystem>,
    /// This process.
    own: i32,
    /// At least one.
    usable: Vec<(Controller, Place)>,
}

/// One weir's group in one hierarchy.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) version: Version,
    pub(super) directory: PathBuf,
    /// What this hierarchy limits.
    pub(super) controllers: Vec<Controller>,
    _lock: Lock,
}

impl Cgroups {
    /// Looks for what there is, without changing anything.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn survey() -> Result<Survey, CgroupError> {
        survey(&Host, own_pid())
    }

    /// Finds the controllers that this process may use.
    ///
    /// # Errors
    /// [`CgroupError::Read`]; [`CgroupError::Unavailable`] if there is not one.
    pub fn detect() -> Result<Self, CgroupError> {
        Self::detect_on(Arc::new(Host), own_pid())
    }

    pub(super) fn detect_on(fs: Arc<dyn Filesystem>, own: i32) -> Result<Self, CgroupError> {
        let (mut usable, mut lacking) = (Vec::new(), Vec::new());
        for (controller, found) in survey(&*fs, own)?.controllers {
            match found {
                Ok(place) => usable.push((controller, place)),
                Err(lack) => lacking.push(format!("{} {lack}", controller.name())),
            }
        }
        if usable.is_empty() {
            return Err(CgroupError::Unavailable(lacking.join(", ")));
        }
        Ok(Self { fs, own, usable })
    }

    /// The controllers, for messages.
    pub fn controllers(&self) -> impl Iterator<Item = Controller> {
        self.usable.iter().map(|(controller, _)| *controller)
    }

    /// Makes the group of this weir, and removes those that weirs before it left behind empty. In a hierarchy of
    /// version 2 this process and its children move into a group beside it; call this before there are VMs.
    ///
    /// # Errors
    /// [`CgroupError::StepAside`], [`CgroupError::Make`], [`CgroupError::Write`].
    pub fn open_root(self) -> Result<CgroupPool, CgroupError> {
        let mut places: Vec<(Place, Vec<Controller>)> = Vec::new();
        for (controller, place) in self.usable {
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, controllers)) => controllers.push(controller),
                None => places.push((place, vec![controller])),
            }
        }
        let name = format!("{PREFIX}{}", self.own);
        let mut roots = Vec::new();
        for (place, controllers) in places {
            sweep(&*self.fs, &place.base);
            if place.version == Version::V2 {
                give(&*self.fs, &place.base, &controllers, self.own)?;
            }
            roots.push(make(&*self.fs, &place, &name, controllers)?);
        }
        Ok(CgroupPool::new(self.fs, roots))
    }
}

fn make(
    fs: &dyn Filesystem,
    place: &Place,
    name: &str,
    controllers: Vec<Controller>,
) -> Result<Root, CgroupError> {
    let directory = place.base.join(name);
    let made = || {
        match fs.make(&directory) {
            // This very process's, from before an exec; or a dead one's with its pid, with processes still.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made?,
        }
        fs.lock(&directory)
    };
    let lock = made().map_err(|source| CgroupError::Make { group: directory.clone(), source })?;
    remove_children(fs, &directory);
    let root = Root { version: place.version, directory, controllers, _lock: lock };
    match root.version {
        Version::V2 => enable(fs, &root.directory, &root.controllers)?,
        Version::V1 if root.controllers.contains(&Controller::Cpu) => weigh(fs, &root.directory)?,
        Version::V1 => {}
    }
    Ok(root)
}

/// In version 1 the group competes with each single thread of weir, and its weight is divided by the CPUs on which it
/// runs: so it gets a thread's weight for each CPU.
fn weigh(fs: &dyn Filesystem, directory: &Path) -> Result<(), CgroupError> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(256));
    let (file, text) = (directory.join("cpu.shares"), format!("{}\n", 1024 * cpus));
    fs.write(&file, &text).map_err(|source| CgroupError::Write { file, text, source })
}

/// Gives `controllers` to the groups in `group`.
fn enable(fs: &dyn Filesystem, group: &Path, controllers: &[Controller]) -> Result<(), CgroupError> {
    let names: Vec<String> = controllers.iter().map(|controller| format!("+{}", controller.name())).collect();
    let (file, text) = (group.join("cgroup.subtree_control"), names.join(" "));
    fs.write(&file, &text).map_err(|source| CgroupError::Write { file, text, source })
}

/// Gives `controllers` to the groups in weir's own group `base`, which must have no processes for that: they go to
/// the leaf, and come back if it was in vain.
fn give(fs: &dyn Filesystem, base: &Path, controllers: &[Controller], own: i32) -> Result<(), CgroupError> {
    // The root of the hierarchy may have processes, and they can stay.
    if fs.read(&base.join("cgroup.type")).is_err() {
        return enable(fs, base, controllers);
    }
    let leaf = base.join(LEAF);
    let family = family(fs, base, own);
    let step_aside = || -> io::Result<()> {
        match fs.make(&leaf) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        family.iter().try_for_each(|&pid| move_to(fs, &leaf, pid))
    };
    let given = step_aside()
        .map_err(|source| CgroupError::StepAside { group: leaf.clone(), source })
        .and_then(|()| enable(fs, base, controllers));
    if given.is_err() {
        // Best effort: in the leaf nothing is lost either.
        for pid in family {
            let _ = move_to(fs, base, pid);
        }
        let _ = fs.remove(&leaf);
    }
    given
}

/// A process that has ended needs no moving.
fn move_to(fs: &dyn Filesystem, group: &Path, pid: i32) -> io::Result<()> {
    match fs.write(&group.join("cgroup.procs"), &format!("{pid}\n")) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        moved => moved,
    }
}

/// Removes the groups of dead weirs. Those of living ones are locked. Best effort: one that cannot be removed now, for
/// it has processes still, is there for the next weir.
fn sweep(fs: &dyn Filesystem, base: &Path) {
    for name in fs.children(base).unwrap_or_default() {
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<i32>().ok());
        // A weir that has just made its group may not have locked it yet.
        if pid.is_some_and(|pid| fs.read(Path::new(&format!("/proc/{pid}/status"))).is_err()) {
            let group = base.join(name);
            if let Ok(_lock) = fs.lock(&group) {
                remove_children(fs, &group);
                let _ = fs.remove(&group);
            }
        }
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Best effort, as [`sweep`].
fn remove_children(fs: &dyn Filesystem, group: &Path) {
    for child in fs.children(group).unwrap_or_default() {
        let _ = fs.remove(&group.join(child));
    }
}
