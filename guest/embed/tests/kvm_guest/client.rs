//! Just enough of an HTTP client, over blocking sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A connection to a guest.
pub(crate) struct Client(BufReader<TcpStream>);

/// A response with a body of known length.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connect {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// The socket, to write to from another thread.
    pub(crate) fn socket(&self) -> TcpStream {
        self.0.get_ref().try_clone().unwrap()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a GET for `target`.
    pub(crate) fn get(&mut self, target: &str) {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: guest\r\n\r\n"));
    }

    /// Reads a response's head.
    pub(crate) fn head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).unwrap(), 0, "closed in the head {head:?}");
        }
        (head[9..12].parse().unwrap(), head)
    }

    /// Reads a response.
    pub(crate) fn response(&mut self) -> Response {
        let (status, head) = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Response { status, head, body }
    }

    /// Reads `count` bytes of a body that has no end.
    pub(crate) fn skip(&mut self, count: usize) {
        self.0.read_exact(&mut vec![0; count]).unwrap();
    }

    /// Reads to the end of the connection.
    pub(crate) fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).map(|_| rest)
    }
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// GETs `target` over a connection of its own.
pub(crate) fn get(address: SocketAddr, target: &str) -> Response {
    let mut client = Client::connect(address);
    client.get(target);
    client.response()
}
