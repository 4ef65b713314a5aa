//! A token's three parts (RFC 7515 §7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use weir_config::model::Algorithm;

use super::Flaw;
use super::json::Object;

/// A token of which nothing is verified.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    /// Which key it says it was signed with.
    pub(super) key: Option<String>,
    /// What is signed: header and claims as they were sent.
    pub(super) signed: &'t [u8],
    pub(super) signature: Vec<u8>,
    claims: &'t [u8],
}

impl<'t> Token<'t> {
    pub(super) fn parse(token: &'t [u8]) -> Result<Self, Flaw> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Flaw::Malformed);
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header = Object::parse(&decode(header)?).ok_or(Flaw::Malformed)?;
        // What it names has to be understood, and weir understands none (RFC 7515 §4.1.11).
        if header.get("crit").is_some() {
            return Err(Flaw::Critical);
        }
        let algorithm = header.text("alg").and_then(Algorithm::named).ok_or(Flaw::Algorithm)?;
        let key = match header.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().ok_or(Flaw::Malformed)?.to_owned()),
        };
        Ok(Self { algorithm, key, signed, signature: decode(signature)?, claims })
    }

    /// Only of a token whose signature is right.
    pub(super) fn claims(&self) -> Result<Object, Flaw> {
        Object::parse(&decode(self.claims)?).ok_or(Flaw::Malformed)
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Flaw> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Malformed)
}
