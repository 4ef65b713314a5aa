//! Clients that show tokens.

use std::time::Duration;

use http::HeaderName;

use super::{FileOf, KeySet};

/// `[route.auth.jwt]`: a signed token in JSON (RFC 7519), of which somebody else is the issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtAuth {
    /// Keys that tokens are signed with.
    pub jwks: FileOf<KeySet>,
    /// How tokens may be signed; at least one.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` has to be; `None`: anything.
    pub issuer: Option<String>,
    /// What `aud` has to have one of; empty: tokens have none.
    pub audience: Vec<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Where tokens are looked for.
    pub source: TokenSource,
    /// What browsers and programs are shown; printable ASCII without quotation marks and backslashes.
    pub realm: String,
    /// Claims, and the fields that tell them to a VM, which gets no others of these names.
    pub claims_to_headers: Vec<(String, HeaderName)>,
    /// A VM gets the token, too.
    pub forward: bool,
}

/// Where a request has its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// In `Authorization`, behind `Bearer` (RFC 6750 §2.1).
    Bearer,
    /// It is the value of this field.
    Header(HeaderName),
    /// It is the value of this cookie.
    Cookie(String),
}

/// A way to sign (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// ECDSA with P-384 and SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All, by their names in `alg`.
    pub const NAMES: &[(&str, Self)] = &[
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// The one that is called so.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}
