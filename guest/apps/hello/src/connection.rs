//! One connection: requests in, responses out, in order, until either side has enough.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;

use embedded_io_async::{Read, Write};

use crate::app::{App, Platform};
use crate::body::{BadChunk, Decoder};
use crate::handler;
use crate::head::{Head, Malformed};
use crate::response::Response;

/// Longest request head, bytes.
pub const HEAD_MAX: usize = 8 * 1024;
/// A body that no handler reads is skipped up to this length, bytes; behind a longer one the connection ends.
const SKIP_MAX: usize = 64 * 1024;

/// Why a connection ended early.
#[derive(Debug)]
pub(crate) enum ConnectionError<E> {
    /// The connection is broken.
    Io(E),
    /// The client closed it in the middle of a request.
    Truncated,
    /// A body's framing is broken.
    BadChunk,
}

impl<E> From<BadChunk> for ConnectionError<E> {
    fn from(_: BadChunk) -> Self {
        Self::BadChunk
    }
}

/// A connection and what was read from it but not used yet.
pub(crate) struct Connection<'a, C, P> {
    io: &'a mut C,
    pub(crate) platform: &'a P,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// Scratch for response heads and small bodies.
    pub(crate) text: String,
}

enum Next {
    Request(Head),
    End,
    Malformed,
}

/// Serves one connection until it ends. Errors end it too: there is nobody else to tell.
pub async fn serve<C: Read + Write>(io: &mut C, app: &App, platform: &impl Platform) {
    let input = vec![0; HEAD_MAX].into_boxed_slice();
    let mut connection = Connection { io, platform, input, start: 0, end: 0, text: String::new() };
    while let Ok(true) = serve_one(&mut connection, app).await {}
}

/// Serves one request; whether another may follow.
async fn serve_one<C: Read + Write, P: Platform>(
    connection: &mut Connection<'_, C, P>,
    app: &App,
) -> Result<bool, ConnectionError<C::Error>> {
    let head = match connection.head().await? {
        Next::Request(head) => head,
        Next::End => return Ok(false),
        Next::Malformed => {
            connection.respond(Response::malformed(), "").await?;
            return Ok(false);
        }
    };
    app.count(&head.route);
    let mut decoder = Decoder::new(head.framing);
    handler::respond(connection, &head, &mut decoder, app).await?;
    Ok(head.keep_alive && connection.skip(&mut decoder, head.expects_continue).await?)
}

impl<C: Read + Write, P: Platform> Connection<'_, C, P> {
    async fn head(&mut self) -> Result<Next, ConnectionError<C::Error>> {
        loop {
            match Head::parse(&self.input[self.start..self.end]) {
                Ok(Some((head, length))) => {
                    self.start += length;
                    return Ok(Next::Request(head));
                }
                Ok(None) if self.end - self.start == HEAD_MAX => return Ok(Next::Malformed),
                Ok(None) => {}
                Err(Malformed) => return Ok(Next::Malformed),
            }
            if self.fill().await? == 0 {
                return Ok(Next::End);
            }
        }
    }

    /// Reads more behind what is there, of which there is less than the buffer holds. Returns how much; 0: the end.
    async fn fill(&mut self) -> Result<usize, ConnectionError<C::Error>> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let count = self.io.read(&mut self.input[self.end..]).await.map_err(ConnectionError::Io)?;
        self.end += count;
        Ok(count)
    }

    /// Writes `head` and `body` in one go.
    pub(crate) async fn respond(
        &mut self,
        head: Response,
        body: &str,
    ) -> Result<(), ConnectionError<C::Error>> {
        self.text.clear();
        head.write(self.platform.vm(), &mut self.text);
        self.text.push_str(body);
        self.io.write_all(self.text.as_bytes()).await.map_err(ConnectionError::Io)
    }

    /// Writes `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectionError<C::Error>> {
        self.io.write_all(bytes).await.map_err(ConnectionError::Io)
    }

    /// Moves to the next part of the body and returns its length; 0: the body has ended.
    pub(crate) async fn next_part(
        &mut self,
        decoder: &mut Decoder,
    ) -> Result<usize, ConnectionError<C::Error>> {
        loop {
            let piece = decoder.next(&self.input[self.start..self.end])?;
            self.start += piece.skip;
            if piece.data > 0 || decoder.is_done() {
                return Ok(piece.data);
            }
            if self.fill().await? == 0 {
                return Err(ConnectionError::Truncated);
            }
        }
    }

    /// Writes [`Self::text`].
    pub(crate) async fn write_text(&mut self) -> Result<(), ConnectionError<C::Error>> {
        self.io.write_all(self.text.as_bytes()).await.map_err(ConnectionError::Io)
    }

    /// Writes the `length` bytes that [`Self::next_part`] found, and moves behind them.
    pub(crate) async fn echo(&mut self, length: usize) -> Result<(), ConnectionError<C::Error>> {
        let part = &self.input[self.start..self.start + length];
        self.io.write_all(part).await.map_err(ConnectionError::Io)?;
        self.start += length;
        Ok(())
    }

    /// Whether nothing of what follows the head was received yet.
    pub(crate) fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// Skips what no handler has read of a body; whether that succeeded.
    async fn skip(
        &mut self,
        decoder: &mut Decoder,
        expects_continue: bool,
    ) -> Result<bool, ConnectionError<C::Error>> {
        let mut skipped = 0;
        while !decoder.is_done() {
            // A client that still waits for "continue" may send the body, or not: nothing is sure behind this.
            if expects_continue || skipped > SKIP_MAX {
                return Ok(false);
            }
            let length = self.next_part(decoder).await?;
            self.start += length;
            skipped += length;
        }
        Ok(true)
    }
}
