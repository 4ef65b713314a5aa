//! Keeps two streams that run against each other from blocking each other.
//!
//! pingora reads a response and writes the request's body in one loop, and while it writes it does not read. A VM that
//! sends the body back (or any answer that grows with it) stops reading when nobody takes its answer, and then each
//! waits for the other: with a guest's small buffers nearly every large echo ends so. Therefore connections for large
//! bodies and for tunnels do not go to pingora themselves, but one end of a socket pair does:
//!
//! ```text
//!  pingora --write--> pair --> up   --> TCP --> VM
//!  pingora <--read--- pair <-- down <-- TCP <-- VM
//! ```
//!
//! Both buffers are limited, with one exception: when `down` is full and pingora does not take from it, pingora may be
//! in a write, so `up` takes more. When `up` has grown so, nothing more is read from the client until it has shrunk
//! ([`Pace`], which the client's connection asks): pingora then has nothing to write, and takes the answer. So `up`
//! exceeds [`BEHIND`] by no more than what pingora had read already; [`UP_MAX`] is for what that should not be.
//!
//! The bridge also keeps pingora from ending a tunnel that has just begun. pingora has two futures in one task: one reads
//! the client and passes on that the request has no body, one reads the VM. If the second learns of the switch before it
//! learns of the body's end, it takes that for the end of the tunnel. So the VM's answer to a request for a tunnel is
//! held back until the client has been polled a few times more, and with it, in the same task, the other future.
//!
//! A tunnel over which nobody says anything for long ends here, too, since here both of its sides are heard.
//!
//! And it keeps a VM that is asked for a tunnel to the time that any answer may take. pingora has one limit for the answer
//! and for what follows, and a tunnel may be silent for long.
//!
//! When weir goes down, both ends of a WebSocket are told so, each between two frames, see [`websocket`].

use std::io;

use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::future::OptionFuture;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;
use super::websocket::{self, Frames, Side};

/// What either buffer normally holds at most, bytes.
const LIMIT: usize = 256 * 1024;
/// What `up` never exceeds by more than one read, bytes.
const UP_MAX: usize = 16 << 20;

/// From how much in `up` on nothing is read from the client, bytes.
const BEHIND: usize = 1 << 20;

/// How long a VM may take to hear that its WebSocket ends.
const LEAVE: Duration = Duration::from_millis(500);

/// Sets the client's reader free when the bridge ends, however it does.
struct SetFree(Pace);

impl Drop for SetFree {
    fn drop(&mut self) {
        self.0.set_behind(false);
    }
}

/// Why a bridge has ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// One of its ends has.
    Closed,
    /// Both were told that weir goes down.
    Left,
}

/// What goes over a bridge, and how far it is.
struct Crossing {
    up: BytesMut,
    down: BytesMut,
    /// Of a tunnel.
    frames_up: Frames,
    frames_down: Frames,
}

impl Crossing {
    fn new() -> Self {
        Self {
            up: BytesMut::with_capacity(LIMIT),
            down: BytesMut::with_capacity(LIMIT),
            frames_up: Frames::of(Side::Client),
            frames_down: Frames::of(Side::Vm),
        }
    }
}

/// pingora's end of a bridge to `tcp`. The bridge ends when one of the two does, or when `closed` resolves; if it is a
/// WebSocket's, also when `leaving` becomes true.
pub(super) fn bridge(
    tcp: TcpStream,
    closed: oneshot::Receiver<()>,
    leaving: watch::Receiver<bool>,
) -> io::Result<(UnixStream, Pace)> {
    let (ours, theirs) = UnixStream::pair()?;
    let pace = Pace::default();
    let guard = SetFree(pace.clone());
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = run(&tcp, &ours, &guard.0, leaving) => ended,
            // Whether by a message or by the sender's end.
            _ = closed => Ok(End::Closed),
        };
        match ended {
            Ok(End::Closed) => {}
            Ok(End::Left) => {
                drop(ours);
                // The VM would lose the news if its connection was closed with something unread.
                let _ = tokio::time::timeout(LEAVE, until_end(&tcp)).await;
            }
            Err(error) => tracing::debug!(%error, "bridge to vm broke"),
        }
    });
    Ok((theirs, pace))
}

