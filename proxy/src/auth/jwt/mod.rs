//! Signed tokens (JWT, RFC 7519, in the compact form of RFC 7515).
//!
//! ```text
//!  token --seen before?--no--> header --> key --> signature --> claims --> remembered --.
//!            `-------------------------- yes -------------------------------------------+--> in time? --> let in
//! ```
//!
//! What a token says of how it is to be verified is not believed (RFC 8725): the algorithm has to be one that the route takes and
//! that the key is for, the key is one of the file's, and whatever else the header has (`jwk`, `jku`, `x5u`) is not looked at.
//! Nothing of the claims is read before the signature is right. What is remembered ends with the keys that it was verified by.

mod claims;
mod json;
mod keys;
mod token;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use weir_config::model::{JwtAuth, KeySet, TokenSource};

use super::{Identified, unauthorized};
use crate::filter::Refused;
use crate::follow::{Follow, Followed};
use crate::resilience::cookies;
use claims::{Admitted, Expected};
use keys::Keys;
use token::Token;

/// Longest token, bytes.
const LONGEST: usize = 8192;

/// `[route.auth.jwt]`, ready for use.
#[derive(Debug)]
pub(super) struct Jwt {
    keys: Arc<Followed<KeySet, Keys>>,
    source: TokenSource,
    expected: Expected,
    leeway: Duration,
    realm: String,
}

/// Why a token lets nobody in. Clients are told, in a quoted string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("there are several tokens")]
    Several,
    #[error("it has more than 8192 bytes")]
    TooLong,
    #[error("it is no signed token")]
    Malformed,
    #[error("its alg is not taken here")]
    Algorithm,
    #[error("it has a crit that is not understood")]
    Critical,
    #[error("no key here is for its alg and kid")]
    NoKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it has no exp, or no number there")]
    NoExpiry,
    #[error("its nbf is no number")]
    NotBefore,
    #[error("its iss is not the one that is trusted")]
    Issuer,
    #[error("its aud is somebody else")]
    Audience,
    #[error("a claim cannot be told in a header field")]
    Claim,
    #[error("it is not valid yet")]
    Early,
    #[error("it has expired")]
    Expired,
}

impl Jwt {
    pub(super) fn new(config: &JwtAuth) -> Self {
        let algorithms = config.algorithms.clone();
        Self {
            keys: Followed::new(&config.jwks, move |keys| Keys::new(keys, &algorithms)),
            source: config.source.clone(),
            expected: Expected::new(config),
            leeway: config.leeway,
            realm: config.realm.clone(),
        }
    }

    pub(super) fn file(&self) -> Arc<dyn Follow> {
        Arc::clone(&self.keys) as _
    }

    pub(super) fn identify(&self, headers: &HeaderMap, now: SystemTime) -> Result<Arc<Identified>, Refused> {
        let token = find(&self.source, headers).map_err(|flaw| self.refuse(Some(flaw)))?;
        let token = token.ok_or_else(|| self.refuse(None))?;
        self.admit(token, now).map_err(|flaw| self.refuse(Some(flaw)))
    }

    fn admit(&self, token: &[u8], now: SystemTime) -> Result<Arc<Identified>, Flaw> {
        if token.len() > LONGEST {
            return Err(Flaw::TooLong);
        }
        let keys = self.keys.get();
        let digest = keys.seen.digest(&[token]);
        if let Some(admitted) = keys.seen.get(digest) {
            admitted.check_time(now, self.leeway)?;
            return Ok(admitted.identified);
        }
        let token = Token::parse(token)?;
        keys.verify(&token)?;
        let admitted = Admitted::new(&token.claims()?, &self.expected)?;
        admitted.check_time(now, self.leeway)?;
        let identified = Arc::clone(&admitted.identified);
        keys.seen.put(digest, admitted);
        Ok(identified)
    }

    /// `None`: there is no token, which is told without an error (RFC 6750 §3.1).
    fn refuse(&self, flaw: Option<Flaw>) -> Refused {
        let mut challenge = format!("Bearer realm=\"{}\"", self.realm);
        if let Some(flaw) = flaw {
            challenge += &format!(", error=\"invalid_token\", error_description=\"{flaw}\"");
        }
        unauthorized(&HeaderValue::from_str(&challenge).expect("a realm and a flaw are printable ASCII"))
    }
}

/// The token as it was sent; `None`: there is none.
fn find<'h>(source: &'h TokenSource, headers: &'h HeaderMap) -> Result<Option<&'h [u8]>, Flaw> {
    match source {
        TokenSource::Bearer => Ok(only(headers, &header::AUTHORIZATION)?.and_then(bearer)),
        TokenSource::Header(name) => only(headers, name),
        // Browsers send the one of the closest path first (RFC 6265 §5.4).
        TokenSource::Cookie(name) => Ok(cookies(headers, name).next()),
    }
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, Flaw> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_bytes().trim_ascii())),
        (_, Some(_)) => Err(Flaw::Several),
    }
}

/// `None`: these are credentials of another scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests;
