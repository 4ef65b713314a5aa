//! Starts for which something is missing: they fail or find another way, cost nothing, and work again when it is back.

use std::fs::File;
use std::sync::atomic::AtomicBool;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir_pool::{Launcher, StartKind};
use weir_vmm::jail::{JailError, limits};
use weir_vmm::launcher::{Inherited, Setup};
use weir_vmm::{ExitReason, VmCommand, VmEvent, channel, machine};

use super::soak::{WIDTH, run, stop_when_ready};
use super::*;

/// Mode of a launcher whose /dev/kvm is none.
pub(crate) const KVMLESS: &str = "launcher-without-kvm";
/// Mode of a launcher whose children have no memory for a clone of a pool, but for all else.
pub(crate) const CLONELESS: &str = "launcher-without-clones";

pub(crate) fn a_kvm_that_makes_no_vms_fails_starts_and_costs_nothing() {
    run(KVMLESS, false, async |soak| {
        let fail = async || {
            // The child may say it before it has its order or after.
            let why = match soak.launcher.start(soak.order()).await {
                Err(error) => error.to_string(),
                Ok(mut vm) => match vm.next_event().await {
                    VmEvent::Exit(reason) => reason.to_string(),
                    other => panic!("{other:?}"),
                },
            };
            assert!(why.contains("create vm: "), "{why}");
        };
        fail().await;
        let before = soak.usage();
        for _ in 0..1200 {
            fail().await;
        }
        soak.usage().assert_like(&before);
    });
}

pub(crate) fn a_start_without_descriptors_fails_alone() {
    run("launcher", true, async |soak| {
        soak.cycles(WIDTH).await;
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut taken = Vec::new();
        // What others give back meanwhile is taken too.
        let error = loop {
            taken.extend(std::iter::from_fn(|| null.try_clone().ok()));
            if let Err(error) = soak.launcher.start(soak.order()).await {
                break error;
            }
        };
        drop(taken);
        setrlimit(Resource::Nofile, limit).unwrap();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {cause}").contains("Too many open files"), "{error}: {cause}");
        soak.cycles(WIDTH * 4).await;
        assert!(soak.usage().taps <= 64, "{:?}", soak.usage());
    });
}

pub(crate) fn clones_that_fail_boot_instead_until_they_work_again() {
    run(CLONELESS, true, async |soak| {
        let registry = &soak.registry;
        let made = |result| counted(registry, "weir_vm_templates_made_total", Some(result));
        let fallbacks = || counted(registry, "weir_vm_clone_fallbacks_total", None);
        let mut templates = soak.launcher.templates();
        // The guest serves all the same, and the template, which may be the cause, is given up.
        let vm = soak.launcher.start(soak.order()).await.unwrap();
        assert_eq!((vm.kind(), fallbacks()), (StartKind::Cold, 1.0));
        assert_eq!(*templates.borrow_and_update(), 0);
        stop_when_ready(vm).await;
        // Nor is there memory for another one: a memfd is what its making begins with.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
        while made("failed") == 0.0 {
            tokio::task::yield_now().await;
        }
        setrlimit(Resource::Nofile, limit).unwrap();
        templates.wait_for(|count| *count == 1).await.unwrap();

        soak.repair();
        // One of the launcher that dies may still be tried.
        let mut vm = soak.launcher.start(soak.order()).await;
        for _ in 0..WIDTH {
            if matches!(&vm, Ok(vm) if vm.kind() != StartKind::Cold) {
                break;
            }
            templates.wait_for(|count| *count == 1).await.unwrap();
            vm = soak.launcher.start(soak.order()).await;
        }
        let vm = vm.unwrap();
        assert_ne!(vm.kind(), StartKind::Cold);
        stop_when_ready(vm).await;
    });
}

/// Sum of a counter, over all its series or those of a result.
fn counted(registry: &Registry, name: &str, result: Option<&str>) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let series = family.map(|family| family.get_metric()).unwrap_or_default();
    let meant = |labels: &[prometheus::proto::LabelPair]| {
        result.is_none_or(|result| labels.iter().any(|label| label.value() == result))
    };
    series.iter().filter(|one| meant(one.get_label())).map(|one| one.get_counter().get_value()).sum()
}

/// A launcher whose children cannot make a VM.
pub(crate) fn kvmless_launcher() -> ! {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    launcher::run(Setup { kvm: Ok(null.into()), ..Setup::new().unwrap() })
}

/// A launcher whose children boot, and are canaries, but find no memory when they are to be a clone of a pool.
pub(crate) fn cloneless_launcher() -> ! {
    launcher::run(Setup { body: cloneless, filter: None, ..Setup::new().unwrap() })
}

/// This process, which becomes one VM, is to find no memory.
static NO_MEMORY: AtomicBool = AtomicBool::new(false);
/// Templates and canaries count from here.
const FIRST_TEMPLATE: u64 = 1 << 63;

fn cloneless(inherited: Inherited) -> ExitReason {
    poll(&mut [PollFd::new(&inherited.control, PollFlags::IN)], None).unwrap();
    let mut order = vec![0; channel::MESSAGE_MAX];
    let (length, _) = recv(&inherited.control, &mut order[..], RecvFlags::PEEK).unwrap();
    let clones = |order| matches!(order, VmCommand::Clone(order) if order.id.0 < FIRST_TEMPLATE);
    NO_MEMORY.store(postcard::from_bytes(&order[..length]).is_ok_and(clones), SeqCst);
    machine::serve(inherited.kvm, inherited.control, limit)
}

fn limit(guest_memory: u64) -> Result<(), JailError> {
    if NO_MEMORY.load(SeqCst) {
        let none = Rlimit { current: Some(0), ..getrlimit(Resource::As) };
        setrlimit(Resource::As, none).unwrap();
        return Ok(());
    }
    limits::set_memory(guest_memory)
}
