//! Servers and clients that run beside weir.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use crate::support::PATIENCE;

/// A process that ends with the test.
pub(crate) struct Running {
    child: Child,
    /// A test's threads may share the process.
    lines: Mutex<Receiver<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to do for one that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts `command`. What it writes is read whether it is asked for or not, so that it goes on.
    pub(crate) fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (told, lines) = std::sync::mpsc::channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let told = told.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // Nobody listens any more when the test is over.
                    let _ = told.send(line);
                }
            });
        }
        Self { child, lines: Mutex::new(lines) }
    }

    /// Starts `command` and waits until it writes a line with `sign` in it.
    pub(crate) fn until(command: &mut Command, sign: &str) -> Self {
        let running = Self::start(command);
        running.says(sign);
        running
    }

    /// A server of Python's that writes `port NUMBER` when it listens, and that port.
    pub(crate) fn server(script: &str, arguments: &[&str]) -> (Self, u16) {
        let running = Self::start(python(script).args(arguments));
        let line = running.says("port ");
        let port = line.trim().strip_prefix("port ").and_then(|port| port.parse().ok());
        (running, port.unwrap_or_else(|| panic!("no port: {line}")))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line with `sign` in it.
    pub(crate) fn says(&self, sign: &str) -> String {
        let lines = self.lines.lock().expect("no thread panics with it");
        let mut seen = String::new();
        loop {
            let line = lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no {sign:?}: {error}; said:\n{seen}"));
            if line.contains(sign) {
                return line;
            }
            seen += &line;
            seen.push('\n');
        }
    }
}

/// Debian's Python, which has Debian's modules, and `script` for it.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "/usr/bin/python3", "-u", "-c", script]);
    command
}
