//! URLs of servers that weir asks itself.

use std::net::IpAddr;

use http::Uri;

/// An absolute `http` or `https` URL without a name and a password in it; `example` is what the message, the error, shows.
pub(crate) fn url(text: &str, example: &str) -> Result<Uri, String> {
    let no_url = || format!("{text:?} is no URL such as {example:?}");
    let uri: Uri = text.parse().map_err(|_| no_url())?;
    let has_host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if has_host && is_http { Ok(uri) } else { Err(no_url()) }
}

/// Whether nobody but this machine answers at a URL's host.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}
