//! HTTP Strict Transport Security (RFC 6797): browsers come back with TLS only.
//!
//! The value is made once for a listener, and reaches each answer with what else is known of its connection. Only
//! listeners with TLS can have one, so no answer in plain text does (§7.2).

use http::{HeaderValue, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use weir_config::model::Hsts;

use crate::tenancies;

/// What the field says.
pub(crate) fn value(hsts: &Hsts) -> HeaderValue {
    let mut value = format!("max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if hsts.preload {
        value.push_str("; preload");
    }
    HeaderValue::from_str(&value).expect("digits and tokens make a header value")
}

/// Puts the field of the listener that `session` came on into its answer, in place of what a VM says, of which browsers
/// would take the first (§8.1).
pub(crate) fn apply(session: &Session, response: &mut ResponseHeader) -> pingora::Result<()> {
    match tenancies::hsts(session) {
        Some(value) => response.insert_header(header::STRICT_TRANSPORT_SECURITY, value.clone()),
        None => Ok(()),
    }
}
