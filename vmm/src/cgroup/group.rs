//! One VM's group: a directory in each hierarchy.

use std::io;
use std::path::PathBuf;

use super::fs::Filesystem;
use super::knobs::{self, CpuLimits, Knob};
use super::root::Root;
use super::{CgroupError, Controller};

/// Charged memory that an empty group may have and still be used again, bytes: the kernel returns what it took in
/// batches only when it takes the next one.
const RESIDUE: u64 = 2 << 20;

/// A group without a process, or with one.
#[derive(Debug)]
pub(super) struct Group {
    /// Its name in all hierarchies.
    number: u64,
    cpu: CpuLimits,
    /// Guest memory it is limited to, bytes.
    memory: Option<u64>,
}

/// What became of a group that was given back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has a process.
    Populated,
    /// As new.
    Clean,
    /// Something is left in it: memory, or limits that do not go.
    Spoilt,
}

impl Group {
    /// Makes one. What was made before a failure is removed.
    pub(super) fn make(fs: &dyn Filesystem, roots: &[Root], number: u64) -> Result<Self, CgroupError> {
        let group = Self { number, cpu: CpuLimits::default(), memory: None };
        for root in roots {
            let directory = group.directory(root);
            let made = fs.make(&directory).and_then(|()| {
                root.controllers
                    .iter()
                    .try_for_each(|&controller| knobs::initialize(fs, &directory, root.version, controller))
            });
            if let Err(source) = made {
                let _ = group.remove(fs, roots);
                return Err(CgroupError::Make { group: directory, source });
            }
        }
        Ok(group)
    }

    /// Removes it where it is. An error: it has a process still.
    pub(super) fn remove(&self, fs: &dyn Filesystem, roots: &[Root]) -> io::Result<()> {
        roots.iter().try_for_each(|root| match fs.remove(&self.directory(root)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    fn directory(&self, root: &Root) -> PathBuf {
        root.directory.join(self.number.to_string())
    }

    pub(super) fn add(&self, fs: &dyn Filesystem, roots: &[Root], pid: i32) -> Result<(), CgroupError> {
        roots.iter().try_for_each(|root| self.write(fs, root, ("cgroup.procs", format!("{pid}\n"))))
    }

    /// Limits it; what stays as it is is not written.
    pub(super) fn set(
        &mut self,
        fs: &dyn Filesystem,
        roots: &[Root],
        cpu: CpuLimits,
        memory: Option<u64>,
    ) -> Result<(), CgroupError> {
        for root in roots {
            for controller in &root.controllers {
                match controller {
                    Controller::Cpu => self.set_cpu(fs, root, cpu)?,
                    Controller::Memory if memory != self.memory => {
                        self.write(fs, root, knobs::memory(root.version, memory))?;
                        self.memory = memory;
                    }
                    Controller::Memory | Controller::Pids => {}
                }
            }
        }
        Ok(())
    }

    fn set_cpu(&mut self, fs: &dyn Filesystem, root: &Root, cpu: CpuLimits) -> Result<(), CgroupError> {
        if cpu.weight != self.cpu.weight {
            self.write(fs, root, knobs::weight(root.version, cpu.weight))?;
            self.cpu.weight = cpu.weight;
        }
        if cpu.quota != self.cpu.quota {
            self.write(fs, root, knobs::quota(root.version, cpu.quota))?;
            self.cpu.quota = cpu.quota;
        }
        Ok(())
    }

    /// Takes off all limits, if its process is gone.
    pub(super) fn reset(&mut self, fs: &dyn Filesystem, roots: &[Root]) -> State {
        for root in roots {
            match fs.read(&self.directory(root).join("cgroup.procs")) {
                Ok(processes) if processes.trim().is_empty() => {}
                Ok(_) => return State::Populated,
                Err(_) => return State::Spoilt,
            }
        }
        if roots.iter().any(|root| self.is_charged(fs, root))
            || self.set(fs, roots, CpuLimits::default(), None).is_err()
        {
            return State::Spoilt;
        }
        State::Clean
    }

    fn is_charged(&self, fs: &dyn Filesystem, root: &Root) -> bool {
        let file = || self.directory(root).join(knobs::charged(root.version));
        let charged = || fs.read(&file()).ok()?.trim().parse::<u64>().ok();
        root.controllers.contains(&Controller::Memory) && charged().is_none_or(|bytes| bytes > RESIDUE)
    }

    fn write(&self, fs: &dyn Filesystem, root: &Root, (file, text): Knob) -> Result<(), CgroupError> {
        let file = self.directory(root).join(file);
        fs.write(&file, &text).map_err(|source| CgroupError::Write { file, text, source })
    }
}
