//! `[route.affinity]`: requests that come back to the same VM.

use std::time::Duration;

use toml::de::DeValue;

use crate::error::Sink;
use crate::key::Located;
use crate::model::{Affinity, AffinityKey, Isolation, SessionCookie};
use crate::pool::PoolSection;
use crate::reader::Reader;
use crate::route::RouteSection;
use crate::values::{duration, string};

/// Longest name of a cookie, bytes.
const LONGEST_NAME: usize = 64;

/// Names that browsers take only with attributes that this cookie need not have (RFC 6265bis §4.1.3).
const PREFIXES: [&str; 2] = ["__secure-", "__host-"];

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Located<Affinity>> {
    let name = |value: &DeValue<'_>| {
        let name = cookie_name(string(value)?)?;
        match PREFIXES.iter().find(|prefix| name.to_ascii_lowercase().starts_with(*prefix)) {
            Some(_) => Err(format!("{name:?} has a prefix that binds the cookie to attributes it may lack")),
            None => Ok(name),
        }
    };
    let cookie = table.read("cookie", name).optional();
    let max_age = table.read("max_age", duration).check(whole_seconds).optional();
    let key = table.read("hash", |value| key(&string(value)?)).optional();
    let (cookie, max_age, key) = (cookie?, max_age?, key?);
    if let (None, Some(max_age)) = (&cookie, &max_age) {
        table.sink().report(&max_age.place, "only a cookie of weir's has an age");
        return None;
    }
    let affinity = match (cookie, key) {
        (Some(name), None) => {
            let max_age = max_age.map(|age| age.value);
            Affinity::Session(SessionCookie { name: name.value, max_age })
        }
        (None, Some(key)) => Affinity::Hash(key.value),
        _ => {
            table.sink().report(table.place(), "needs either cookie or hash");
            return None;
        }
    };
    Some(Located { value: affinity, place: table.place().clone() })
}

fn key(text: &str) -> Result<AffinityKey, String> {
    match text.split_once(':') {
        None if text == "client" => Ok(AffinityKey::Client),
        Some(("header", name)) => {
            let name = name.parse().map_err(|_| format!("{name:?} is no name of a header field"))?;
            Ok(AffinityKey::Header(name))
        }
        Some(("cookie", name)) => cookie_name(name.to_owned()).map(AffinityKey::Cookie),
        _ => Err(format!(r#"must be "client", "header:NAME" or "cookie:NAME", is {text:?}"#)),
    }
}

/// A token, as RFC 6265 §4.1.1 has it.
pub(crate) fn cookie_name(name: String) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !(1..=LONGEST_NAME).contains(&name.len()) || !name.bytes().all(legal) {
        return Err(format!("{name:?} is no name of a cookie, 1 to {LONGEST_NAME} characters of a token"));
    }
    Ok(name)
}

fn whole_seconds(age: &Duration) -> Result<(), String> {
    if age.is_zero() || age.subsec_nanos() > 0 {
        return Err("must be in whole seconds, at least one".to_owned());
    }
    Ok(())
}

/// Nobody comes back to a VM that is reset after each request, or each connection.
pub(crate) fn check_isolation(routes: &[RouteSection], pools: &[PoolSection], sink: &Sink) {
    let is_reset = |name: &str| {
        let pool = pools.iter().find(|pool| pool.name == name)?.pool.as_ref()?;
        match pool.isolation {
            Isolation::Vm => None,
            Isolation::Connection => Some("connection"),
            Isolation::Request => Some("request"),
        }
    };
    for route in routes {
        let Some(affinity) = route.affinity() else { continue };
        for pool in route.pools() {
            if let Some(isolation) = is_reset(&pool.value) {
                let message = format!(
                    "pool {:?} has isolation = {isolation:?}: its VMs are nobody's to come back to",
                    pool.value
                );
                sink.report(&affinity.place, message);
            }
        }
    }
}
