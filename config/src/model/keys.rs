//! Keys that tokens are signed with, in a file as issuers publish them (JWK set, RFC 7517).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Algorithm, Content};

/// Keys, at least one, each of which can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(pub Vec<TokenKey>);

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// `kid`, if it has one.
    pub id: Option<String>,
    /// What it may be used with; never what is for keys of other kinds.
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub material: KeyMaterial,
}

/// A key without its description.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// An RSA public key: big-endian, without zeros in front, of 2048 to 8192 bits.
    Rsa {
        /// `n`.
        modulus: Vec<u8>,
        /// `e`.
        exponent: Vec<u8>,
    },
    /// A point on P-256 or P-384, uncompressed (SEC 1 §2.3.3), or an Ed25519 public key.
    Point(Vec<u8>),
    /// For HMAC; at least 32 bytes.
    Secret(Vec<u8>),
}

/// Most keys in a set that are looked at.
const MOST: usize = 100;

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// The members that matter here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Content for KeySet {
    const LARGEST: u64 = 1 << 20;

    /// Keys of other kinds, and such that are not for signatures, are left out (RFC 7517 §5).
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| format!("is no JWK set: {error}"))?;
        if document.keys.len() > MOST {
            return Err(format!("has {} keys, at most {MOST} are allowed", document.keys.len()));
        }
        let mut keys = Vec::new();
        for (number, key) in (1..).zip(document.keys) {
            keys.extend(read(key).map_err(|message| format!("key {number}: {message}"))?);
        }
        if keys.is_empty() {
            return Err("has no key for signatures of RSA, P-256, P-384, Ed25519 or HMAC".to_owned());
        }
        Ok(Self(keys))
    }
}

/// `None`: it is a key for something else.
fn read(key: serde_json::Value) -> Result<Option<TokenKey>, String> {
    let key: Jwk = serde_json::from_value(key).map_err(|error| error.to_string())?;
    if key.usage.as_ref().is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    use Algorithm::{EdDsa, Es256, Es384, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    let (material, possible) = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", _) => (rsa(&key)?, vec![Rs256, Rs384, Rs512, Ps256, Ps384, Ps512]),
        ("EC", Some("P-256")) => (point(&key, 32)?, vec![Es256]),
        ("EC", Some("P-384")) => (point(&key, 48)?, vec![Es384]),
        ("OKP", Some("Ed25519")) => (KeyMaterial::Point(coordinate(&key.x, "x", 32)?), vec![EdDsa]),
        ("oct", _) => {
            let secret = member(&key.k, "k")?;
            let long_enough = [(Hs256, 32), (Hs384, 48), (Hs512, 64)];
            // RFC 7518 §3.2.
            let fit = long_enough.into_iter().filter(|(_, bytes)| secret.len() >= *bytes);
            let fit: Vec<_> = fit.map(|(algorithm, _)| algorithm).collect();
            if fit.is_empty() {
                return Err(format!("k has {} bytes, HS256 needs 32", secret.len()));
            }
            (KeyMaterial::Secret(secret), fit)
        }
        _ => return Ok(None),
    };
    let algorithms: Vec<_> = match &key.alg {
        None => possible,
        Some(alg) => possible.into_iter().filter(|one| Algorithm::named(alg) == Some(*one)).collect(),
    };
    Ok((!algorithms.is_empty()).then_some(TokenKey { id: key.kid, algorithms, material }))
}

