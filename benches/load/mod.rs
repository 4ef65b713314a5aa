//! Clients, and configurations with many pools.
#![allow(dead_code, unreachable_pub, reason = "each bench includes it and uses its own part")]

pub mod peer;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

/// Bound of every wait for a peer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A listener and an admin endpoint on any port, and `host` as lines of `[host]`.
pub fn header(host: &str) -> String {
    format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[host]\n{host}\n")
}

/// Adds a pool, and a route to it from the host of the same name. `pool` and `scale` are lines of those tables.
pub fn add_pool(config: &mut String, name: &str, pool: &str, scale: &str) {
    let added = write!(
        config,
        "[pool.{name}]\n{pool}\n[pool.{name}.scale]\n{scale}\n\
         [[route]]\nname = \"{name}\"\nhost = \"{name}\"\npool = \"{name}\"\n"
    );
    added.expect("a string takes any text");
}

/// A connection that is kept.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
        Self { stream, buffer: vec![0; 256 * 1024] }
    }

    /// The connection itself.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends a GET, and reads nothing.
    pub fn send(&mut self, host: &str, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).expect("send");
    }

    /// One GET to its answer's last byte; returns the length of the body. Any answer but a 200 is an error.
    pub fn get(&mut self, host: &str, path: &str) -> usize {
        self.send(host, path);
        let mut filled = 0;
        let end = loop {
            let length = self.stream.read(&mut self.buffer[filled..]).expect("read the answer");
            assert_ne!(length, 0, "the server closed the connection");
            filled += length;
            let end = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "only good answers count: {head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a content-length");
        let mut received = filled - end;
        while received < length {
            let more = self.stream.read(&mut self.buffer).expect("read the body");
            assert_ne!(more, 0, "the server closed the connection");
            received += more;
        }
        length
    }
}

/// One wrk run: requests per second, p50 and p99 in milliseconds.
pub struct Run {
    /// All requests.
    pub requests: f64,
    /// Requests per second.
    pub rate: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
}

/// Two seconds of GETs over that many keepalive connections; all answers have to be good ones.
pub fn wrk(address: SocketAddr, host: &str, path: &str, connections: usize) -> Run {
    let output = Command::new("wrk")
        .args(["-t1", "-d2s", "--latency", &format!("-c{connections}")])
        .args(["-H", &format!("Host: {host}")])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("run wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.unwrap_or_else(|| panic!("wrk prints {key}: {text}")).trim().to_owned()
    };
    assert!(!text.contains("Non-2xx"), "only good answers count: {text}");
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    Run {
        requests: requests
            .and_then(|(count, _)| count.parse().ok())
            .expect("wrk prints a number of requests"),
        rate: after("Requests/sec:").parse().expect("a rate"),
        p50: milliseconds(&after("50%")),
        p99: milliseconds(&after("99%")),
    }
}

fn milliseconds(text: &str) -> f64 {
    let (number, scale) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.trim_end_matches('s'), 1e3)
    };
    number.parse::<f64>().expect("a duration") * scale
}
