//! Rolling replacement of a pool's VMs: by a new image, or by clean VMs of the same.
//!
//! ```text
//!          restart             made, canary passed          all replaced
//!  (none) --------> preparing --------------------> rolling ------------> (done)
//!                      |                               | a new VM fails before it has lasted
//!                      | cannot be made                v
//!                      v                           returning --old ones are back--> (rolled back)
//!                   (failed)
//! ```
//!
//! Two revisions exist at most: the one that VMs are started from, and while there is a rollout the one that it comes
//! from or would go to. No lease is ever cut: VMs are taken out of choice and end when their last lease does, which
//! the rollout does not wait for. What is done next is decided by the pure [`step()`].

mod drains;
mod outcome;
mod step;

use tokio::sync::oneshot;

pub(crate) use drains::Drains;
pub use outcome::{Draining, Replaced, RestartError, Restarting};
pub(crate) use step::{Step, View, VmView, step};

use crate::launcher::Revision;

/// How a rollout ended.
pub(crate) type Outcome = Result<Replaced, RestartError>;

/// A pool's revisions, and the rollout if there is one.
#[derive(Debug)]
pub(crate) struct Rollout {
    /// What VMs are started from.
    revision: Revision,
    /// The highest number that a revision ever had.
    last: Revision,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    stage: Stage,
    reply: oneshot::Sender<Outcome>,
}

/// Where in the rollout, see the module's documentation.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// This revision is being made.
    Preparing(Revision),
    /// VMs of another revision than the current one are replaced.
    Rolling(Rolling),
    /// The same, to the revision that was current before, since VMs of the other one failed.
    Returning { rolling: Rolling, reason: String },
}

/// A replacement that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Rolling {
    /// Where it comes from.
    pub(crate) from: Revision,
    /// VMs that there are to be.
    pub(crate) target: u32,
    /// See [`View::proven`].
    pub(crate) proven: bool,
    /// The image is another one.
    pub(crate) image_changed: bool,
    /// VMs taken out so far.
    pub(crate) replaced: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { revision: Revision::FIRST, last: Revision::FIRST, active: None }
    }
}

impl Rollout {
    /// What VMs are started from.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// One word for where it is; `None`: there is no rollout.
    pub(crate) fn stage(&self) -> Option<&'static str> {
        self.active.as_ref().map(|active| match active.stage {
            Stage::Preparing(_) => "preparing",
            Stage::Rolling(_) => "rolling",
            Stage::Returning { .. } => "returning",
        })
    }

    /// Begins one: the revision that has to be made, and who will hear of its end. `None`: one is under way.
    pub(crate) fn begin(&mut self) -> Option<(Revision, oneshot::Receiver<Outcome>)> {
        if self.active.is_some() {
            return None;
        }
        self.last = Revision(self.last.0 + 1);
        let (reply, outcome) = oneshot::channel();
        self.active = Some(Active { stage: Stage::Preparing(self.last), reply });
        Some((self.last, outcome))
    }

    /// `revision` has been made: from now on VMs are started from it, and `target` VMs of the earlier one are to be
    /// replaced. Whether that was waited for.
    pub(crate) fn made(&mut self, revision: Revision, target: u32, image_changed: bool) -> bool {
        let Some(active) = &mut self.active else { return false };
        if !matches!(active.stage, Stage::Preparing(awaited) if awaited == revision) {
            return false;
        }
        let from = std::mem::replace(&mut self.revision, revision);
        active.stage = Stage::Rolling(Rolling { from, target, proven: false, image_changed, replaced: 0 });
        true
    }

    /// VMs of the current revision fail, for `reason`: the one before is current again. Whether there is one.
    pub(crate) fn turn_back(&mut self, reason: String) -> bool {
        let Some(active) = &mut self.active else { return false };
        let Stage::Rolling(rolling) = &active.stage else { return false };
        let from = std::mem::replace(&mut self.revision, rolling.from);
        let rolling = Rolling { from, proven: true, ..rolling.clone() };
        active.stage = Stage::Returning { rolling, reason };
        true
    }

    /// The replacement that is under way, in whichever direction.
    pub(crate) fn rolling(&mut self) -> Option<&mut Rolling> {
        match &mut self.active.as_mut()?.stage {
            Stage::Preparing(_) => None,
            Stage::Rolling(rolling) | Stage::Returning { rolling, .. } => Some(rolling),
        }
    }

    /// Whether VMs are being replaced, in whichever direction.
    pub(crate) fn is_rolling(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !matches!(active.stage, Stage::Preparing(_)))
    }

    /// Whether VMs of `revision` are on trial; with it whether they have lasted before.
    pub(crate) fn on_trial(&self, revision: Revision) -> Option<bool> {
        match &self.active.as_ref()?.stage {
            Stage::Rolling(rolling) if revision == self.revision => Some(rolling.proven),
            _ => None,
        }
    }

    /// Everything is replaced; how that ended.
    pub(crate) fn replaced(&mut self) -> Option<&'static str> {
        let revision = self.revision;
        let outcome = match &self.active.as_ref()?.stage {
            Stage::Preparing(_) => return None,
            Stage::Rolling(Rolling { image_changed, replaced, .. }) => {
                Ok(Replaced { revision, image_changed: *image_changed, vms: *replaced })
            }
            Stage::Returning { reason, .. } => Err(RestartError::RolledBack { reason: reason.clone() }),
        };
        self.end(outcome)
    }

    /// Ends whatever there is; the word for it.
    pub(crate) fn end(&mut self, outcome: Outcome) -> Option<&'static str> {
        let active = self.active.take()?;
        let word = match outcome {
            Ok(_) => "done",
            Err(RestartError::RolledBack { .. }) => "rolled_back",
            Err(_) => "failed",
        };
        // Whoever asked may have gone away meanwhile.
        drop(active.reply.send(outcome));
        Some(word)
    }
}
