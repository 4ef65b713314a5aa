//! Responses that are compressed on their way to clients that take it.
//!
//! ```text
//!  a VM's header --> may it be? --no--> as it is
//!                      | yes: Vary
//!                      v
//!                    what does the client want? --nothing, or too many at once--> as it is
//!                      | a coding: Content-Encoding, ETag weakened, no length, no ranges
//!                      v
//!                    body, piece by piece, through the Encoder
//! ```
//!
//! pingora has a module for this; it knows neither weights nor `no-transform`, has no bounds for windows, and flushes nothing
//! before the end. The compressors are the same crates. See ADR 0025.

pub(crate) mod accept;
mod encoder;
mod header;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType};
use weir_config::model::Compress;

use encoder::Encoder;

/// Responses that may be compressed at once, all routes together: each takes up to some 4 MiB for as long as its client
/// takes to read it. What is more is sent as it is.
const AT_ONCE: usize = 256;

/// How many are compressed now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compressing(Arc<AtomicUsize>);

/// A response that is being compressed.
#[derive(Debug)]
pub(crate) struct Compressed {
    encoder: Encoder,
    _place: Taken,
}

/// A place among those; given back when dropped.
#[derive(Debug)]
struct Taken(Compressing);

impl Compressing {
    fn take(&self) -> Option<Taken> {
        let more = |number: usize| (number < AT_ONCE).then_some(number + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Taken(self.clone()))
    }

    /// Looks at a response's header, and changes it if its body is to be compressed.
    pub(crate) fn begin(
        &self,
        rules: &Compress,
        request: &RequestHeader,
        response: &mut ResponseHeader,
    ) -> pingora::Result<Option<Box<Compressed>>> {
        if !header::may_be_compressed(rules, response) {
            return Ok(None);
        }
        header::add_vary(response)?;
        // Of a HEAD, the length says what a GET without compression would have. HTTP/1.0 has no chunks.
        if request.method == Method::HEAD || request.version == Version::HTTP_10 {
            return Ok(None);
        }
        let Some(coding) = accept::choose(&request.headers, &rules.algorithms) else { return Ok(None) };
        let Some(place) = self.take() else { return Ok(None) };
        let encoder = Encoder::new(coding, rules.level, header::content_length(response)).map_err(failed)?;
        header::encode(response, coding)?;
        Ok(Some(Box::new(Compressed { encoder, _place: place })))
    }
}

impl Compressed {
    /// Puts what is to be sent in the place of a piece of the body.
    pub(crate) fn pass(&mut self, body: &mut Option<Bytes>, ends: bool) -> pingora::Result<()> {
        let piece = body.take().unwrap_or_default();
        *body = self.encoder.encode(&piece, ends).map_err(failed)?;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

fn failed(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::InternalError, "compress a response", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let compressing = Compressing::default();
        let taken: Vec<_> = std::iter::from_fn(|| compressing.take()).collect();
        assert_eq!(taken.len(), AT_ONCE);
        drop(taken);
        assert!(compressing.take().is_some());
        assert_eq!(compressing.0.load(Relaxed), 0);
    }
}
