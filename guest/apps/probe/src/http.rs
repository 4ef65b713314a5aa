//! As much of HTTP as tests need: request heads without bodies in, responses out.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;

use embedded_io_async::{Read, Write};
use weir_libos::net::{ConnectionLost, TcpStream};

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Longest request head, bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Bodies without a source are sent in blocks of this size, bytes.
const BLOCK: usize = 16 * 1024;

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// The present request's.
    head: String,
    /// Requests so far, the present one included.
    pub(crate) requests: u64,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, input: Vec::new(), head: String::new(), requests: 0 }
    }

    /// The next request's target; `None`: there will be none.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.input.windows(END_OF_HEAD.len()).position(|four| four == END_OF_HEAD) {
                self.head = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + END_OF_HEAD.len());
                self.requests += 1;
                return target(&self.head);
            }
            if self.input.len() >= HEAD_MAX || !self.fill().await {
                return None;
            }
        }
    }

    /// The value of the present request's first field `name`.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim())
    }

    /// The next `length` bytes, which are no request; `None`: there are not as many.
    pub(crate) async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.input.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.input.drain(..length).collect())
    }

    /// Whether there was more to be read.
    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 512];
        match self.stream.read(&mut buffer).await {
            Ok(length @ 1..) => {
                self.input.extend_from_slice(&buffer[..length]);
                true
            }
            _ => false,
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectionLost> {
        self.stream.write_all(bytes).await
    }

    /// Answers with `body`.
    pub(crate) async fn respond(&mut self, status: &str, body: &str) -> Result<(), ConnectionLost> {
        let mut text = head(status, body.len() as u64);
        text.push_str(body);
        self.stream.write_all(text.as_bytes()).await
    }

    /// Answers with a body of which it sends `sent` of `promised` bytes.
    pub(crate) async fn stream(&mut self, promised: u64, sent: u64) -> Result<(), ConnectionLost> {
        self.stream.write_all(head("200 OK", promised).as_bytes()).await?;
        let block = vec![b'x'; usize::try_from(sent).map_or(BLOCK, |sent| sent.min(BLOCK))];
        let mut left = sent;
        while left > 0 {
            let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            self.stream.write_all(&block[..length]).await?;
            left -= length as u64;
        }
        Ok(())
    }
}

fn head(status: &str, length: u64) -> String {
    let mut head = String::new();
    // A string takes any text.
    let _ = write!(head, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\ncontent-type: text/plain\r\n\r\n");
    head
}

/// The target in a request line.
fn target(head: &str) -> Option<String> {
    head.lines().next()?.split(' ').nth(1).map(String::from)
}

/// The number that parameter `name` has in the query of `target`.
pub(crate) fn parameter(target: &str, name: &str) -> Option<u64> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?.parse().ok()
}
