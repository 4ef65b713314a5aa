//! A raw HTTP/2 client: it sends what a library would not.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::site::within;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GO_AWAY: u8 = 7;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
}

/// A frame's bytes (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without indexing and without Huffman coding (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits.
            match u8::try_from(text.len()) {
                Ok(length @ ..127) => block.push(length),
                _ => {
                    block.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        block.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    block.push(u8::try_from(rest).unwrap());
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// What a request needs.
pub(crate) fn pseudo<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.example")]
}

impl Frames {
    /// With prior knowledge, and empty settings.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await
    }

    /// The same with these settings.
    pub(crate) async fn connect_with(address: SocketAddr, settings: &[u8]) -> Self {
        let mut client = Self { stream: within(TcpStream::connect(address)).await.unwrap() };
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(&frame(SETTINGS, 0, 0, settings)).await;
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends as much as is taken before the connection ends.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        within(self.stream.write_all(bytes)).await.is_ok()
    }

    /// `None`: the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.stream.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        within(self.stream.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// How a stream ends: the status of its answer or `None` for a reset; and what was in its body.
    pub(crate) async fn outcome(&mut self, stream: u32) -> (Option<u16>, Vec<u8>) {
        let (mut status, mut body) = (None, Vec::new());
        loop {
            let Some(frame) = self.next().await else { return (None, body) };
            if frame.kind == GO_AWAY {
                return (None, body);
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS => status = status.or_else(|| status_of(&frame.payload)),
                DATA => body.extend_from_slice(&frame.payload),
                RESET => return (None, body),
                _ => {}
            }
            if frame.flags & END_STREAM != 0 {
                return (status, body);
            }
        }
    }
}

/// Of a header block that begins with `:status` as weir's library writes it: indexed, or a literal with the name indexed
/// and three digits in Huffman coding, of which only the first is told apart.
fn status_of(block: &[u8]) -> Option<u16> {
    // RFC 7541, appendix A.
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let start = block.iter().position(|byte| byte >> 5 != 1)?;
    match block[start] {
        byte @ 0x88..=0x8e => Some(INDEXED[usize::from(byte - 0x88)]),
        _ => Some(0),
    }
}
