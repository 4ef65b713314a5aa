//! TCP sockets: who owns which, and where listening ones come from.
//!
//! ```text
//!             admit(SYN)            handshake done           accept             drop
//!  free/new ────────────> spare ──> pending ──────> accepted ───────> stream ───────> closing ──> free
//!                        (LISTEN)  (SYN-RECEIVED)                                  (.. TIME-WAIT)
//! ```
//!
//! smoltcp has no backlog: a SYN that finds no listening socket is answered by a reset. So each SYN is looked at
//! *before* the stack gets it, and a listening socket is put in its way ([`Sockets::admit`]). That beats a stock of
//! spare sockets: every socket costs time on every poll, and memory for its buffers. At the limit a SYN is dropped,
//! so that the client tries again, unless a socket in TIME-WAIT can be cut short.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::task::Waker;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use super::block::{self, Block, Sizes};
use super::syn::Syn;

/// So many free connections keep their memory: the ones that were used last, whose pages are warm.
const WARM: usize = 2;
/// An idle connection is probed after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A peer that answers nothing for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(75);
/// A connection that the application has dropped may take so long to end.
const LINGER: Duration = Duration::from_secs(10);

struct Listening {
    port: u16,
    spare: Option<SocketHandle>,
    pending: Vec<SocketHandle>,
    accepted: VecDeque<SocketHandle>,
    waker: Option<Waker>,
}

struct Closing {
    handle: SocketHandle,
    deadline: Option<Instant>,
}

/// A socket that nobody uses.
struct Free {
    socket: Socket<'static>,
    block: Block,
    /// It was used since its block was last discarded.
    dirty: bool,
}

/// All sockets of the guest.
pub(crate) struct Sockets {
    pub(super) set: SocketSet<'static>,
    listening: Vec<Listening>,
    closing: VecDeque<Closing>,
    /// The last one used is on top.
    free: Vec<Free>,
    /// Which block belongs to which socket of the set.
    blocks: Vec<(SocketHandle, Block)>,
    sizes: Sizes,
    limit: usize,
}

/// What to do with a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Give it to the stack.
    Deliver,
    /// Drop it: no socket to be had now.
    Drop,
}

impl Sockets {
    /// No sockets, and room for so many as `memory` bytes hold buffers for.
    pub(crate) fn new(memory: usize) -> Self {
        let sizes = Sizes::new(memory);
        Self {
            set: SocketSet::new(Vec::new()),
            listening: Vec::new(),
            closing: VecDeque::new(),
            free: Vec::new(),
            blocks: Vec::new(),
            sizes,
            limit: (memory / sizes.total()).max(1),
        }
    }

    /// Listens on `port`; false: it is taken.
    pub(super) fn listen(&mut self, port: u16) -> bool {
        if port == 0 || self.listening.iter().any(|listening| listening.port == port) {
            return false;
        }
        let accepted = VecDeque::new();
        self.listening.push(Listening { port, spare: None, pending: Vec::new(), accepted, waker: None });
        true
    }

    /// Stops listening on `port`; connections that nobody has accepted are reset.
    pub(super) fn unlisten(&mut self, port: u16) {
        let Some(at) = self.listening.iter().position(|listening| listening.port == port) else { return };
        let gone = self.listening.swap_remove(at);
        for handle in gone.spare.into_iter().chain(gone.pending).chain(gone.accepted) {
            self.socket(handle).abort();
            self.closing.push_back(Closing { handle, deadline: None });
        }
    }

    /// The next connection on `port`, or leaves `waker` to be woken for it.
    pub(super) fn accept(&mut self, port: u16, waker: &Waker) -> Option<SocketHandle> {
        let listening = self.listening.iter_mut().find(|listening| listening.port == port)?;
        let next = listening.accepted.pop_front();
        if next.is_none() {
            listening.waker = Some(waker.clone());
        }
        next
    }

    /// Ends a connection whose stream the application has dropped.
    pub(super) fn finish(&mut self, handle: SocketHandle) {
        self.socket(handle).close();
        self.closing.push_back(Closing { handle, deadline: None });
    }

    /// Forgets every connection without a word to its peer, which belongs to another VM. Streams of the application
    /// find theirs lost; sockets that merely listen go on.
    pub(super) fn abandon(&mut self, now: Instant) {
        for (_, socket) in self.set.iter_mut() {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            if socket.state() != State::Listen {
                silence(socket);
            }
        }
        for at in 0..self.listening.len() {
            for handle in core::mem::take(&mut self.listening[at].accepted) {
                self.recycle(handle);
            }
        }
        self.sort(now);
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.set.get_mut(handle)
    }

    /// Sees to it that `syn` finds a listening socket, if anyone listens.
    pub(crate) fn admit(&mut self, syn: Syn) -> Verdict {
        let Some(at) = self.listening.iter().position(|listening| listening.port == syn.port) else {
            return Verdict::Deliver;
        };
        match self.connection(syn) {
            // A new connection from the same port: what is left of the old one would only confuse it.
            Some((handle, State::TimeWait)) => self.cut_short(handle),
            Some(_) => return Verdict::Deliver,
            None => {}
        }
        if let Some(spare) = self.listening[at].spare {
            if self.socket(spare).state() == State::Listen {
                return Verdict::Deliver;
            }
            self.listening[at].pending.push(spare);
            self.listening[at].spare = None;
        }
        let Some(mut free) = self.take() else { return Verdict::Drop };
        if free.socket.listen(syn.port).is_err() {
            self.free.push(free);
            return Verdict::Drop;
        }
        let handle = self.set.add(free.socket);
        self.blocks.push((handle, free.block));
        self.listening[at].spare = Some(handle);
        Verdict::Deliver
    }

