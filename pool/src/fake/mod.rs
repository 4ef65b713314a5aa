//! A launcher whose VMs do what a script says, in tokio's time: for tests of pools, and of what stands on them.
//!
//! A test holds the [`FakeLauncher`] that its pools start VMs with: by it it sees what they do, and has things happen.

mod config;
mod launcher;
mod process;
mod script;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_vmm::{ExitReason, VmEvent, VmId};

use crate::launcher::{Prepared, Revision};

pub use config::{config, pool, signal};
use process::Command;
pub use script::{Ailment, Boot, Report, Reset, Script};

/// See the module's documentation.
#[derive(Debug)]
pub struct FakeLauncher {
    vms: Arc<Mutex<Vms>>,
}

#[derive(Debug)]
struct Vms {
    usual: Script,
    next: VecDeque<Script>,
    started: Vec<Started>,
    /// What VMs of a later revision than the first do, where that is not usual.
    revisions: BTreeMap<Revision, Script>,
    /// How new revisions come about, in order, `None` by a panic; where there is none left: at once.
    preparations: VecDeque<(Duration, Option<Result<Prepared, String>>)>,
    settled: Vec<Revision>,
    /// Images that cannot be read.
    refused_images: BTreeSet<String>,
    /// Pools that were added while others ran, and not removed.
    known: BTreeSet<String>,
    resets: BTreeMap<VmId, u32>,
    /// Those that nothing ends.
    stuck: BTreeSet<VmId>,
    ailments: BTreeMap<VmId, Ailment>,
    checked: Vec<(VmId, Instant)>,
    alive: BTreeMap<VmId, (String, mpsc::UnboundedSender<Command>)>,
}

/// A start that was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Of which VM.
    pub id: VmId,
    /// For which pool.
    pub pool: String,
    /// By its image.
    pub image: String,
    /// From which revision.
    pub revision: Revision,
    /// When.
    pub at: Instant,
}

impl FakeLauncher {
    /// A launcher whose VMs do what `usual` says, unless [`Self::script_next`] says otherwise.
    pub fn new(usual: Script) -> Arc<Self> {
        let vms = Vms {
            usual,
            next: VecDeque::new(),
            started: Vec::new(),
            revisions: BTreeMap::new(),
            preparations: VecDeque::new(),
            settled: Vec::new(),
            refused_images: BTreeSet::new(),
            known: BTreeSet::new(),
            resets: BTreeMap::new(),
            stuck: BTreeSet::new(),
            ailments: BTreeMap::new(),
            checked: Vec::new(),
            alive: BTreeMap::new(),
        };
        Arc::new(Self { vms: Arc::new(Mutex::new(vms)) })
    }

    /// What the next VM (after those already scripted) does.
    pub fn script_next(&self, script: Script) {
        self.vms.lock().next.push_back(script);
    }

    /// Forgets the scripts that no VM has used yet.
    pub fn forget_scripts(&self) {
        self.vms.lock().next.clear();
    }

    /// What all VMs without a script of their own do from now on.
    pub fn script_usual(&self, script: Script) {
        self.vms.lock().usual = script;
    }

    /// What VMs of `revision` do, unless [`Self::script_next`] says otherwise.
    pub fn script_revision(&self, revision: Revision, script: Script) {
        self.vms.lock().revisions.insert(revision, script);
    }

    /// How the next new revision (after those already scripted) comes about, and how long that takes.
    pub fn prepare_next(&self, after: Duration, made: Result<Prepared, String>) {
        self.vms.lock().preparations.push_back((after, Some(made)));
    }

    /// The next new revision (after those already scripted) meets a bug of the launcher.
    pub fn prepare_next_panics(&self) {
        self.vms.lock().preparations.push_back((Duration::ZERO, None));
    }

    /// From now on no pool of this image can be added.
    pub fn refuse_image(&self, image: &str) {
        self.vms.lock().refused_images.insert(image.to_owned());
    }

    /// Pools that were added after the start and not removed again, by name.
    pub fn added(&self) -> Vec<String> {
        self.vms.lock().known.iter().cloned().collect()
    }

    /// The revisions that were settled on, in order.
    pub fn settled(&self) -> Vec<Revision> {
        self.vms.lock().settled.clone()
    }

    /// All starts so far, in order.
    pub fn started(&self) -> Vec<Started> {
        self.vms.lock().started.clone()
    }

    /// How often a VM has gone back to its snapshot.
    pub fn resets(&self, id: VmId) -> u32 {
        self.vms.lock().resets.get(&id).copied().unwrap_or(0)
    }

    /// Processes of `pool` that exist.
    pub fn alive(&self, pool: &str) -> Vec<VmId> {
        let vms = self.vms.lock();
        vms.alive.iter().filter(|(_, (name, _))| name == pool).map(|(id, _)| *id).collect()
    }

    /// Ends a VM for `reason`.
    pub fn crash(&self, id: VmId, reason: ExitReason) {
        self.say(id, VmEvent::Exit(reason));
    }

    /// From now on a VM neither listens nor can be killed, as a process that is stuck in the kernel.
    pub fn stick(&self, id: VmId) {
        self.vms.lock().stuck.insert(id);
    }

    /// From now on something is wrong with a VM, or nothing.
    pub fn set_ailment(&self, id: VmId, ailment: Option<Ailment>) {
        let ailments = &mut self.vms.lock().ailments;
        match ailment {
            Some(ailment) => drop(ailments.insert(id, ailment)),
            None => drop(ailments.remove(&id)),
        }
    }

    /// All health checks so far, in order.
    pub fn checked(&self) -> Vec<(VmId, Instant)> {
        self.vms.lock().checked.clone()
    }

    /// Lets a VM say something.
    pub fn say(&self, id: VmId, event: VmEvent) {
        if let Some((_, commands)) = self.vms.lock().alive.get(&id) {
            // A process that has ended listens no more.
            let _ = commands.send(Command::Say(event));
        }
    }
}
