//! From the request to a jailed process whose body runs, and to its end: percentiles of many
//! rounds, one VM at a time. `weir launcher` is this program, started again.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use weir_vmm::channel;
use weir_vmm::launcher::protocol::{LauncherReply, LauncherRequest};
use weir_vmm::launcher::{Inherited, LauncherHandle, Setup, run, spawn_command};
use weir_vmm::{ExitReason, VmEvent, VmId, VmSpec};

const ROUNDS: u64 = 500;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("launcher") {
        let setup = Setup::new()?;
        run(Setup { kvm: Ok(null()?), body: say_ready, ..setup });
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("launcher");
    let launcher = spawn_command(command)?;
    let mut ready = Vec::new();
    let mut gone = Vec::new();
    for id in 0..ROUNDS {
        let (start, end) = round(&launcher, VmId(id))?;
        ready.push(start);
        gone.push(end);
    }
    report("request to running body", ready);
    report("request to reaped process", gone);
    Ok(())
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
}

fn say_ready(inherited: Inherited) -> ExitReason {
    match channel::send(inherited.control.as_fd(), &VmEvent::Ready, &[]) {
        Ok(()) => ExitReason::Exited(0),
        Err(error) => ExitReason::Host(error.to_string()),
    }
}

fn round(launcher: &LauncherHandle, id: VmId) -> Result<(Duration, Duration)> {
    let spec =
        VmSpec { id, pool: "bench".into(), memory: 1 << 24, vcpus: 1, net: None, env: vec![], args: vec![] };
    let (control, theirs) = channel::pair()?;
    let image = null()?;
    let start = Instant::now();
    let request = LauncherRequest::Start(Box::new(spec));
    channel::send(launcher.socket.as_fd(), &request, &[image.as_fd(), theirs.as_fd()])?;
    // Ours alone would keep the socket open if the start failed.
    drop(theirs);
    let first = channel::recv::<VmEvent>(control.as_fd())?;
    let ready = start.elapsed();
    if !matches!(first, Some((VmEvent::Ready, _))) {
        return Err(format!("instead of READY: {first:?}").into());
    }
    loop {
        match channel::recv::<LauncherReply>(launcher.socket.as_fd())? {
            Some((LauncherReply::Exited { .. }, _)) => return Ok((ready, start.elapsed())),
            Some((LauncherReply::Started { .. }, _)) => {}
            other => return Err(format!("instead of an end: {other:?}").into()),
        }
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, of {}", at(50), at(99), times.len());
}
