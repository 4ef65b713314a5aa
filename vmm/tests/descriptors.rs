//! A receiver without descriptors to spare. In a program of its own: the limit is the whole process's.

use std::fs::File;
use std::io::pipe;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir_vmm::VmEvent;
use weir_vmm::channel::{pair, recv, send};

#[test]
fn the_message_arrives_without_its_descriptors_and_the_next_one_with_them() {
    let (a, b) = pair().expect("a socket pair");
    let (_out, writer) = pipe().expect("a pipe");
    for _ in 0..2 {
        send(a.as_fd(), &VmEvent::Ready, &[writer.as_fd(), writer.as_fd()]).expect("send");
    }
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).expect("lower the limit");
    assert!(File::open("/dev/null").is_err(), "no descriptor is to be had");
    let (event, files) = recv::<VmEvent>(b.as_fd()).expect("a message").expect("no end");
    assert_eq!((event, files.len()), (VmEvent::Ready, 0));

    setrlimit(Resource::Nofile, usual).expect("raise it again");
    let (event, files) = recv::<VmEvent>(b.as_fd()).expect("a message").expect("no end");
    assert_eq!((event, files.len()), (VmEvent::Ready, 2));
}