async fn run(
    tcp: &TcpStream,
    pair: &UnixStream,
    pace: &Pace,
    mut leaving: watch::Receiver<bool>,
) -> io::Result<End> {
    let mut crossing = Crossing::new();
    let mut vm_ended = false;
    let mut heard = Instant::now();
    loop {
        let Crossing { up, down, frames_up, frames_down } = &mut crossing;
        flush(up, |bytes| tcp.try_write(bytes))?;
        flush(down, |bytes| pair.try_write(bytes))?;
        if vm_ended && down.is_empty() {
            return Ok(End::Closed);
        }
        let is_tunnel = pace.asks_tunnel();
        pace.set_behind(up.len() > BEHIND);
        pace.set_hungry(up.is_empty(), Instant::now);
        if up.len() > UP_MAX {
            return Err(io::Error::other("vm answers and does not read"));
        }
        // What could not be flushed was not taken.
        let take_up = up.len() < LIMIT || down.len() >= LIMIT;
        let take_down = !vm_ended && down.len() < LIMIT;
        let silent = pace.tunnel_silence().map(|silence| sleep_until(heard + silence));
        let late = pace.patience().filter(|_| take_down).map(|patience| sleep_until(heard + patience));
        tokio::select! {
            ready = pair.readable(), if take_up => {
                ready?;
                let before = up.len();
                if fill(up, |buffer| pair.try_read_buf(buffer))? {
                    return Ok(End::Closed);
                }
                // Known since before pingora's first byte.
                if pace.asks_tunnel() {
                    frames_up.pass(&up[before..]);
                }
                heard = Instant::now();
            }
            ready = tcp.readable(), if take_down => {
                ready?;
                pace.answer_free().await;
                let before = down.len();
                vm_ended = fill(down, |buffer| tcp.try_read_buf(buffer))?;
                if is_tunnel {
                    frames_down.pass(&down[before..]);
                }
                heard = Instant::now();
            }
            ready = tcp.writable(), if !up.is_empty() => ready?,
            ready = pair.writable(), if !down.is_empty() => {
                ready?;
                // Until now it may have been the client that kept the VM.
                heard = Instant::now();
            }
            () = told(&mut leaving), if is_tunnel => return leave(tcp, pair, crossing).await,
            Some(()) = OptionFuture::from(late) => if pace.miss() {
                return Err(io::ErrorKind::TimedOut.into());
            },
            Some(()) = OptionFuture::from(silent) => return Ok(End::Closed),
        }
    }
}

/// Resolves when WebSockets are to end; never, when nobody can say so any more.
async fn told(leaving: &mut watch::Receiver<bool>) {
    if leaving.wait_for(|leaving| *leaving).await.is_err() {
        std::future::pending().await
    }
}

/// Tells both ends of a WebSocket that it ends, each when the frame that is on its way to it is whole. A side that has
/// taken leave, or that speaks something else, is told nothing.
async fn leave(tcp: &TcpStream, pair: &UnixStream, crossing: Crossing) -> io::Result<End> {
    let Crossing { mut up, mut down, mut frames_up, mut frames_down } = crossing;
    let (mut told_vm, mut told_client) = (frames_up.is_opaque(), frames_down.is_opaque());
    loop {
        if !told_vm && frames_up.is_between() {
            up.extend_from_slice(&websocket::close_to_vm(rand::random()));
            told_vm = true;
        }
        if !told_client && frames_down.is_between() {
            down.extend_from_slice(&websocket::close_to_client());
            told_client = true;
        }
        flush(&mut up, |bytes| tcp.try_write(bytes))?;
        flush(&mut down, |bytes| pair.try_write(bytes))?;
        if told_vm && told_client && up.is_empty() && down.is_empty() {
            return Ok(End::Left);
        }
        tokio::select! {
            ready = pair.readable(), if !told_vm && up.len() < LIMIT => {
                ready?;
                told_vm = finish(&mut up, &mut frames_up, |buffer| pair.try_read_buf(buffer))?;
            }
            ready = tcp.readable(), if !told_client && down.len() < LIMIT => {
                ready?;
                told_client = finish(&mut down, &mut frames_down, |buffer| tcp.try_read_buf(buffer))?;
            }
            ready = tcp.writable(), if !up.is_empty() => ready?,
            ready = pair.writable(), if !down.is_empty() => ready?,
        }
    }
}

/// Takes more of the frame that is under way, and nothing behind it. Whether no frame will ever be put in behind it.
fn finish(
    buffer: &mut BytesMut,
    frames: &mut Frames,
    try_read: impl FnOnce(&mut BytesMut) -> io::Result<usize>,
) -> io::Result<bool> {
    let before = buffer.len();
    let ended = fill(buffer, try_read)?;
    let passed = frames.pass_to_end(&buffer[before..]);
    buffer.truncate(before + passed);
    Ok(ended || frames.is_opaque())
}

