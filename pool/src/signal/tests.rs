use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};
use weir_config::model::{Pool, Thousandths};
use weir_vmm::VmId;

use super::*;
use crate::fake;
use crate::lease::Start;
use crate::metrics::PoolMetrics;
use crate::pool::Instances;
use crate::vm::Order;

const SECOND: Duration = Duration::from_secs(1);

/// What each VM answers; `None`: nothing, until the timeout.
type Answers = Arc<Mutex<BTreeMap<SocketAddr, Option<f64>>>>;

/// A pool of VMs that exist for the signal only.
struct World {
    shared: Arc<Shared>,
    answers: Answers,
    asked: Arc<Mutex<Vec<SocketAddr>>>,
    metrics: PoolMetrics,
    vms: Vec<Arc<Vm>>,
    /// Of the VMs and of the owner, whom nobody plays.
    _inboxes: (mpsc::UnboundedReceiver<Order>, mpsc::UnboundedReceiver<crate::owner::Event>),
    task: Option<JoinHandle<()>>,
}

fn address(vm: u64) -> SocketAddr {
    ([10, 0, 0, 1], u16::try_from(vm).unwrap()).into()
}

impl World {
    fn new(count: u64, change: impl FnOnce(&mut Pool)) -> Self {
        let mut pool = fake::pool("p");
        pool.scale.max = 10;
        pool.signal = Some(fake::signal("jobs", Thousandths(10_000)));
        change(&mut pool);
        let metrics = PoolMetrics::register(&Registry::new()).unwrap();
        let (events, owner) = mpsc::unbounded_channel();
        let shared = Shared::new(Arc::new(pool), metrics.series("p"), events);
        let (orders, task) = mpsc::unbounded_channel();
        let vm = |id| {
            let (orders, shared) = (orders.clone(), shared.clone());
            Arc::new(Vm::new(VmId(id), address(id), Start::Cold, Instant::now(), orders, shared))
        };
        let vms: Vec<_> = (0..count).map(vm).collect();
        let (answers, asked) = (Answers::default(), Arc::default());
        let world = Self { shared, answers, asked, metrics, vms, _inboxes: (task, owner), task: None };
        world.set_ready(count);
        world
    }

    /// The first `count` VMs are ready, the others gone.
    fn set_ready(&self, count: u64) {
        self.shared.set_ready(self.vms[..usize::try_from(count).unwrap()].to_vec());
        let ready = u32::try_from(count).unwrap();
        self.shared.instances.send_replace(Instances { ready, ..Instances::default() });
    }

    fn answer(&self, vm: u64, value: Option<f64>) {
        self.answers.lock().insert(address(vm), value);
    }

    /// The first round is under way then.
    async fn start(&mut self) {
        let (shared, series) = (self.shared.clone(), self.metrics.signal("p"));
        let signal = shared.config().signal.clone().unwrap();
        let (answers, asked) = (self.answers.clone(), self.asked.clone());
        self.task = Some(tokio::spawn(async move {
            let timeout = signal.timeout;
            let ask = |address| {
                asked.lock().push(address);
                let answer = answers.lock().get(&address).copied().flatten();
                async move {
                    match answer {
                        Some(value) => Ok(value),
                        None => {
                            sleep(timeout).await;
                            Err(ScrapeError::Late(timeout))
                        }
                    }
                }
            };
            rounds(&shared, &series, &signal, ask).await;
        }));
        pass(Duration::ZERO).await;
    }

    fn wanted(&self) -> Option<u32> {
        self.shared.signalled.wanted(Instant::now())
    }

