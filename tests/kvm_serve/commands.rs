//! `weir run` and `weir doctor` on this machine.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::kill;

fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.stdin(Stdio::null());
    command
}

#[test]
fn run_shows_the_guests_log_and_ends_on_sigint() {
    let mut child = weir().args(["run", "hello"]).stdout(Stdio::piped()).spawn().expect("start weir run");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    assert!(!line.trim().is_empty(), "the guest logs that it listens");
    kill("INT", child.id());
    assert_eq!(child.wait().expect("wait").code(), Some(0));
}

#[test]
fn run_passes_the_guests_end_on() {
    let directory = tempfile::tempdir().expect("make a directory");
    let path = directory.path().join("probe");
    std::fs::write(&path, weir_guest::PROBE).expect("write the image");
    let run = |argument: &str| {
        let output = weir().arg("run").arg(&path).args(["--arg", argument]).output().expect("run weir");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("exit=0").0, Some(0));
    let (code, text) = run("exit=7");
    assert_eq!(code, Some(1));
    assert!(text.contains("code 7"), "{text}");
    let (code, text) = run("crash-at-boot");
    assert_eq!(code, Some(1));
    assert!(text.contains("panicked"), "{text}");
}

#[test]
fn doctor_finds_this_machine_able() {
    let output = weir().arg("doctor").output().expect("run weir doctor");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for name in ["/dev/kvm", "/dev/net/tun", "namespaces", "seccomp"] {
        assert!(text.contains(name), "{name} is examined: {text}");
    }
}

#[test]
fn serve_does_not_start_where_no_vm_could() {
    let directory = tempfile::tempdir().expect("make a directory");
    let path = directory.path().join("weir.toml");
    std::fs::write(&path, crate::support::one_pool("hello", "", "min = 0")).expect("write");
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c"])
        .args(["mount -t tmpfs none /dev/net && exec \"$0\" serve -c \"$1\"", env!("CARGO_BIN_EXE_weir")])
        .arg(&path)
        .output()
        .expect("run weir without /dev/net/tun");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/dev/net/tun") && text.lines().count() == 1, "{text}");
}
