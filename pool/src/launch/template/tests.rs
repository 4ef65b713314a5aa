//! When a template is told of.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use prometheus::Registry;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, subscriber};

use super::*;

/// Whoever reads the log, and looks for the template at once.
struct Reader {
    templates: Arc<Templates>,
    found: Arc<AtomicBool>,
}

impl Subscriber for Reader {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.found.store(self.templates.revisions.with_template() == 1, SeqCst);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Else a VM that is started upon the message boots, and one that has booted cannot be reset.
#[test]
fn a_template_is_in_use_when_the_log_says_so() {
    let metrics = LaunchMetrics::register(&Registry::new()).unwrap();
    let revisions = Revisions::default();
    revisions.add(Arc::new(crate::fake::pool("p")), crate::launch::seal("p", b"image").unwrap(), true);
    let current = revisions.get("p").unwrap().current();
    let templates =
        Arc::new(Templates { revisions, in_use: watch::Sender::new(0), numbers: AtomicU64::new(0), metrics });
    let found = Arc::new(AtomicBool::new(false));
    let memory = pages::create("template", weir_vmm::memory::PAGE).unwrap();
    let template = Template { memory, state: Vec::new(), working_set: Vec::new() };
    subscriber::with_default(Reader { templates: templates.clone(), found: found.clone() }, || {
        templates.put("p", &current, make::Made { template, resident: 0 }, Instant::now(), BOOT);
    });
    assert!(found.load(SeqCst), "told of before it was there");
}