/// Says that nothing more comes, and takes what the other side says until it says the same.
async fn until_end(tcp: &TcpStream) -> io::Result<()> {
    rustix::net::shutdown(tcp, rustix::net::Shutdown::Write)?;
    let mut ignored = BytesMut::new();
    loop {
        tcp.readable().await?;
        if fill(&mut ignored, |buffer| tcp.try_read_buf(buffer))? {
            return Ok(());
        }
        ignored.clear();
    }
}

/// Writes as much as is taken now.
fn flush(buffer: &mut BytesMut, mut try_write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    while !buffer.is_empty() {
        match try_write(buffer) {
            Ok(written) => buffer.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads once; whether the stream has ended.
fn fill(
    buffer: &mut BytesMut,
    try_read: impl FnOnce(&mut BytesMut) -> io::Result<usize>,
) -> io::Result<bool> {
    buffer.reserve(64 * 1024);
    match try_read(buffer) {
        Ok(read) => Ok(read == 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::pace::TURNS;
    use super::*;

    const LONG: std::time::Duration = std::time::Duration::from_secs(60);

    async fn bridged() -> (UnixStream, TcpStream, oneshot::Sender<()>) {
        let (pingora, _, vm, close) = paced().await;
        (pingora, vm, close)
    }

    async fn paced() -> (UnixStream, Pace, TcpStream, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (vm, _) = listener.accept().await.unwrap();
        let (close, closed) = oneshot::channel();
        let (pingora, pace) = bridge(tcp, closed, watch::channel(false).1).unwrap();
        (pingora, pace, vm, close)
    }

    #[tokio::test]
    async fn a_writer_that_does_not_read_meanwhile_gets_through_to_an_echo() {
        const SIZE: usize = 12 << 20;
        let (mut pingora, mut vm, _close) = bridged().await;
        let echo = tokio::spawn(async move {
            let (mut from, mut to) = vm.split();
            tokio::io::copy(&mut from, &mut to).await
        });
        pingora.write_all(&vec![7; SIZE]).await.unwrap();
        let mut back = vec![0; SIZE];
        pingora.read_exact(&mut back).await.unwrap();
        assert!(back.iter().all(|byte| *byte == 7));
        drop(pingora);
        assert_eq!(echo.await.unwrap().unwrap(), SIZE as u64);
    }

    #[tokio::test]
    async fn a_vm_that_answers_and_never_reads_is_cut_off() {
        let (mut pingora, mut vm, _close) = bridged().await;
        let flood = tokio::spawn(async move { while vm.write_all(&[0; 65536]).await.is_ok() {} });
        let mut written = 0;
        while let Ok(wrote) = pingora.write(&[0; 65536]).await {
            written += wrote;
        }
        assert!(written < 2 * UP_MAX, "{written}");
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn what_the_vm_said_last_arrives_before_its_end() {
        let (mut pingora, mut vm, _close) = bridged().await;
        vm.write_all(b"bye").await.unwrap();
        drop(vm);
        let mut last = String::new();
        pingora.read_to_string(&mut last).await.unwrap();
        assert_eq!(last, "bye");
    }

    #[tokio::test]
    async fn closing_ends_a_bridge_that_is_stuck() {
        let (mut pingora, mut vm, close) = bridged().await;
        let writing = tokio::spawn(async move { while pingora.write_all(&[0; 65536]).await.is_ok() {} });
        drop(close);
        writing.await.unwrap();
        let mut rest = Vec::new();
        // The end may be a reset, since what was under way is lost.
        drop(vm.read_to_end(&mut rest).await);
    }

    #[tokio::test]
    async fn an_answer_that_is_held_comes_after_the_client_s_turns_or_late() {
        for turns in [TURNS, 0] {
            let (mut pingora, pace, mut vm, _close) = paced().await;
            pace.ask_switch(LONG, LONG);
            vm.write_all(b"101").await.unwrap();
            let reading = tokio::spawn(async move {
                let mut answer = [0; 3];
                pingora.read_exact(&mut answer).await.map(|_| answer)
            });
            let mut polled = 0;
            if turns > 0 {
                std::future::poll_fn(|cx| {
                    polled += 1;
                    pace.poll_free(cx)
                })
                .await;
            }
            assert_eq!(reading.await.unwrap().unwrap(), *b"101");
            assert_eq!(polled, if turns > 0 { TURNS + 1 } else { 0 });
        }
    }
}