    /// Moves sockets on to where their states belong.
    pub(crate) fn sort(&mut self, now: Instant) {
        for at in 0..self.listening.len() {
            self.sort_listening(at);
        }
        for _ in 0..self.closing.len() {
            let Some(mut closing) = self.closing.pop_front() else { break };
            let deadline = *closing.deadline.get_or_insert(now + LINGER);
            let socket = self.socket(closing.handle);
            if is_over(socket) {
                self.recycle(closing.handle);
                continue;
            }
            if deadline <= now && socket.state() != State::TimeWait {
                socket.abort();
            }
            self.closing.push_back(closing);
        }
    }

    /// When [`Self::sort`] has something to do without a packet.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.closing.iter().filter_map(|closing| closing.deadline).min()
    }

    fn sort_listening(&mut self, at: usize) {
        if let Some(spare) = self.listening[at].spare.take_if(|spare| !is_listening(&self.set, *spare)) {
            self.listening[at].pending.push(spare);
        }
        let mut woken = false;
        for handle in core::mem::take(&mut self.listening[at].pending) {
            let socket = self.socket(handle);
            if is_over(socket) {
                self.recycle(handle);
            } else if matches!(socket.state(), State::SynReceived | State::Listen) {
                self.listening[at].pending.push(handle);
            } else {
                self.listening[at].accepted.push_back(handle);
                woken = true;
            }
        }
        if woken && let Some(waker) = self.listening[at].waker.take() {
            waker.wake();
        }
    }

    /// The socket that already has the connection which `syn` would open.
    fn connection(&self, syn: Syn) -> Option<(SocketHandle, State)> {
        self.set.iter().find_map(|(handle, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            let local = socket.local_endpoint()?;
            (local.port == syn.port && socket.remote_endpoint() == Some(syn.remote))
                .then_some((handle, socket.state()))
        })
    }

    fn cut_short(&mut self, handle: SocketHandle) {
        if let Some(at) = self.closing.iter().position(|closing| closing.handle == handle) {
            self.closing.remove(at);
            self.recycle(handle);
        }
    }

    fn recycle(&mut self, handle: SocketHandle) {
        let smoltcp::socket::Socket::Tcp(mut socket) = self.set.remove(handle);
        socket.abort();
        let at = self.blocks.iter().position(|(owner, _)| *owner == handle);
        let (_, block) = self.blocks.swap_remove(at.expect("every socket in the set has its block"));
        self.free.push(Free { socket, block, dirty: true });
    }

    fn take(&mut self) -> Option<Free> {
        if self.free.is_empty() && self.blocks.len() < self.limit {
            let (block, receive, send) = Block::allocate(self.sizes)?;
            let socket = Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
            return Some(Free { socket: configured(socket), block, dirty: false });
        }
        if self.free.is_empty() {
            let in_time_wait =
                |handle: &SocketHandle| self.set.get::<Socket<'_>>(*handle).state() == State::TimeWait;
            let oldest = self.closing.iter().map(|closing| closing.handle).find(in_time_wait)?;
            self.cut_short(oldest);
        }
        let free = self.free.pop()?;
        Some(Free { socket: configured(free.socket), ..free })
    }

    /// Whether no connection is open, in whatever state.
    pub(crate) fn is_quiet(&self) -> bool {
        self.set.iter().all(|(_, socket)| {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            socket.state() == State::Listen
        })
    }

    /// How many bytes [`Self::discard`] would give back at most.
    pub(crate) fn discardable(&self) -> usize {
        self.cold().iter().filter(|free| free.dirty).count() * self.sizes.total()
    }

    /// Calls `give` with start and length of memory whose contents nobody needs.
    pub(crate) fn discard(&mut self, give: impl FnMut(usize, usize)) {
        let mut blocks: Vec<_> =
            self.cold().iter().filter(|free| free.dirty).map(|free| free.block).collect();
        let count = self.cold().len();
        self.free[..count].iter_mut().for_each(|free| free.dirty = false);
        block::ranges(&mut blocks, self.sizes.total(), give);
    }

    fn cold(&self) -> &[Free] {
        &self.free[..self.free.len().saturating_sub(WARM)]
    }
}

fn configured(mut socket: Socket<'static>) -> Socket<'static> {
    socket.set_nagle_enabled(false);
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.set_timeout(Some(TIMEOUT));
    socket
}

/// Ends whatever connection `socket` has, without a reset to its peer.
fn silence(socket: &mut Socket<'static>) {
    socket.abort();
    // `abort` leaves a reset to be sent, of which `listen`, which begins with a clean socket, rids us. Any port will do.
    let _ = socket.listen(1);
    socket.close();
}

fn is_listening(set: &SocketSet<'static>, handle: SocketHandle) -> bool {
    set.get::<Socket<'_>>(handle).state() == State::Listen
}

/// Closed, and the reset that may be due is sent.
fn is_over(socket: &Socket<'_>) -> bool {
    socket.state() == State::Closed && socket.remote_endpoint().is_none()
}
