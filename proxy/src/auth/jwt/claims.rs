//! What a token says, once its signature is right.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use weir_config::model::JwtAuth;

use super::Flaw;
use super::json::Object;
use crate::auth::Identified;

/// All that a VM is told of one token, bytes; it is remembered with it.
const LONGEST_FIELDS: usize = 4096;

/// Longest `sub` that is written down as the user, bytes.
const LONGEST_USER: usize = 256;

/// What a route wants of claims.
#[derive(Debug)]
pub(super) struct Expected {
    issuer: Option<String>,
    audience: Vec<String>,
    fields: Vec<(String, HeaderName)>,
}

/// Whom a token lets in, and when.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) identified: Arc<Identified>,
    /// Seconds since 1970, like all of a token's times (RFC 7519 §2, NumericDate).
    from: f64,
    until: f64,
}

impl Expected {
    pub(super) fn new(config: &JwtAuth) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            fields: config.claims_to_headers.clone(),
        }
    }

    /// A token that is for somebody is not for others, also where nobody says who that is (RFC 7519 §4.1.3).
    fn is_audience(&self, aud: Option<&Value>) -> bool {
        let is_one =
            |value: &Value| value.as_str().is_some_and(|name| self.audience.iter().any(|one| one == name));
        match aud {
            None => self.audience.is_empty(),
            Some(Value::Array(names)) => names.iter().any(is_one),
            Some(name) => is_one(name),
        }
    }
}

impl Admitted {
    pub(super) fn new(claims: &Object, expected: &Expected) -> Result<Self, Flaw> {
        let until = claims.get("exp").and_then(Value::as_f64).ok_or(Flaw::NoExpiry)?;
        let from = match claims.get("nbf") {
            None => f64::NEG_INFINITY,
            Some(nbf) => nbf.as_f64().ok_or(Flaw::NotBefore)?,
        };
        if expected.issuer.as_deref().is_some_and(|issuer| claims.text("iss") != Some(issuer)) {
            return Err(Flaw::Issuer);
        }
        if !expected.is_audience(claims.get("aud")) {
            return Err(Flaw::Audience);
        }
        let fields = fields(claims, &expected.fields)?;
        let user = claims.text("sub").filter(|user| user.len() <= LONGEST_USER).map(Box::from);
        Ok(Self { identified: Arc::new(Identified { user, fields }), from, until })
    }

    /// Whether it is valid now, if clocks are `leeway` apart.
    pub(super) fn check_time(&self, now: SystemTime, leeway: Duration) -> Result<(), Flaw> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = leeway.as_secs_f64();
        if now + leeway < self.from {
            return Err(Flaw::Early);
        }
        if now >= self.until + leeway {
            return Err(Flaw::Expired);
        }
        Ok(())
    }
}

/// Those of the claims that are there.
fn fields(claims: &Object, names: &[(String, HeaderName)]) -> Result<Box<[(HeaderName, HeaderValue)]>, Flaw> {
    let there = names.iter().filter_map(|(claim, name)| Some((text(claims.get(claim)?)?, name)));
    let fields = there.map(|(text, name)| Ok((name.clone(), value(&text)?)));
    let fields: Box<[_]> = fields.collect::<Result<_, Flaw>>()?;
    if fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() > LONGEST_FIELDS {
        return Err(Flaw::Claim);
    }
    Ok(fields)
}

/// Strings as they are, whatever else in JSON: what joins the elements of an array is in none of them then.
fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Fields lose blanks at their ends on their way, which would make one user of two.
fn value(text: &str) -> Result<HeaderValue, Flaw> {
    if text.trim_ascii() != text {
        return Err(Flaw::Claim);
    }
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Flaw::Claim)
}
