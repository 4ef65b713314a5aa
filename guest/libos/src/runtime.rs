//! The one instance of everything, its main loop, and what applications call.

use alloc::rc::Rc;
use core::cell::{Cell, OnceCell, RefCell};
use core::fmt::{self, Write};
use core::time::Duration;

use async_task::Task;
use weir_abi::control as abi;

use crate::boot::{self, Strings};
use crate::clock::{self, Instant};
use crate::executor::Executor;
use crate::generation::{Generation, addresses};
use crate::net::TcpListener;
use crate::net::receiver::Receiver;
use crate::net::rings::{self, DeviceError};
use crate::net::sockets::Sockets;
use crate::net::stack::Stack;
use crate::net::transmitter::Transmitter;
use crate::reclaim::{Advice, Reclaim};
use crate::text::Text;
use crate::timer::{Sleep, Timers};
use crate::{control, panic, trap};

/// Tasks that wake each other without end are interrupted this often to serve the network.
const SLICE: Duration = Duration::from_millis(1);

struct Runtime {
    strings: Strings<'static>,
    generation: Generation<Receiver, Transmitter>,
    executor: Executor,
    timers: Timers,
    sockets: Rc<RefCell<Sockets>>,
    ready: Cell<bool>,
    reclaim: RefCell<Reclaim>,
}

/// A value of the only thread there is.
struct Single<T>(OnceCell<T>);

// SAFETY: a weir guest has one virtual CPU and no preemption, and `boot`, which alone fills the cell, is called by the
// guest's entry point only: elsewhere (tests on the development machine) the cell stays empty.
unsafe impl<T> Sync for Single<T> {}

static RUNTIME: Single<Runtime> = Single(OnceCell::new());

fn runtime() -> &'static Runtime {
    RUNTIME.0.get().expect("the libOS boots before the application runs")
}

/// Why a network function failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// This VM has no network device.
    NoDevice,
    /// The device cannot be used.
    Device(DeviceError),
    /// Port 0, or one that has a listener already.
    PortInUse(u16),
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("this vm has no network device"),
            Self::Device(error) => write!(f, "network device: {error:?}"),
            Self::PortInUse(port) => write!(f, "port {port} is in use"),
        }
    }
}

impl core::error::Error for NetError {}

/// Brings everything up but the network, which comes with the first [`listen`].
#[cfg_attr(not(weir_guest), expect(dead_code, reason = "called by the entry point of images"))]
pub(crate) fn boot() {
    trap::install();
    let info = boot::info();
    if let Err(error) = boot::check(&info) {
        panic!("boot-info: {error:?}");
    }
    panic::init_heap(info.heap);
    panic::init_log();
    let strings = Strings::new(&info, boot::page()).unwrap_or_else(|error| panic!("boot-info: {error:?}"));
    let memory = usize::try_from(info.heap.end - info.heap.start).unwrap_or(usize::MAX);
    let runtime = Runtime {
        strings,
        generation: Generation::new(&info),
        // SAFETY: a weir guest has one thread.
        executor: unsafe { Executor::new() },
        timers: Timers::default(),
        // Three quarters for connections' buffers: most of it is never touched, but all of it must be there.
        sockets: Rc::new(RefCell::new(Sockets::new(memory / 4 * 3))),
        ready: Cell::new(false),
        reclaim: RefCell::default(),
    };
    if RUNTIME.0.set(runtime).is_err() {
        panic!("booted twice");
    }
}

/// Runs tasks and parks, for ever.
#[cfg_attr(not(weir_guest), expect(dead_code, reason = "called by the entry point of images"))]
pub(crate) fn run() -> ! {
    let runtime = runtime();
    loop {
        let start = now();
        if let Some(network) = runtime.generation.network.borrow_mut().as_mut() {
            network.receive(start);
        }
        runtime.timers.fire(start);
        while runtime.executor.run() > 0 && now().since(start) < SLICE {}
        let nanos = wait(runtime);
        let last = now();
        control::park(nanos);
        if boot::generation() != runtime.generation.number() {
            runtime.generation.renew(&boot::info(), last);
        }
    }
}

/// Queues what is to be sent; returns for how long there is nothing to do, in the terms of PARK.
fn wait(runtime: &Runtime) -> u64 {
    let now = now();
    let mut network = runtime.generation.network.borrow_mut();
    let network_deadline = network.as_mut().and_then(|network| {
        network.transmit(now);
        network.deadline(now)
    });
    if !runtime.executor.is_idle() {
        runtime.reclaim.borrow_mut().busy();
        return abi::PARK_YIELD;
    }
    let reclaim_deadline = reclaim(runtime, network.as_mut(), now);
    match network_deadline.into_iter().chain(runtime.timers.next()).chain(reclaim_deadline).min() {
        // A wait of 2^64-1 ns would read as "for ever", which after 584 years makes no difference.
        Some(deadline) => deadline.nanos().saturating_sub(now.nanos()),
        None => abi::PARK_FOREVER,
    }
}

