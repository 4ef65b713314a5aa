//! WebSockets (RFC 6455) that send back what they get.
//!
//! ```text
//!  request --key--> open --close, nonsense, end--> closed
//!     \--none: 400
//! ```
//!
//! A data frame comes back as it is, a ping as a pong, a close as a close. Frames are not put together to messages, since
//! their pieces come back as pieces.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha1_smol::Sha1;
use weir_libos::net::ConnectionLost;

use crate::http::Connection;

/// What a server that knows WebSockets adds to the key, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest payload of a frame, bytes.
const PAYLOAD_MAX: usize = 64 * 1024;

/// The first byte's opcode, and those of control frames, section 5.2.
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// The second byte says that the payload is masked, as a client's must be.
const MASKED: u8 = 0x80;

struct Frame {
    /// Flags and opcode.
    first: u8,
    payload: Vec<u8>,
}

/// Switches `connection`, which is of no use for HTTP after that, to a WebSocket, and serves it to its end.
pub(crate) async fn echo(connection: &mut Connection) -> Result<(), ConnectionLost> {
    let Some(key) = connection.field("sec-websocket-key") else {
        return connection.respond("400 Bad Request", "no key\n").await;
    };
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        accept(key)
    );
    connection.send(head.as_bytes()).await?;
    while let Some(Frame { first, payload }) = receive(connection).await {
        let opcode = if first & OPCODE == PING { PONG } else { first & OPCODE };
        send(connection, first & !OPCODE | opcode, &payload).await?;
        if opcode == CLOSE {
            break;
        }
    }
    Err(ConnectionLost)
}

/// Proof that the key was understood, section 4.2.2.
fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(GUID);
    BASE64_STANDARD.encode(digest.digest().bytes())
}

/// The next frame; `None`: the end, or something that is none.
async fn receive(connection: &mut Connection) -> Option<Frame> {
    let [first, second]: [u8; 2] = connection.take(2).await?.try_into().ok()?;
    let length = match second & !MASKED {
        126 => u16::from_be_bytes(connection.take(2).await?.try_into().ok()?).into(),
        127 => u64::from_be_bytes(connection.take(8).await?.try_into().ok()?),
        length => length.into(),
    };
    let length = usize::try_from(length).ok().filter(|length| *length <= PAYLOAD_MAX)?;
    if second & MASKED == 0 {
        return None;
    }
    let mask = connection.take(4).await?;
    let mut payload = connection.take(length).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some(Frame { first, payload })
}

/// Sends a frame that, as a server's, is not masked.
async fn send(connection: &mut Connection, first: u8, payload: &[u8]) -> Result<(), ConnectionLost> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    connection.send(&frame).await
}
