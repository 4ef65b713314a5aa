//! Groups that are ready for VMs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fs::Filesystem;
use super::group::{Group, State};
use super::knobs::CpuLimits;
use super::root::Root;
use super::{CgroupError, Controller};

/// How many groups that still had their process are looked at again for one that is wanted.
const SECOND_LOOKS: usize = 4;

/// The groups of one weir's VMs. All leases and copies gone, the groups are removed.
#[derive(Clone, Debug)]
pub struct CgroupPool {
    groups: Arc<Groups>,
}

#[derive(Debug)]
struct Groups {
    fs: Arc<dyn Filesystem>,
    /// At least one; in each hierarchy the parent of all groups.
    roots: Vec<Root>,
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    idle: Vec<Group>,
    /// Given back while a process was still in them, or not to be removed for another reason.
    leaving: Vec<Group>,
    /// Number of the one that was made last.
    last: u64,
}

impl CgroupPool {
    pub(super) fn new(fs: Arc<dyn Filesystem>, roots: Vec<Root>) -> Self {
        // A weir that was here before by this process's pid may have left some with processes.
        let left = roots.iter().flat_map(|root| fs.children(&root.directory).unwrap_or_default());
        let last = left.filter_map(|name| name.parse().ok()).max().unwrap_or(0);
        let stock = Mutex::new(Stock { last, ..Stock::default() });
        Self { groups: Arc::new(Groups { fs, roots, stock }) }
    }

    /// What a group can limit, for messages.
    pub fn controllers(&self) -> impl Iterator<Item = Controller> {
        self.groups.roots.iter().flat_map(|root| root.controllers.iter().copied())
    }

    /// Makes groups until there are `count` idle ones.
    ///
    /// # Errors
    /// [`CgroupError::Make`].
    pub fn prepare(&self, count: usize) -> Result<(), CgroupError> {
        while self.groups.stock().idle.len() < count {
            let group = self.groups.make()?;
            self.groups.stock().idle.push(group);
        }
        Ok(())
    }

    /// Takes an idle group, or makes one if there is none.
    ///
    /// # Errors
    /// [`CgroupError::Make`].
    pub fn acquire(&self) -> Result<CgroupLease, CgroupError> {
        let idle = self.groups.stock().idle.pop();
        let group = match idle.or_else(|| self.groups.look_again()) {
            Some(group) => group,
            None => self.groups.make()?,
        };
        Ok(CgroupLease { groups: Arc::clone(&self.groups), group: Some(group) })
    }
}

/// One VM's group, from before its process has a VM until after the process's end.
#[derive(Debug)]
pub struct CgroupLease {
    groups: Arc<Groups>,
    /// Always there; taken out by drop.
    group: Option<Group>,
}

impl CgroupLease {
    /// Puts a process, with all its threads, into the group. May wait for 16 ms, and must not be called once the
    /// process can have ended and been reaped.
    ///
    /// # Errors
    /// [`CgroupError::Write`]; the process may then be in the group in some hierarchies and not in others.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        self.group().add(&*self.groups.fs, &self.groups.roots, pid)
    }

    /// Limits CPU time, and memory to what a guest of `guest_memory` bytes takes with all its process needs
    /// ([`super::OVERHEAD`]). What no controller is there for is not limited.
    ///
    /// # Errors
    /// [`CgroupError::Write`]; some of the limits may be set.
    pub fn set(&mut self, cpu: CpuLimits, guest_memory: u64) -> Result<(), CgroupError> {
        let Groups { fs, roots, .. } = &*self.groups;
        let group = self.group.as_mut().expect("only drop takes the group");
        group.set(&**fs, roots, cpu, Some(guest_memory))
    }

    fn group(&self) -> &Group {
        self.group.as_ref().expect("only drop takes the group")
    }
}

impl Drop for CgroupLease {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.groups.take_back(group);
        }
    }
}

impl Groups {
    /// Poisoned or not: what is behind it is valid after each statement.
    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Group, CgroupError> {
        let number = {
            let mut stock = self.stock();
            stock.last += 1;
            stock.last
        };
        Group::make(&*self.fs, &self.roots, number)
    }

    fn take_back(&self, mut group: Group) {
        match group.reset(&*self.fs, &self.roots) {
            State::Clean => self.stock().idle.push(group),
            State::Spoilt if group.remove(&*self.fs, &self.roots).is_ok() => {}
            State::Populated | State::Spoilt => self.stock().leaving.push(group),
        }
    }

    /// Takes back what left its group in the meantime, the longest gone first; answers one that became idle.
    fn look_again(&self) -> Option<Group> {
        let again: Vec<Group> = {
            let mut stock = self.stock();
            let count = stock.leaving.len().min(SECOND_LOOKS);
            stock.leaving.drain(..count).collect()
        };
        again.into_iter().for_each(|group| self.take_back(group));
        self.stock().idle.pop()
    }
}

impl Drop for Groups {
    /// Best effort: what has a process still is swept by the next weir.
    fn drop(&mut self) {
        let Stock { idle, leaving, .. } = std::mem::take(&mut *self.stock());
        for group in idle.into_iter().chain(leaving) {
            let _ = group.remove(&*self.fs, &self.roots);
        }
        for root in &self.roots {
            let _ = self.fs.remove(&root.directory);
        }
    }
}
