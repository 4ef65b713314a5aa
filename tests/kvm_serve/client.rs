//! A client that keeps its connection open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::support::PATIENCE;

/// One connection to weir.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    host: &'static str,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_to(address, "test")
    }

    /// Asks for what `host` serves.
    pub(crate) fn connect_to(address: SocketAddr, host: &'static str) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
        stream.set_nodelay(true).expect("send at once");
        Self { stream: BufReader::new(stream), host }
    }

    /// Goes away.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        self.stream.get_ref().shutdown(how).expect("shut an open connection down");
    }

    /// Sends a GET, and does not wait for the answer.
    pub(crate) fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes()).expect("send on an open connection");
    }

    /// Status and body of the answer to `GET path`, which must leave the connection open.
    pub(crate) fn get(&mut self, path: &str) -> (u16, String) {
        self.send(path);
        self.answer()
    }

    /// Status and body of the next answer, which must leave the connection open.
    pub(crate) fn answer(&mut self) -> (u16, String) {
        let (status, body, closes) = self.last_answer();
        assert!(!closes, "{status}, and the connection does not stay open: {body}");
        (status, body)
    }

    /// Status and body of the next answer, and whether it is the connection's last.
    pub(crate) fn last_answer(&mut self) -> (u16, String, bool) {
        let status = self.line().split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let (mut length, mut error, mut closes) = (None, String::new(), false);
        loop {
            let line = self.line().to_lowercase();
            if line.is_empty() {
                break;
            }
            closes |= line == "connection: close";
            if line.starts_with("weir-error: ") {
                error.clone_from(&line);
            }
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = Some(text.parse::<usize>().expect("a length"));
            }
        }
        let mut body = vec![0; length.expect("answers of known length")];
        self.stream.read_exact(&mut body).expect("read the body");
        (status, error + &String::from_utf8(body).expect("text"), closes)
    }

    /// The body of the answer to `GET path`, which must be 200.
    pub(crate) fn body(&mut self, path: &str) -> String {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        body.trim().to_owned()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("read a line");
        assert!(line.ends_with("\r\n"), "the connection ended in the middle of an answer: {line:?}");
        line.trim_end().to_owned()
    }
}

/// Runs `task` for each of `count` clients at the same time; what they return.
pub(crate) fn at_once<T: Send>(
    count: usize,
    address: SocketAddr,
    task: impl Fn(SocketAddr) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count).map(|_| scope.spawn(|| task(address))).collect();
        clients.into_iter().map(|client| client.join().expect("no client panics")).collect()
    })
}
