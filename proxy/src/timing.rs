//! `Server-Timing` (https://www.w3.org/TR/server-timing/): where a request's time went, for the page that sent it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use weir_pool::Start;

use crate::context::Context;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Says in a response's header how long it took up to here, after what the VM says.
pub(crate) fn add(ctx: &Context, response: &mut ResponseHeader) -> pingora::Result<()> {
    if response.status.is_informational() {
        return Ok(());
    }
    let all = ctx.first_byte.unwrap_or_else(|| ctx.began.elapsed());
    let value = value(all, ctx.queued, ctx.start);
    response.append_header(SERVER_TIMING, value)?;
    Ok(())
}

/// All: since the request's header was read. The VM has what was not waited for it.
fn value(all: Duration, queued: Duration, start: Option<Start>) -> HeaderValue {
    let [all_ms, queue_ms, upstream_ms] =
        [all, queued, all.saturating_sub(queued)].map(|time| time.as_secs_f64() * 1e3);
    let wake = start.map_or("none", Start::label);
    let text = format!(
        "weir;dur={all_ms:.3}, queue;dur={queue_ms:.3}, wake;desc={wake}, upstream;dur={upstream_ms:.3}"
    );
    HeaderValue::try_from(text).expect("digits, names and punctuation make a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_milliseconds() {
        let value = value(Duration::from_micros(12_345), Duration::from_micros(12_000), Some(Start::Clone));
        assert_eq!(value, "weir;dur=12.345, queue;dur=12.000, wake;desc=clone, upstream;dur=0.345");
    }
}
