//! `[route.cors]`: what pages of other origins may do.

use std::time::Duration;

use http::{HeaderName, Method};
use toml::de::DeValue;

use crate::model::{Cors, Origins};
use crate::reader::Reader;
use crate::route::{each_once, method};
use crate::values::{boolean, duration, string};

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Cors> {
    let origins = table.strings("origins", origin).check(|origins| check_origins(origins)).required();
    let usual = || vec![Method::GET, Method::HEAD, Method::POST];
    let methods = table.strings("methods", method).check(|methods| each_once(methods)).or(usual());
    let headers = table.strings("headers", field_name).or(Vec::new());
    let expose_headers = table.strings("expose_headers", field_name).or(Vec::new());
    let credentials = table.read("credentials", boolean).or(false);
    let max_age = table.read("max_age", duration).or(Duration::from_secs(5));
    let (origins, credentials) = (origins?.value, credentials?);
    let any = origins == ["*"];
    if any && credentials.value {
        // Browsers refuse it (Fetch §3.3.5); to name every origin instead would give them all users' cookies.
        table.sink().report(&credentials.place, "needs origins that are named, not \"*\"");
        return None;
    }
    Some(Cors {
        origins: if any { Origins::Any } else { Origins::These(origins) },
        methods: methods?.value,
        headers: headers?.value,
        expose_headers: expose_headers?.value,
        credentials: credentials.value,
        max_age: max_age?.value,
    })
}

fn field_name(value: &DeValue<'_>) -> Result<HeaderName, String> {
    let text = string(value)?;
    text.parse().map_err(|_| format!("{text:?} is no name of a header field"))
}

/// An origin as browsers write it; otherwise it would match none.
fn origin(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let port = |rest: &str| match rest.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => port.parse::<u16>().is_ok(),
        _ => true,
    };
    let valid = text == "*"
        || text.split_once("://").is_some_and(|(scheme, rest)| {
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
            matches!(scheme, "http" | "https") && !rest.is_empty() && rest.chars().all(legal) && port(rest)
        });
    if !valid {
        return Err(format!(
            r#"{text:?} is no origin such as "https://app.example" or "http://localhost:3000""#
        ));
    }
    let usual = (text.starts_with("https://") && text.ends_with(":443"))
        || (text.starts_with("http://") && text.ends_with(":80"));
    if usual {
        return Err(format!("{text:?} has its scheme's own port, which browsers leave out"));
    }
    Ok(text)
}

fn check_origins(origins: &[String]) -> Result<(), String> {
    if origins.is_empty() {
        return Err("must name at least one origin".to_owned());
    }
    if origins.len() > 1 && origins.iter().any(|origin| origin == "*") {
        return Err("has \"*\" and others, which is any".to_owned());
    }
    Ok(())
}