/// Gives memory back to the host if the time has come; returns when to come back for that.
fn reclaim(
    runtime: &Runtime,
    mut network: Option<&mut Stack<Receiver, Transmitter>>,
    now: Instant,
) -> Option<Instant> {
    let mut sockets = runtime.sockets.borrow_mut();
    let mut reclaim = runtime.reclaim.borrow_mut();
    if !sockets.is_quiet() {
        reclaim.busy();
        return None;
    }
    let driver = network.as_mut().map_or(0, |network| network.discardable());
    let free = panic::heap_discardable() + sockets.discardable() + driver;
    match reclaim.quiet(now, runtime.ready.get(), free) {
        Advice::Nothing => None,
        Advice::At(deadline) => Some(deadline),
        Advice::Now => {
            sockets.discard(control::discard);
            if let Some(network) = network {
                network.discard(&mut control::discard);
            }
            panic::discard_heap();
            None
        }
    }
}

/// Runs `future` as a task. Dropping the returned handle cancels it; `detach` lets it run on by itself.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    runtime().executor.spawn(future)
}

/// Time since boot without what this VM spent frozen, from the time-stamp counter: no exit.
pub fn now() -> Instant {
    runtime().generation.clock().at(clock::ticks())
}

/// Time since 1970.
pub fn unix_time() -> Duration {
    runtime().generation.clock().unix(now())
}

/// Waits for `duration`; other tasks go on.
pub fn sleep(duration: Duration) -> Sleep {
    runtime().timers.at(now() + duration)
}

/// Keeps the CPU busy for `duration`; nothing else goes on in this VM.
pub fn busy_wait(duration: Duration) {
    let deadline = now() + duration;
    while now() < deadline {
        core::hint::spin_loop();
    }
}

/// The value of the environment variable `name`.
pub fn env(name: &str) -> Option<&'static str> {
    runtime().strings.env(name)
}

/// All environment variables.
pub fn vars() -> impl Iterator<Item = (&'static str, &'static str)> {
    runtime().strings.vars()
}

/// The arguments.
pub fn args() -> impl Iterator<Item = &'static str> {
    runtime().strings.args()
}

/// This VM's number, unique in one run of weir. Ask each time: it changes when this VM becomes another.
pub fn vm_id() -> u64 {
    boot::info().vm_id
}

/// Changes whenever this VM becomes another.
pub fn generation() -> u64 {
    runtime().generation.number()
}

/// Fills `bytes` from a cryptographic generator that is seeded anew for each generation.
pub fn fill_random(bytes: &mut [u8]) {
    runtime().generation.fill_random(bytes);
}

/// Heap in use, bytes.
pub fn heap_used() -> usize {
    panic::heap_used()
}

/// Listens on `port`. The first listener makes this VM READY: requests are let in.
///
/// # Errors
/// [`NetError`]
pub fn listen(port: u16) -> Result<TcpListener, NetError> {
    let runtime = runtime();
    start_network(runtime)?;
    let listener = TcpListener::bind(&runtime.sockets, port).ok_or(NetError::PortInUse(port))?;
    if !runtime.ready.replace(true) {
        control::ready();
    }
    Ok(listener)
}

fn start_network(runtime: &Runtime) -> Result<(), NetError> {
    let mut network = runtime.generation.network.borrow_mut();
    if network.is_some() {
        return Ok(());
    }
    let info = boot::info();
    if info.virtio_net == 0 {
        return Err(NetError::NoDevice);
    }
    let (receiver, transmitter) = rings::open(info.virtio_net, info.mtu).map_err(NetError::Device)?;
    let seed = runtime.generation.seed();
    let (link, ip) = addresses(&info);
    let sockets = Rc::clone(&runtime.sockets);
    *network = Some(Stack::new(receiver, transmitter, link, ip, seed, sockets));
    Ok(())
}

/// Ends this VM; the application is done.
pub fn exit(code: i32) -> ! {
    let mut message = Text::<16>::with_code(abi::exit::EXITED);
    // Text never fails; the longest number has 11 characters.
    let _ = write!(message, "{code}");
    control::exit(message.as_bytes())
}

/// Writes to where no memory is. For tests of weir.
pub fn fault() -> ! {
    // SAFETY: nothing is ever mapped there, so this changes nothing; the page fault ends this VM.
    unsafe { core::arch::asm!("mov [{}], {}", in(reg) 0x10u64, in(reg) 0u64, options(nostack)) };
    exit(1)
}

/// Stops the CPU in a way that no guest may: it ends as crashed. For tests of weir.
pub fn halt() -> ! {
    // SAFETY: `hlt` in ring 3 raises #GP, which ends this VM; in any case it changes nothing.
    unsafe { core::arch::asm!("hlt", options(nomem, nostack)) };
    exit(1)
}
