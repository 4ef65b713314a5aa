//! A raw HTTP/1 client.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::within;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// One GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.send(&format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n")).await;
    client.response().await
}

/// One request, as given, on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    client.response().await
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: within(TcpStream::connect(address)).await.unwrap(), buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, request: &str) {
        self.send_bytes(request.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, request: &[u8]) {
        within(self.stream.write_all(request)).await.unwrap();
    }

    /// The next response, whole.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.head().await;
        let (body, whole) = if let Some(length) = header(&head, "content-length") {
            self.exactly(length.parse().unwrap()).await
        } else if header(&head, "transfer-encoding") == Some("chunked") {
            self.chunks().await
        } else if head.starts_with("HTTP/1.1 101") {
            (Vec::new(), true)
        } else {
            while self.more().await {}
            (std::mem::take(&mut self.buffer), true)
        };
        assert!(whole, "response broke off after {} bytes: {head}", body.len());
        Response { head, body }
    }

    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(
                self.more().await,
                "connection ended in a head: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    /// This many bytes, or fewer if the connection ends.
    pub(crate) async fn exactly(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.buffer.len() < length && self.more().await {}
        let whole = self.buffer.len() >= length;
        (self.buffer.drain(..length.min(self.buffer.len())).collect(), whole)
    }

    async fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(end) = find(&self.buffer, b"\r\n") else {
                if self.more().await {
                    continue;
                }
                return (body, false);
            };
            let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let (chunk, whole) = self.exactly(size + 2).await;
            body.extend_from_slice(&chunk[..size.min(chunk.len())]);
            if size == 0 || !whole {
                return (body, whole);
            }
        }
    }

    /// The next chunk of a body; `None`: that was the last.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            match find(&self.buffer, b"\r\n") {
                Some(end) => break end,
                None => assert!(self.more().await, "connection ended before a chunk"),
            }
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let (mut chunk, whole) = self.exactly(size + 2).await;
        assert!(whole, "connection ended in a chunk");
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// Whether the connection has ended without another byte.
    pub(crate) async fn is_at_end(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        // A reset is an end.
        let read = within(self.stream.read(&mut chunk)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
