//! Both sides, in one process, and a peer that breaks the rules.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use serde::Serialize;
use weir_vmm::channel;

use super::heir::{InheritError, Inheritance};
use super::program::{Conversation, SuccessorError};
use super::{FromEarlier, FromLater};

/// What `later` makes of an earlier weir that sends these messages and goes.
fn heard(messages: &[FromEarlier]) -> Result<Inheritance, InheritError> {
    let (earlier, later) = channel::pair().expect("make a channel");
    for message in messages {
        channel::send(earlier.as_fd(), message, &[]).expect("send");
    }
    drop(earlier);
    Inheritance::receive(later)
}

/// What the earlier weir makes of `answer`.
fn answered(answer: &impl Serialize) -> Result<(), SuccessorError> {
    let (earlier, later) = channel::pair().expect("make a channel");
    channel::send(later.as_fd(), answer, &[]).expect("send");
    Conversation(earlier).prepare()
}

#[test]
fn sockets_come_across_in_order_and_accepting_waits_for_its_turn() {
    let (earlier, later) = channel::pair().expect("make a channel");
    let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind"));
    let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("an address").port());
    let heir = thread::spawn(move || {
        let mut inheritance = Inheritance::receive(later).expect("all comes");
        let handed = inheritance.sockets();
        assert!(inheritance.sockets().is_empty());
        inheritance.prepared().expect("it may accept");
        inheritance.serving().expect("the earlier one listens");
        handed
    });
    let conversation = Conversation(earlier);
    for (index, socket) in sockets.iter().enumerate() {
        conversation.hand(index == 2, index.to_string(), socket.as_fd()).expect("it listens");
    }
    conversation.prepare().expect("it is prepared");
    conversation.accept().expect("it accepts");
    let handed = heir.join().expect("it does not panic");
    let names: Vec<_> = handed.iter().map(|one| (one.role, one.address.as_str())).collect();
    use weir_proxy::Role::{Admin, Http};
    assert_eq!(names, [(Http, "0"), (Http, "1"), (Admin, "2")]);
    let port = |socket: OwnedFd| TcpListener::from(socket).local_addr().expect("an address").port();
    assert_eq!(handed.into_iter().map(|one| port(one.socket)).collect::<Vec<_>>(), ports);
}

#[test]
fn an_earlier_weir_that_goes_or_breaks_the_rules_is_an_error() {
    let socket = || FromEarlier::Socket { admin: false, address: "a".to_owned() };
    assert!(matches!(heard(&[]), Err(InheritError::Gone)));
    assert!(matches!(heard(&[socket()]), Err(InheritError::NoSocket(address)) if address == "a"));
    assert!(matches!(heard(&[FromEarlier::Accept]), Err(InheritError::OutOfTurn("accept"))));
    let prepared = |messages: &[FromEarlier]| heard(messages).expect("complete").prepared();
    // It does not even hear the answer.
    assert!(matches!(prepared(&[FromEarlier::Complete]), Err(InheritError::Answer(_))));

    let (earlier, later) = channel::pair().expect("make a channel");
    channel::send(earlier.as_fd(), &FromEarlier::Complete, &[]).expect("send");
    channel::send(earlier.as_fd(), &socket(), &[]).expect("send");
    let inheritance = Inheritance::receive(later).expect("complete");
    assert!(matches!(inheritance.prepared(), Err(InheritError::OutOfTurn("socket"))));
    channel::send(earlier.as_fd(), &"nonsense that is too long", &[]).expect("send");
    assert!(matches!(inheritance.prepared(), Err(InheritError::Hear(_))));
}

#[test]
fn a_later_weir_that_goes_or_breaks_the_rules_is_an_error() {
    assert!(answered(&FromLater::Prepared).is_ok());
    assert!(matches!(answered(&FromLater::Serving), Err(SuccessorError::OutOfTurn)));
    assert!(matches!(answered(&77u8), Err(SuccessorError::Hear(_))));
    let (earlier, later) = channel::pair().expect("make a channel");
    drop(later);
    assert!(matches!(Conversation(earlier).prepare(), Err(SuccessorError::Tell(_))));
    let (earlier, later) = channel::pair().expect("make a channel");
    let conversation = Conversation(earlier);
    let heir = thread::spawn(move || drop(channel::recv::<FromEarlier>(later.as_fd())));
    assert!(matches!(conversation.prepare(), Err(SuccessorError::Ended)));
    heir.join().expect("it does not panic");
}
