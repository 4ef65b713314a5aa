//! Hostile bytes for what reads them, one function for each reader: what must hold for all bytes is asserted. The bytes are
//! the seeds in `fuzz/corpus`, a folder for each function.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;
use prometheus::IntCounter;
use weir_config::model::{Content as _, HostPattern, Passwords};

use crate::auth::basic;
use crate::compress::accept;
use crate::downstream::proxy_protocol as proxy;
use crate::routes::Router;
use crate::rules::{Facts, Rules};
use crate::target;

/// A configuration's text. What is wrong with one that is refused can be written.
fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(errors) = weir_config::parse(text, "weir.toml") {
        assert!(errors.to_string().starts_with("weir.toml"), "{errors}");
    }
}

/// What a load balancer sends first. A header is read to its end and not further, and no sooner than it is whole.
fn proxy_protocol(bytes: &[u8]) {
    if let Some(length) = proxy::header_length(bytes) {
        assert_eq!(proxy::header_length(&bytes[..length]), Some(length));
        assert_eq!(proxy::header_length(&bytes[..length - 1]), None);
    }
}

/// A line with an authority, and behind it a request's target. The path that routes are compared with has one spelling,
/// and the route that is found is a prefix of whole segments.
fn router(bytes: &[u8]) {
    let (authority, target) = first_line(bytes);
    let (Ok(host), Ok(path)) = (target::host(authority), target::path(target)) else { return };
    assert!(path.starts_with(b"/"));
    assert!(!path.contains(&0) && !path.contains(&b'\\'));
    assert!(!path.windows(2).any(|two| two == b"//"));
    let dots = |segment: &[u8]| matches!(segment, b"." | b"..");
    assert!(!path.split(|byte| *byte == b'/').any(dots));

    let exact = HostPattern::Exact("a.example".to_owned());
    let suffix = HostPattern::Suffix("example".to_owned());
    let paths = ["/", "/a", "/a/b", "/%C3%B6/x"];
    let router = Router::new(
        [&exact, &suffix].into_iter().flat_map(|host| paths.map(|path| ((host, path, &[][..]), path))),
    );
    let Some(found) = router.find(&host, &path, &HeaderMap::new()) else { return };
    assert!(host.ends_with(".example"));
    let prefix = target::path(found.as_bytes()).expect("the routes' paths are good ones");
    let rest = path.strip_prefix(&*prefix).expect("a route's path begins the request's");
    assert!(*found == "/" || rest.is_empty() || rest.starts_with(b"/"));
}

/// A line with a condition, a line with a target, and the value of the field `x`. Rules that are looked up decide as those
/// that are evaluated one by one.
fn rules(bytes: &[u8]) {
    let (condition, rest) = first_line(bytes);
    let (target, value) = first_line(rest);
    let Ok(condition) = std::str::from_utf8(condition) else { return };
    let text = format!(
        "[[listener]]\naddress = '127.0.0.1:0'\n[[route]]\nrespond = {{}}\n[[route.filter.rule]]\nwhen = '''{condition}'''\n\
         then = 404\n[[route.filter.rule]]\nwhen = \"request.path.startsWith('/a')\"\nthen = 'deny'\n"
    );
    let Ok(config) = weir_config::parse(&text, "weir.toml") else { return };
    let Ok(mut request) = RequestHeader::build("GET", target, None) else { return };
    if let Ok(value) = HeaderValue::from_bytes(value)
        && request.insert_header("x", value).is_err()
    {
        return;
    }
    let errors = IntCounter::new("errors", "errors").expect("a name");
    for route in &config.routes {
        let rules = Rules::new(&route.filter.rules, errors.clone());
        let facts = Facts::new(&request, Some([10, 0, 0, 1].into()), false);
        assert_eq!(rules.refuse(&facts), rules.refuse_one_by_one(&facts));
    }
}

/// Lines with values of `Accept-Encoding`. No coding is chosen that no client has spoken of.
fn accept_encoding(bytes: &[u8]) {
    let headers = fields(&header::ACCEPT_ENCODING, bytes);
    if let Some(name) = accept::chosen(&headers) {
        let text = bytes.to_ascii_lowercase();
        let spoken_of = text.windows(name.len()).any(|part| part == name.as_bytes());
        assert!(spoken_of || text.contains(&b'*'), "{name}");
    }
}

/// A line with the value of `Authorization`, and behind it a file of passwords.
fn basic_auth(bytes: &[u8]) {
    let (value, file) = first_line(bytes);
    if let Some(user) = basic::named_user(&fields(&header::AUTHORIZATION, value)) {
        assert!(!user.contains(&b':'));
    }
    match Passwords::parse(file) {
        Ok(users) => assert!(!users.0.is_empty()),
        Err(message) => assert!(message.starts_with("line "), "{message}"),
    }
}

/// Without its end, and what is behind.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    end.map_or((bytes, &[]), |end| (&bytes[..end], &bytes[end + 1..]))
}

/// A field of the name for each line, as far as it can be one.
fn fields(name: &HeaderName, lines: &[u8]) -> HeaderMap {
    let values = lines.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (name.clone(), value)).fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    type Reader = fn(&[u8]);

    /// Every reader, by the name of its folder of seeds.
    const TARGETS: [(&str, Reader); 6] = [
        ("config", config),
        ("proxy_protocol", proxy_protocol),
        ("router", router),
        ("rules", rules),
        ("accept_encoding", accept_encoding),
        ("basic_auth", basic_auth),
    ];

    #[test]
    fn every_seed_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let folders: BTreeSet<_> =
            entries(&corpus).map(|folder| folder.file_name().into_string().unwrap()).collect();
        assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
        for (name, target) in TARGETS {
            let mut seeds = 0;
            for seed in entries(&corpus.join(name)) {
                target(&fs::read(seed.path()).unwrap());
                seeds += 1;
            }
            assert!(seeds > 0, "{name}");
        }
    }
}