    fn weights(&self) -> Vec<u32> {
        self.vms.iter().map(|vm| vm.weight.load(Relaxed)).collect()
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn pass(time: Duration) {
    advance(time).await;
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_sum_of_all_vms_is_what_is_wanted_and_its_change_wakes_the_owner() {
    let mut world = World::new(3, |_| {});
    [12.0, 30.5, 0.0].iter().zip(0..).for_each(|(value, vm)| world.answer(vm, Some(*value)));
    world.start().await;
    world.shared.wake.notified().await;
    assert_eq!(world.wanted(), Some(5));
    assert_eq!(world.metrics.signal("p").value.get(), 42.5);
    assert_eq!(world.weights(), [NORMAL; 3], "not asked for");
    world.answer(2, Some(1e308));
    world.shared.wake.notified().await;
    assert_eq!(world.wanted(), Some(10), "never above max");
}

#[tokio::test(start_paused = true)]
async fn a_vm_is_asked_once_in_an_interval_and_nobody_where_there_is_none() {
    let mut world = World::new(2, |_| {});
    (0..2).for_each(|vm| world.answer(vm, Some(0.0)));
    world.start().await;
    pass(SECOND / 2).await;
    assert_eq!(world.asked(), 2);
    pass(SECOND / 2).await;
    assert_eq!(world.asked(), 4);
    world.set_ready(0);
    pass(SECOND).await;
    pass(100 * SECOND).await;
    assert_eq!(world.asked(), 4);
    assert_eq!(world.wanted(), None);
    world.set_ready(1);
    pass(Duration::ZERO).await;
    assert_eq!(world.asked(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_a_vm_told_counts_for_three_intervals_if_it_falls_silent() {
    let mut world = World::new(2, |_| {});
    (0..2).for_each(|vm| world.answer(vm, Some(20.0)));
    world.start().await;
    assert_eq!(world.wanted(), Some(4));
    world.answer(1, None);
    for _ in 0..5 {
        pass(SECOND / 2).await;
    }
    assert_eq!(world.wanted(), Some(4), "after two and a half intervals");
    for _ in 0..3 {
        pass(SECOND / 2).await;
    }
    assert_eq!(world.wanted(), Some(2), "the other one's");
    world.answer(0, None);
    for _ in 0..8 {
        pass(SECOND / 2).await;
    }
    assert_eq!(world.wanted(), None);
}

#[tokio::test(start_paused = true)]
async fn if_nobody_looks_any_more_nothing_is_wanted() {
    let mut world = World::new(1, |_| {});
    world.answer(0, Some(50.0));
    world.start().await;
    assert_eq!(world.wanted(), Some(5));
    world.task.take().unwrap().abort();
    pass(3 * SECOND).await;
    assert_eq!(world.wanted(), None);
}

#[tokio::test(start_paused = true)]
async fn any_number_of_silent_vms_does_not_keep_the_others_from_being_heard() {
    let mut world = World::new(1000, |_| {});
    world.answer(0, Some(20.0));
    world.start().await;
    // Sixteen batches, each of which has to wait; the one who talks is in the first.
    for _ in 0..4 {
        pass(SECOND / 2).await;
    }
    assert!(world.asked() < 1000);
    assert_eq!(world.wanted(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn weights_follow_where_they_are_to() {
    let mut world = World::new(4, |pool| {
        if let Some(signal) = &mut pool.signal {
            signal.weights = true;
        }
    });
    [10.0, 20.0, 30.0].iter().zip(0..).for_each(|(value, vm)| world.answer(vm, Some(*value)));
    world.start().await;
    pass(SECOND / 2).await;
    assert_eq!(world.weights(), [2000, 1000, 667, NORMAL], "the last has not told");
    world.answer(0, None);
    for _ in 0..8 {
        pass(SECOND / 2).await;
    }
    assert_eq!(world.weights()[0], NORMAL, "what it told is stale");
}

#[tokio::test(start_paused = true)]
async fn of_isolated_vms_only_those_with_a_tenant_are_asked() {
    let mut world = World::new(3, |pool| pool.isolation = Isolation::Connection);
    (0..3).for_each(|vm| world.answer(vm, Some(10.0)));
    assert!(world.vms[1].gate.occupy() && world.vms[2].gate.occupy());
    world.vms[2].gate.leave();
    world.start().await;
    assert_eq!(*world.asked.lock(), [address(1)], "neither the clean one nor the dirty one");
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_goes_before_its_turn_is_not_asked() {
    let count = AT_ONCE as u64 + 1;
    let mut world = World::new(count, |pool| pool.scale.max = 100);
    // The others keep the last one from its turn until they are late.
    world.answer(count - 1, Some(500.0));
    world.start().await;
    assert_eq!(world.asked(), AT_ONCE);
    world.vms.last().unwrap().set_gone();
    pass(SECOND).await;
    assert!(!world.asked.lock().contains(&address(count - 1)));
    assert_eq!(world.wanted(), None);
}
