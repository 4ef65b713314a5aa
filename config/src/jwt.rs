//! `[route.auth.jwt]`: tokens that somebody else has signed.

use std::time::Duration;

use http::HeaderName;

use crate::affinity::cookie_name;
use crate::auth::check_realm;
use crate::fields;
use crate::file;
use crate::key::Located;
use crate::model::{Algorithm, FileOf, JwtAuth, KeySet, TokenSource};
use crate::reader::Reader;
use crate::values::{boolean, choice, duration, string};

/// How far clocks may be apart at most.
const LONGEST_LEEWAY: Duration = Duration::from_secs(600);

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<JwtAuth> {
    let jwks = table.read("jwks", file::read).required();
    let algorithms = table.strings("algorithms", choice(Algorithm::NAMES)).check(|all| check_some(all));
    let algorithms = algorithms.required();
    let issuer = table.read("issuer", string).optional();
    let audience = table.strings("audience", string).or(Vec::new());
    let leeway = table.read("leeway", duration).check(check_leeway).or(Duration::from_secs(30));
    let source = source(table);
    let realm = table.read("realm", string).check(|realm| check_realm(realm)).or("weir".to_owned());
    let claims = claims(table);
    let forward = table.read("forward", boolean).or(false);
    let (jwks, algorithms) = (jwks?, algorithms?.value);
    check_keys(&jwks, &algorithms, table)?;
    Some(JwtAuth {
        jwks: jwks.value,
        algorithms,
        issuer: issuer?.map(|issuer| issuer.value),
        audience: audience?.value,
        leeway: leeway?.value,
        source: source?,
        realm: realm?.value,
        claims_to_headers: claims?,
        forward: forward?.value,
    })
}

fn check_some(algorithms: &[Algorithm]) -> Result<(), String> {
    if algorithms.is_empty() {
        return Err("must name at least one algorithm".to_owned());
    }
    Ok(())
}

fn check_leeway(leeway: &Duration) -> Result<(), String> {
    if *leeway > LONGEST_LEEWAY {
        return Err("must not be longer than 10m: tokens would outlive what they say".to_owned());
    }
    Ok(())
}

/// Otherwise nobody could be let in.
fn check_keys(jwks: &Located<FileOf<KeySet>>, algorithms: &[Algorithm], table: &Reader<'_>) -> Option<()> {
    let keys = &jwks.value.content.0;
    if keys.iter().any(|key| key.algorithms.iter().any(|algorithm| algorithms.contains(algorithm))) {
        return Some(());
    }
    table.sink().report(&jwks.place, "none of its keys is for one of the algorithms");
    None
}

/// `None`: some of it is wrong.
fn source(table: &mut Reader<'_>) -> Option<TokenSource> {
    let header = table.read("header", |value| fields::name(&string(value)?)).optional();
    let cookie = table.read("cookie", |value| cookie_name(string(value)?)).optional();
    match (header?, cookie?) {
        (None, None) => Some(TokenSource::Bearer),
        (Some(header), None) => Some(TokenSource::Header(header.value)),
        (None, Some(cookie)) => Some(TokenSource::Cookie(cookie.value)),
        (Some(_), Some(cookie)) => {
            table.sink().report(&cookie.place, "tokens are in either a header or a cookie");
            None
        }
    }
}

/// `None`: some of it is wrong.
fn claims(table: &mut Reader<'_>) -> Option<Vec<(String, HeaderName)>> {
    const KEY: &str = "claims_to_headers";
    let strings = table.named_strings(KEY, |_, name| fields::name(name).map(drop))?;
    let claims: Option<Vec<_>> =
        strings.into_iter().map(|(claim, name)| Some((claim, fields::name(&name).ok()?))).collect();
    let claims = claims?;
    let twice = |(index, (_, name)): (usize, &(String, HeaderName))| {
        claims[..index].iter().any(|(_, other)| other == name).then(|| name.clone())
    };
    match claims.iter().enumerate().find_map(twice) {
        None => Some(claims),
        Some(name) => {
            let message = format!("{KEY} has the field {:?} for several claims", name.as_str());
            table.sink().report(table.place(), message);
            None
        }
    }
}
