//! Both directions, and what a hostile or dying peer can do to a receiver.

use std::fs::File;
use std::io::{IoSlice, Read, Write, pipe};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send as send_bytes, sendmsg};

use super::{ChannelError, FILES_MAX, MESSAGE_MAX, pair, recv, send};
use crate::event::{ExitReason, VmEvent};

#[test]
fn descriptors_arrive_working_in_order_and_close_on_exec() {
    let (a, b) = pair().unwrap();
    let (mut first_out, first_in) = pipe().unwrap();
    let (mut second_out, second_in) = pipe().unwrap();
    send(a.as_fd(), &VmEvent::Ready, &[first_in.as_fd(), second_in.as_fd()]).unwrap();
    drop((first_in, second_in));

    let (event, files) = recv::<VmEvent>(b.as_fd()).unwrap().unwrap();
    assert_eq!(event, VmEvent::Ready);
    assert_eq!(files.len(), 2);
    for (file, text) in files.into_iter().zip(["one", "two"]) {
        assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC));
        File::from(file).write_all(text.as_bytes()).unwrap();
    }
    let mut text = String::new();
    first_out.read_to_string(&mut text).unwrap();
    second_out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "onetwo");
}

#[test]
fn a_closed_peer_is_the_end_of_the_stream_and_not_a_signal() {
    let (a, b) = pair().unwrap();
    drop(a);
    assert!(recv::<VmEvent>(b.as_fd()).unwrap().is_none());
    assert!(matches!(send(b.as_fd(), &VmEvent::Ready, &[]), Err(ChannelError::Send(_))));
}

#[test]
fn a_peer_that_died_with_unread_messages_is_the_end_of_the_stream() {
    let (a, b) = pair().unwrap();
    send(b.as_fd(), &VmEvent::Ready, &[]).unwrap();
    drop(a);
    assert!(recv::<VmEvent>(b.as_fd()).unwrap().is_none());
}

#[test]
fn an_empty_non_blocking_socket_would_block() {
    let (_a, b) = pair().unwrap();
    rustix::io::ioctl_fionbio(&b, true).unwrap();
    let error = recv::<VmEvent>(b.as_fd()).unwrap_err();
    assert!(error.would_block() && !error.is_message(), "{error:?}");
}

#[test]
fn a_full_non_blocking_socket_would_block() {
    let (a, _b) = pair().unwrap();
    rustix::io::ioctl_fionbio(&a, true).unwrap();
    let message = VmEvent::Log("x".repeat(4096));
    let error = (0..100_000).find_map(|_| send(a.as_fd(), &message, &[]).err()).unwrap();
    assert!(error.would_block(), "{error:?}");
}

#[test]
fn the_longest_message_fits_and_one_byte_more_does_not() {
    let (a, b) = pair().unwrap();
    let fits = VmEvent::Log("x".repeat(MESSAGE_MAX - 4));
    send(a.as_fd(), &fits, &[]).unwrap();
    assert_eq!(recv::<VmEvent>(b.as_fd()).unwrap().unwrap().0, fits);
    let too_long = VmEvent::Log("x".repeat(MESSAGE_MAX - 3));
    assert!(matches!(send(a.as_fd(), &too_long, &[]), Err(ChannelError::TooLong)));
}

/// Sends `bytes` raw with `copies` of a pipe's write end. Returns the receiver's error, after proving that it kept no
/// copy: the pipe is at its end.
fn hostile(bytes: &[u8], copies: usize) -> ChannelError {
    let (a, b) = pair().unwrap();
    let (mut out, writer) = pipe().unwrap();
    let files = vec![writer.as_fd(); copies];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(&a, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    let error = recv::<VmEvent>(b.as_fd()).unwrap_err();
    drop(writer);
    let mut fds = [PollFd::new(&out, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap();
    assert!(fds[0].revents().contains(PollFlags::HUP), "a copy of the write end is still open");
    assert_eq!(out.read(&mut [0]).unwrap(), 0);
    error
}

#[test]
fn hostile_messages_are_errors_of_that_message_alone_and_leave_no_descriptor() {
    let error = hostile(&[0xff; 10], 1);
    assert!(matches!(error, ChannelError::Decode(_)) && error.is_message(), "{error:?}");
    let error = hostile(&[0, 0], 1);
    assert!(matches!(error, ChannelError::Trailing(1)) && error.is_message(), "{error:?}");
    let error = hostile(&vec![0; MESSAGE_MAX + 1], 2);
    assert!(matches!(error, ChannelError::TooLong) && error.is_message(), "{error:?}");
    let error = hostile(&[0], FILES_MAX + 1);
    assert!(matches!(error, ChannelError::TooManyFiles) && error.is_message(), "{error:?}");
}

#[test]
fn the_next_message_is_readable_after_a_hostile_one() {
    let (a, b) = pair().unwrap();
    send_bytes(&a, &[0xff; 3], SendFlags::empty()).unwrap();
    send(a.as_fd(), &VmEvent::Ready, &[]).unwrap();
    assert!(recv::<VmEvent>(b.as_fd()).is_err());
    assert_eq!(recv::<VmEvent>(b.as_fd()).unwrap().unwrap().0, VmEvent::Ready);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        let (a, b) = pair().unwrap();
        send_bytes(&a, &bytes, SendFlags::empty()).unwrap();
        if let Ok(Some((event, _))) = recv::<VmEvent>(b.as_fd()) {
            prop_assert!(postcard::to_stdvec(&event).unwrap().len() <= bytes.len());
        }
    }

    #[test]
    fn text_survives(text in ".{0,300}") {
        let (a, b) = pair().unwrap();
        let event = VmEvent::Exit(ExitReason::Panicked(text));
        send(a.as_fd(), &event, &[]).unwrap();
        prop_assert_eq!(recv::<VmEvent>(b.as_fd()).unwrap().unwrap().0, event);
    }
}

#[test]
fn what_a_peer_said_before_it_died_is_heard_though_it_left_our_message_unread() {
    let (ours, theirs) = pair().unwrap();
    send(theirs.as_fd(), &"last word".to_owned(), &[]).unwrap();
    send(ours.as_fd(), &"never read".to_owned(), &[]).unwrap();
    drop(theirs);
    let heard: Option<(String, _)> = recv(ours.as_fd()).unwrap();
    assert_eq!(heard.unwrap().0, "last word");
    assert!(recv::<String>(ours.as_fd()).unwrap().is_none());
}
