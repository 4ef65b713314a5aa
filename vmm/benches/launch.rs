//! From the request to a jailed process whose body runs, and to its end; then the same with `hello` in a VM, to READY:
//! percentiles of many rounds, one VM at a time. `weir launcher` is this program, started again.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use weir_vmm::channel;
use weir_vmm::launcher::protocol::{ChildId, LauncherReply, LauncherRequest};
use weir_vmm::launcher::{Inherited, LauncherHandle, Setup, run, spawn_command};
use weir_vmm::{BootOrder, ExitReason, NetLimits, NetSpec, VmCommand, VmEvent, VmId, VmSpec, event};

const ROUNDS: u64 = 500;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("empty") => run(Setup { kvm: Ok(null()?), body: say_ready, ..Setup::new()? }),
        Some("real") => weir_vmm::launcher::main(),
        _ => {}
    }
    measure("empty", "running body", &[])?;
    measure("real", "READY of hello", weir_guest::HELLO)
}

fn measure(mode: &str, what: &str, image: &[u8]) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(mode);
    let launcher = spawn_command(command)?;
    let image = sealed(image)?;
    let rounds = (0..ROUNDS).map(|id| round(&launcher, VmId(id), &image)).collect::<Result<Vec<_>>>()?;
    let (ready, gone) = rounds.into_iter().unzip();
    report(&format!("request to {what}"), ready);
    report("request to reaped process", gone);
    Ok(())
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

fn sealed(bytes: &[u8]) -> Result<File> {
    let mut file = File::from(memfd_create("image", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file)
}

fn say_ready(inherited: Inherited) -> ExitReason {
    match channel::send(inherited.control.as_fd(), &VmEvent::Ready, &[]) {
        Ok(()) => ExitReason::Exited(0),
        Err(error) => ExitReason::Host(error.to_string()),
    }
}

fn spec(id: VmId) -> VmSpec {
    let net = NetSpec {
        mac: [2, 0x57, 10, 88, 0, 3],
        address: Ipv4Addr::new(10, 88, 0, 3),
        prefix: 31,
        gateway: Ipv4Addr::new(10, 88, 0, 2),
        gateway_mac: [2, 0x57, 10, 88, 0, 2],
        mtu: 1500,
        limits: NetLimits::NONE,
    };
    let env = vec![("PORT".into(), "8080".into())];
    VmSpec {
        id,
        pool: "bench".into(),
        memory: 16 << 20,
        vcpus: 1,
        net: Some(net),
        env,
        args: vec![],
        log_lines: 100,
    }
}

fn round(launcher: &LauncherHandle, id: VmId, image: &File) -> Result<(Duration, Duration)> {
    let (control, theirs) = channel::pair()?;
    // Stands in for a TAP: it keeps message boundaries too.
    let (tap, _host) = UnixDatagram::pair()?;
    tap.set_nonblocking(true)?;
    let start = Instant::now();
    channel::send(launcher.socket.as_fd(), &LauncherRequest::Fork(ChildId(id.0)), &[theirs.as_fd()])?;
    // Ours alone would keep the socket open if the start failed.
    drop(theirs);
    let order = VmCommand::Boot(Box::new(BootOrder { spec: spec(id), template: false }));
    event::command(&control, &order, &[image.as_fd(), tap.as_fd()])?;
    let first = channel::recv::<VmEvent>(control.as_fd())?;
    let ready = start.elapsed();
    if !matches!(first, Some((VmEvent::Ready, _))) {
        return Err(format!("instead of READY: {first:?}").into());
    }
    drop(control);
    loop {
        match channel::recv::<LauncherReply>(launcher.socket.as_fd())? {
            Some((LauncherReply::Exited { .. }, _)) => return Ok((ready, start.elapsed())),
            Some((LauncherReply::Forked { .. }, _)) => {}
            other => return Err(format!("instead of an end: {other:?}").into()),
        }
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, of {}", at(50), at(99), times.len());
}