fn rsa(key: &Jwk) -> Result<KeyMaterial, String> {
    let number = |text, name| -> Result<Vec<u8>, String> {
        let bytes = member(text, name)?;
        Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    let (modulus, exponent) = (number(&key.n, "n")?, number(&key.e, "e")?);
    let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - zeros;
    if !(2048..=8192).contains(&bits) {
        return Err(format!("n has {bits} bits, must have 2048 to 8192"));
    }
    let is_odd = exponent.last().is_some_and(|byte| byte % 2 == 1);
    if exponent.len() > 4 || exponent == [1] || !is_odd {
        return Err("e is no exponent of RSA".to_owned());
    }
    Ok(KeyMaterial::Rsa { modulus, exponent })
}

fn point(key: &Jwk, bytes: usize) -> Result<KeyMaterial, String> {
    let (x, y) = (coordinate(&key.x, "x", bytes)?, coordinate(&key.y, "y", bytes)?);
    Ok(KeyMaterial::Point([&[4], &x[..], &y].concat()))
}

fn coordinate(text: &Option<String>, name: &str, bytes: usize) -> Result<Vec<u8>, String> {
    let decoded = member(text, name)?;
    if decoded.len() != bytes {
        return Err(format!("{name} has {} bytes, must have {bytes}", decoded.len()));
    }
    Ok(decoded)
}

fn member(text: &Option<String>, name: &str) -> Result<Vec<u8>, String> {
    let text = text.as_ref().ok_or_else(|| format!("has no {name}"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url without padding"))
}

/// Some are secrets.
impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "Rsa",
            Self::Point(_) => "Point",
            Self::Secret(_) => "Secret",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(key: &str) -> Result<Vec<TokenKey>, String> {
        KeySet::parse(format!("{{\"keys\": [{key}]}}").as_bytes()).map(|set| set.0)
    }

    fn base64(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xff; bytes])
    }

    #[test]
    fn keys_are_for_what_their_kind_is_for() {
        use Algorithm::*;
        let rsa = format!(r#"{{"kty":"RSA","kid":"a","n":"{}","e":"AQAB""#, base64(256));
        let point = format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}""#, base64(32), base64(32));
        for (key, expected) in [
            (format!("{rsa}}}"), &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512][..]),
            (format!(r#"{rsa},"alg":"PS384","use":"sig"}}"#), &[Ps384]),
            (format!("{point}}}"), &[Es256]),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, base64(32)), &[EdDsa]),
            (format!(r#"{{"kty":"oct","k":"{}"}}"#, base64(48)), &[Hs256, Hs384]),
        ] {
            let keys = parse(&key).unwrap();
            assert_eq!(keys[0].algorithms, expected, "{key}");
        }
        let none = "has no key for signatures of RSA, P-256, P-384, Ed25519 or HMAC";
        for (key, expected) in [
            // For something else, or of another kind.
            (format!(r#"{rsa},"use":"enc"}}"#), none.to_owned()),
            (format!(r#"{rsa},"alg":"HS256"}}"#), none.to_owned()),
            (format!(r#"{rsa},"alg":"none"}}"#), none.to_owned()),
            (r#"{"kty":"EC","crv":"secp256k1"}"#.to_owned(), none.to_owned()),
            (
                rsa.replace(&base64(256), &base64(255)) + "}",
                "key 1: n has 2040 bits, must have 2048 to 8192".to_owned(),
            ),
            (rsa.replace("AQAB", "AQAA") + "}", "key 1: e is no exponent of RSA".to_owned()),
            (r#"{"kty":"RSA"}"#.to_owned(), "key 1: has no n".to_owned()),
            (r#"{"kty":"oct","k":"AAAA"}"#.to_owned(), "key 1: k has 3 bytes, HS256 needs 32".to_owned()),
            (r#"{"kty":"oct","k":"A A"}"#.to_owned(), "key 1: k is not base64url without padding".to_owned()),
            (point.replace("P-256", "P-384") + "}", "key 1: x has 32 bytes, must have 48".to_owned()),
            ("{}".to_owned(), "key 1: missing field `kty`".to_owned()),
        ] {
            assert_eq!(parse(&key), Err(expected), "{key}");
        }
        assert!(parse("7").unwrap_err().starts_with("key 1: invalid type"));
        assert!(KeySet::parse(b"[]").unwrap_err().starts_with("is no JWK set: "));
        assert_eq!(parse(&["{}"; 101].join(",")), Err("has 101 keys, at most 100 are allowed".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_keys_or_a_message(bytes: Vec<u8>, key in r#"\{("(kty|crv|n|e|x|y|k|alg)":"(RSA|EC|oct|OKP|P-256|Ed25519|[A-Za-z_-]{0,90})",?){0,7}\}"#) {
            for found in [KeySet::parse(&bytes).map(|set| set.0), parse(&key)] {
                match found {
                    Ok(keys) => prop_assert!(keys.iter().all(|key| !key.algorithms.is_empty())),
                    Err(message) => prop_assert!(!message.is_empty() && !message.contains('\n')),
                }
            }
        }
    }
}
