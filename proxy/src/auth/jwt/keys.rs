//! Keys, and signatures by them.

use ring::hmac;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use weir_config::model::{Algorithm, KeyMaterial, KeySet, TokenKey};

use super::Flaw;
use super::claims::Admitted;
use super::token::Token;
use crate::auth::seen::Seen;

/// Most keys that a token is held against. Issuers have two while they change from one to the next.
const MOST_TRIED: usize = 4;

/// A file's keys.
#[derive(Debug)]
pub(super) struct Keys {
    /// Each only with what the route takes.
    keys: Box<[TokenKey]>,
    /// Tokens that were signed with one of them.
    pub(super) seen: Seen<Admitted>,
}

impl Keys {
    /// Those that are for one of the algorithms.
    pub(super) fn new(set: &KeySet, algorithms: &[Algorithm]) -> Self {
        let restrict = |key: &TokenKey| {
            let mut key = key.clone();
            key.algorithms.retain(|algorithm| algorithms.contains(algorithm));
            (!key.algorithms.is_empty()).then_some(key)
        };
        Self { keys: set.0.iter().filter_map(restrict).collect(), seen: Seen::new() }
    }

    /// Whether one of them has signed the token: of those that its `kid` names, or of all if it names none.
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), Flaw> {
        if !self.keys.iter().any(|key| key.algorithms.contains(&token.algorithm)) {
            return Err(Flaw::Algorithm);
        }
        let fits = |key: &&TokenKey| {
            key.algorithms.contains(&token.algorithm) && (token.key.is_none() || token.key == key.id)
        };
        let mut candidates = self.keys.iter().filter(fits).take(MOST_TRIED).peekable();
        candidates.peek().ok_or(Flaw::NoKey)?;
        match candidates.any(|key| has_signed(&key.material, token)) {
            true => Ok(()),
            false => Err(Flaw::Signature),
        }
    }
}

/// Takes some 100us at most, for keys of usual sizes.
fn has_signed(key: &KeyMaterial, token: &Token<'_>) -> bool {
    let Token { algorithm, signed, signature, .. } = token;
    match key {
        KeyMaterial::Rsa { modulus, exponent } => {
            let key = RsaPublicKeyComponents { n: modulus, e: exponent };
            rsa(*algorithm).is_some_and(|scheme| key.verify(scheme, signed, signature).is_ok())
        }
        KeyMaterial::Point(point) => curve(*algorithm)
            .is_some_and(|scheme| UnparsedPublicKey::new(scheme, point).verify(signed, signature).is_ok()),
        KeyMaterial::Secret(secret) => hash(*algorithm)
            .is_some_and(|hash| hmac::verify(&hmac::Key::new(hash, secret), signed, signature).is_ok()),
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::Es256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::Es384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDsa => Some(&signature::ED25519),
        _ => None,
    }
}

fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
        Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
        Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}
