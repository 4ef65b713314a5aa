//! A pool that is to be another one while it is in use.
//!
//! What concerns the pool as a whole holds at once. What its VMs are made from holds for new VMs only when a revision
//! of them has been made, and has replaced the others, as in a restart; if that fails the pool stays what it was:
//!
//! ```text
//!  configure --same machines--> done
//!      | other machines
//!      v                  made: they are the pool's
//!   outdated --restart--> preparing ------------> rolling --> done
//!      ^                      | cannot be made       | fails: the former machines are the pool's again
//!      |                      v                      v
//!      |                   (stays outdated, until the next restart or configuration)
//!      +-- configured anew meanwhile
//! ```

use std::sync::Arc;

use weir_config::change::same_machines;
use weir_config::model::Pool;

use super::Owner;
use crate::rollout::Restarting;
use crate::scale::{Limits, Windows};

/// Which machines a pool should have, and which it had.
#[derive(Debug, Default)]
pub(super) struct Outdated {
    /// What the pool should be; `None`: what it is.
    wanted: Option<Arc<Pool>>,
    /// A replacement is to begin when there is none any more.
    due: bool,
    /// What the revision is made from that is being prepared.
    next: Option<Arc<Pool>>,
    /// What the revision was made from that is being replaced.
    former: Option<Arc<Pool>>,
}

impl Owner {
    /// From now on the pool is so.
    pub(super) fn configure(&mut self, new: Arc<Pool>) {
        let before = self.shared.config();
        self.outdated.due = !same_machines(&new, self.outdated.next.as_ref().unwrap_or(&before));
        self.outdated.wanted = Some(new);
        self.take_up(&before);
        self.replace_outdated();
    }

    /// Has what is outdated replaced, if that is due and nothing else is being replaced.
    pub(super) fn replace_outdated(&mut self) {
        if !self.outdated.due || self.shutdown.is_some() {
            return;
        }
        match self.restart() {
            // It goes on when nobody waits for it.
            Ok(restarting) => drop::<Restarting>(restarting),
            Err(error) => tracing::debug!(pool = self.shared.name, %error, "replacement waits"),
        }
    }

    /// What the next revision is to be made from.
    pub(super) fn next_machines(&mut self) -> Arc<Pool> {
        self.outdated.due = false;
        let next = self.outdated.wanted.clone().unwrap_or_else(|| self.shared.config());
        self.outdated.next = Some(next.clone());
        next
    }

    /// The revision that was being prepared is current.
    pub(super) fn machines_made(&mut self) {
        if let Some(next) = self.outdated.next.clone() {
            self.outdated.former = Some(self.shared.config());
            self.take_up(&next);
        }
    }

    /// The revision before is current again.
    pub(super) fn machines_failed(&mut self) {
        if let Some(former) = self.outdated.former.take() {
            self.take_up(&former);
        }
        self.outdated.next = None;
    }

    /// No revision is being prepared or replaced any more.
    pub(super) fn machines_settled(&mut self) {
        (self.outdated.next, self.outdated.former) = (None, None);
    }

    /// Nothing is to be replaced any more.
    pub(super) fn forget_outdated(&mut self) {
        self.outdated = Outdated::default();
    }

    /// The pool is what it should be, but of VMs that are made from what `machines`' are.
    fn take_up(&mut self, machines: &Pool) {
        let Some(wanted) = &self.outdated.wanted else { return };
        let config = match same_machines(wanted, machines) {
            true => wanted.clone(),
            false => Arc::new(wanted.with_machines_of(machines)),
        };
        let limits = Limits::of(&config);
        if (limits.stable_window, limits.panic_window)
            != (self.limits.stable_window, self.limits.panic_window)
        {
            // What was seen in other windows does not fit into these.
            self.windows = Windows::new(&limits);
        }
        self.limits = Arc::new(limits);
        self.share.configure(&config);
        self.shared.configure(config);
        // Their limits may be others.
        self.roster.tell_ready();
    }
}
