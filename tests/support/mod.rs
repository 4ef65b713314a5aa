//! A real `weir serve` as a child process, for end-to-end tests and benches.
//!
//! Listeners use port 0; the bound addresses, and everything else that happens, come from weir's log (JSON lines on
//! stderr), so nothing here polls with sleeps: a wait is a wait for a log line, bounded by [`PATIENCE`].
#![allow(dead_code, unreachable_pub, reason = "each test and bench includes it and uses its own part")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything that should happen.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// A configuration with one pool and one route for everything; `pool` and `scale` are lines of those tables.
pub fn one_pool(image: &str, pool: &str, scale: &str) -> String {
    format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [admin]\naddress = \"127.0.0.1:0\"\n\
         [pool.p]\nimage = \"{image}\"\n{pool}\n\
         [pool.p.scale]\n{scale}\n\
         [[route]]\nname = \"all\"\npath = \"/\"\npool = \"p\"\n"
    )
}

/// A running weir; killed when dropped.
pub struct Weir {
    child: Child,
    /// Where clients connect.
    pub http: SocketAddr,
    /// Where the admin endpoint is.
    pub admin: SocketAddr,
    log: Receiver<Value>,
    /// Lines that came while it was waited for weir to listen.
    early: RefCell<VecDeque<Value>>,
    access: Option<BufReader<ChildStdout>>,
    directory: tempfile::TempDir,
}

impl Weir {
    /// Starts weir with this configuration text and waits until it listens.
    pub fn start(config: &str) -> Self {
        Self::start_by(&[], Path::new(env!("CARGO_BIN_EXE_weir")), config)
    }

    /// Starts `binary` by the command `prefix` (which ends in an exec of its arguments, so that the process is weir).
    pub fn start_by(prefix: &[&str], binary: &Path, config: &str) -> Self {
        let directory = tempfile::tempdir().expect("make a temporary directory");
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), readable).expect("open the directory");
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, config).expect("write the configuration");
        let binary = binary.as_os_str();
        let words: Vec<&OsStr> = prefix.iter().map(OsStr::new).chain([binary]).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["serve", "--log-format", "json", "-c"])
            .arg(&path)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start weir");
        let log = follow(child.stderr.take().expect("stderr is piped"));
        let access = child.stdout.take().map(BufReader::new);
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let early = RefCell::default();
        let mut weir = Self { child, http: unknown, admin: unknown, log, early, access, directory };
        let mut lines = VecDeque::new();
        weir.http = weir.bound("listener[0].address", &mut lines);
        weir.admin = weir.bound("admin.address", &mut lines);
        weir.early.replace(lines);
        weir
    }

    /// The address that the log tells for `key`; the lines before that go to `others`.
    fn bound(&self, key: &str, others: &mut VecDeque<Value>) -> SocketAddr {
        let kept = RefCell::new(others);
        let line = self.wait_for(&format!("listening on {key}"), |line| {
            let is_it = line["fields"]["message"] == "listening" && line["fields"]["key"] == key;
            if !is_it {
                kept.borrow_mut().push_back(line.clone());
            }
            is_it
        });
        line["fields"]["address"].as_str().expect("an address").parse().expect("a socket address")
    }

    /// Names of the files in the directory where weir runs.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).expect("list weir's directory").flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The path of a file in the directory where weir runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts another configuration in the place of the one that weir was started with, all at once.
    pub fn configure(&self, config: &str) {
        let beside = self.directory.path().join("weir.toml.new");
        std::fs::write(&beside, config).expect("write the configuration");
        std::fs::rename(&beside, self.directory.path().join("weir.toml")).expect("replace the configuration");
    }

    /// weir's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next log line that `wanted` accepts; lines before it are consumed.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let early = self.early.borrow_mut().pop_front();
            match early.map_or_else(|| self.log.recv_timeout(left), Ok) {
                Ok(line) if wanted(&line) => return line,
                Ok(line) => seen.push_str(&format!("{line}\n")),
                Err(error) => panic!("no log line for {what}: {error}; seen:\n{seen}"),
            }
        }
    }

    /// Waits for the log message `message`, and returns its line.
    pub fn logged(&self, message: &str) -> Value {
        self.wait_for(message, |line| line["fields"]["message"] == message)
    }

    /// Runs curl with these arguments; the last one is a path, to which the listener's address is added.
    pub fn curl(&self, arguments: &[&str]) -> Answer {
        let (path, options) = arguments.split_last().expect("a path");
        let output = Command::new("curl")
            .args(["-sS", "-i", "--max-time", "8"])
            .args(options)
            .arg(format!("http://{}{path}", self.http))
            .output()
            .expect("run curl");
        Answer::new(output.status.code(), &output.stdout)
    }

    /// The next line of the access log.
    pub fn access_line(&mut self) -> Value {
        let mut line = String::new();
        let reader = self.access.as_mut().expect("stdout is piped");
        reader.read_line(&mut line).expect("read the access log");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("access log line {line:?}: {error}"))
    }

    /// Answer of the admin endpoint: status and body.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let answer = get(self.admin, path);
        (answer.status, answer.body_text())
    }

    /// Sum of all samples of the metric `name` whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
        });
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        // A sum of nothing is a negative zero.
        values.fold(0.0, |sum, value| sum + value)
    }

    /// Stops reading weir's log, as a log collector that dies does: at weir's next line the pipe has no reader.
    pub fn hang_up_on_log(&mut self) {
        self.log = sync_channel(0).1;
    }

    /// Waits until weir has ended, without its log; fails after [`PATIENCE`].
    pub fn wait_in_silence(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("wait for weir") {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "weir still runs"),
            }
            std::thread::yield_now();
        }
    }

    /// Waits, bounded, for what only a metric tells.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "not within {PATIENCE:?}: {what}; log:\n{}",
                self.rest_of_log()
            );
        }
    }

    /// What weir has logged and nobody has asked for.
    fn rest_of_log(&self) -> String {
        let early = std::mem::take(&mut *self.early.borrow_mut());
        let waiting = std::iter::from_fn(|| self.log.recv_timeout(Duration::from_millis(100)).ok());
        early.into_iter().chain(waiting).fold(String::new(), |text, line| text + &line.to_string() + "\n")
    }

    /// Waits until weir has a request in flight.
    pub fn until_in_flight(&self) {
        self.until("a request in flight", || self.metric("weir_http_requests_in_flight", "") >= 1.0);
    }

    /// Waits until weir has tried to make `count` templates: the processes for that are gone then.
    pub fn until_templates(&self, count: u32) {
        self.until("templates", || self.metric("weir_vm_templates_made_total", "") >= f64::from(count));
    }

    /// Sends a signal to weir.
    pub fn signal(&self, name: &str) {
        kill(name, self.pid());
    }

    /// Waits until weir has ended, and returns its status.
    pub fn wait(&mut self) -> ExitStatus {
        // The log ends when the process does: that is the event to wait for.
        let deadline = Instant::now() + PATIENCE;
        while self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
        match self.child.try_wait().expect("wait for weir") {
            Some(status) => status,
            None if Instant::now() < deadline => self.child.wait().expect("wait for weir"),
            None => panic!("weir still runs"),
        }
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // Nothing to do for a weir that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends the signal `name` to the process `pid`.
pub fn kill(name: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("run kill");
    assert!(status.success(), "kill -s {name} {pid}");
}

/// The lines of weir's log. They are read as they are asked for: a test that asks for none is a reader that has stalled.
fn follow(stderr: impl Read + Send + 'static) -> Receiver<Value> {
    let (sender, receiver) = sync_channel(0);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if sender.send(value).is_err() {
                break;
            }
        }
    });
    receiver
}

