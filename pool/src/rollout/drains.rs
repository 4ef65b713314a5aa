//! Who waits for the VMs of some moment to be gone.

use tokio::sync::oneshot;
use weir_vmm::VmId;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Drains(Vec<Drain>);

#[derive(Debug)]
struct Drain {
    /// Not of these: all VMs from this one on.
    before: VmId,
    gone: oneshot::Sender<()>,
}

impl Drains {
    /// Resolves when all VMs before `before` are gone.
    pub(crate) fn add(&mut self, before: VmId) -> oneshot::Receiver<()> {
        // A client that asks again and again and goes away must not be remembered for each time.
        self.0.retain(|drain| !drain.gone.is_closed());
        let (gone, told) = oneshot::channel();
        self.0.push(Drain { before, gone });
        told
    }

    /// Tells those for whom `is_past` says that no such VM is left.
    pub(crate) fn tell(&mut self, is_past: impl Fn(VmId) -> bool) {
        for drain in self.0.extract_if(.., |drain| is_past(drain.before)) {
            // Whoever asked may have gone away meanwhile.
            let _ = drain.gone.send(());
        }
    }
}
