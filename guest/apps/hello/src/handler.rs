//! What each path answers.

use alloc::string::String;
use alloc::vec;
use core::fmt::Write as _;

use embedded_io_async::{Read, Write};

use crate::app::{App, Platform};
use crate::body::Decoder;
use crate::connection::{Connection, ConnectionError};
use crate::head::{Framing, Head, Route};
use crate::response::{Length, Response};

/// `/bytes` sends blocks of this size, bytes.
const BLOCK: usize = 16 * 1024;
/// "100 Continue", whole.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

type Outcome<C> = Result<(), ConnectionError<<C as embedded_io_async::ErrorType>::Error>>;

/// Answers the request `head`, whose body `decoder` finds.
pub(crate) async fn respond<C: Read + Write, P: Platform>(
    connection: &mut Connection<'_, C, P>,
    head: &Head,
    decoder: &mut Decoder,
    app: &App,
) -> Outcome<C> {
    let platform = connection.platform;
    let mut body = String::new();
    let mut response = Response::new(head, "200 OK", 0);
    match &head.route {
        Route::Echo => return echo(connection, head, decoder).await,
        Route::Bytes(count) => return bytes(connection, head, *count).await,
        Route::Greeting => app.greet(platform, &mut body),
        Route::Metrics => {
            app.metrics(platform, &mut body);
            response.content_type = "text/plain; version=0.0.4";
        }
        Route::Sleep(duration) => {
            platform.sleep(*duration).await;
            body.push_str("slept\n");
        }
        Route::Spin(duration) => {
            platform.spin(*duration);
            body.push_str("spun\n");
        }
        Route::Crash(how) => platform.crash(*how),
        Route::NotFound => response.status = "404 Not Found",
        Route::BadQuery => response.status = "400 Bad Request",
        Route::NotAllowed(methods) => {
            response.status = "405 Method Not Allowed";
            response.allow = Some(methods);
        }
    }
    // Behind a body that will not be read the connection ends; the client is told.
    response.keep_alive &= decoder.is_done() || !head.expects_continue;
    response.length = Length::Known(body.len() as u64);
    connection.respond(response, if head.head_only { "" } else { &body }).await
}

async fn echo<C: Read + Write, P: Platform>(
    connection: &mut Connection<'_, C, P>,
    head: &Head,
    decoder: &mut Decoder,
) -> Outcome<C> {
    if head.expects_continue && connection.is_drained() {
        connection.write(CONTINUE).await?;
    }
    // The first part before the head: broken framing can still be answered properly.
    let mut length = match connection.next_part(decoder).await {
        Err(ConnectionError::BadChunk) => {
            connection.respond(Response::malformed(), "").await?;
            return Err(ConnectionError::BadChunk);
        }
        other => other?,
    };
    let chunked = head.framing == Framing::Chunked;
    let mut response = Response::new(head, "200 OK", 0);
    response.content_type = "application/octet-stream";
    response.length = match head.framing {
        Framing::Length(length) => Length::Known(length),
        Framing::Chunked => Length::Chunked,
    };
    connection.respond(response, "").await?;
    while length > 0 {
        if chunked {
            connection.text.clear();
            // A string takes any text.
            let _ = write!(connection.text, "{length:x}\r\n");
            connection.write_text().await?;
        }
        connection.echo(length).await?;
        if chunked {
            connection.write(b"\r\n").await?;
        }
        length = connection.next_part(decoder).await?;
    }
    if chunked { connection.write(b"0\r\n\r\n").await } else { Ok(()) }
}

async fn bytes<C: Read + Write, P: Platform>(
    connection: &mut Connection<'_, C, P>,
    head: &Head,
    count: u64,
) -> Outcome<C> {
    let mut response = Response::new(head, "200 OK", count);
    response.content_type = "application/octet-stream";
    connection.respond(response, "").await?;
    if head.head_only {
        return Ok(());
    }
    let block = vec![b'w'; usize::try_from(count).map_or(BLOCK, |count| count.min(BLOCK))];
    let mut left = count;
    while left > 0 {
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        connection.write(&block[..length]).await?;
        left -= length as u64;
    }
    Ok(())
}
