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
//! And it keeps a VM that is asked for a tunnel to the time that any answer may take. pingora has one limit for the answer
//! and for what follows, and a tunnel may be silent for long.

use std::io;

use bytes::{Buf, BytesMut};
use futures::future::OptionFuture;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::pace::Pace;

/// What either buffer normally holds at most, bytes.
const LIMIT: usize = 256 * 1024;
/// What `up` never exceeds by more than one read, bytes.
const UP_MAX: usize = 16 << 20;

/// From how much in `up` on nothing is read from the client, bytes.
const BEHIND: usize = 1 << 20;

/// Sets the client's reader free when the bridge ends, however it does.
struct SetFree(Pace);

impl Drop for SetFree {
    fn drop(&mut self) {
        self.0.set_behind(false);
    }
}

/// pingora's end of a bridge to `tcp`. The bridge ends when one of the two does, or when `closed` resolves.
pub(super) fn bridge(tcp: TcpStream, closed: oneshot::Receiver<()>) -> io::Result<(UnixStream, Pace)> {
    let (ours, theirs) = UnixStream::pair()?;
    let pace = Pace::default();
    let guard = SetFree(pace.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = run(&tcp, &ours, &guard.0) => if let Err(error) = result {
                tracing::debug!(%error, "bridge to vm broke");
            },
            // Whether by a message or by the sender's end.
            _ = closed => {}
        }
    });
    Ok((theirs, pace))
}

async fn run(tcp: &TcpStream, pair: &UnixStream, pace: &Pace) -> io::Result<()> {
    let (mut up, mut down) = (BytesMut::with_capacity(LIMIT), BytesMut::with_capacity(LIMIT));
    let mut vm_ended = false;
    let mut heard = Instant::now();
    loop {
        flush(&mut up, |bytes| tcp.try_write(bytes))?;
        flush(&mut down, |bytes| pair.try_write(bytes))?;
        if vm_ended && down.is_empty() {
            return Ok(());
        }
        pace.set_behind(up.len() > BEHIND);
        if up.len() > UP_MAX {
            return Err(io::Error::other("vm answers and does not read"));
        }
        // What could not be flushed was not taken.
        let take_up = up.len() < LIMIT || down.len() >= LIMIT;
        let take_down = !vm_ended && down.len() < LIMIT;
        let late = pace.patience().filter(|_| take_down).map(|patience| sleep_until(heard + patience));
        tokio::select! {
            ready = pair.readable(), if take_up => {
                ready?;
                if fill(&mut up, |buffer| pair.try_read_buf(buffer))? {
                    return Ok(());
                }
                heard = Instant::now();
            }
            ready = tcp.readable(), if take_down => {
                ready?;
                pace.answer_free().await;
                vm_ended = fill(&mut down, |buffer| tcp.try_read_buf(buffer))?;
                heard = Instant::now();
            }
            ready = tcp.writable(), if !up.is_empty() => ready?,
            ready = pair.writable(), if !down.is_empty() => {
                ready?;
                // Until now it may have been the client that kept the VM.
                heard = Instant::now();
            }
            Some(()) = OptionFuture::from(late) => if pace.miss() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
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
        let (pingora, pace) = bridge(tcp, closed).unwrap();
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
            pace.ask_switch(LONG);
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