/// An HTTP response as a client saw it.
#[derive(Debug)]
pub struct Answer {
    /// The client's exit code, where there was one.
    pub exit: Option<i32>,
    /// HTTP status; zero: none.
    pub status: u16,
    /// Status line and header lines, lower case.
    pub head: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    fn new(exit: Option<i32>, raw: &[u8]) -> Self {
        let mut rest = raw;
        loop {
            let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(end) = end else {
                return Self { exit, status: 0, head: String::new(), body: rest.to_vec() };
            };
            let head = String::from_utf8_lossy(&rest[..end]).to_lowercase();
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
            rest = &rest[end + 4..];
            if status != 100 {
                return Self { exit, status, head, body: rest.to_vec() };
            }
        }
    }

    /// Value of the header `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("send");
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).expect("read the answer");
    Answer::new(None, &raw)
}

/// Process ids of the direct children of `pid` that have not ended, by /proc/*/stat.
pub fn children(pid: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("list /proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| parent(*id) == Some(pid)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state ppid …"; the name may hold spaces and parentheses.
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    let state = words.next()?;
    words.next().filter(|_| state != "Z")?.parse().ok()
}

/// weir's launcher.
pub fn launcher(weir: u32) -> u32 {
    let launchers = children(weir);
    assert_eq!(launchers.len(), 1, "weir has one child, its launcher");
    launchers[0]
}

/// The launcher of this weir, and the processes of its VMs: of all its children, those that have a guest's memory.
pub fn launcher_and_vms(weir: u32) -> (u32, Vec<u32>) {
    let launcher = launcher(weir);
    let vms = children(launcher).into_iter().filter(|pid| has_guest_memory(*pid)).collect();
    (launcher, vms)
}

/// Whether a process has a writable mapping as large as a guest's memory: at least 16 MiB.
fn has_guest_memory(pid: u32) -> bool {
    // None of a process that has ended meanwhile.
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().any(|line| {
        let mut words = line.split(' ');
        let (range, access) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
        let size = range.split_once('-').map_or(0, |(from, to)| number(to) - number(from));
        access.starts_with("rw") && size >= 16 << 20
    })
}

/// Prints minimum, median, p90, p99 and maximum of a measurement.
pub fn print_percentiles(what: &str, unit: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    println!(
        "{what}: n={} min={:.2} p50={:.2} p90={:.2} p99={:.2} max={:.2} {unit}",
        values.len(),
        at(0),
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

/// Prints the median of a measurement.
pub fn print_median(what: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    println!("{what}: {:.3}", values[values.len() / 2]);
}
