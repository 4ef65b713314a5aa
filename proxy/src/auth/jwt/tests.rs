use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::hmac;
use weir_config::model::{Algorithm, FileOf};

use super::*;

mod signatures;

/// When it is, seconds since 1970.
const NOW: u64 = 1_900_000_000;

const CLAIMS: &str = r#"{"sub":"ada","exp":2000000000}"#;

const SECRET: [u8; 64] = [7; 64];

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and claims, as they are signed.
fn shell(header: &str, claims: &str) -> String {
    format!("{}.{}", base64(header), base64(claims))
}

/// Signed with the secret.
fn token(header: &str, claims: &str) -> String {
    let signed = shell(header, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    format!("{signed}.{}", base64(hmac::sign(&key, signed.as_bytes())))
}

fn usual(claims: &str) -> String {
    token(r#"{"alg":"HS256"}"#, claims)
}

fn secret(id: &str) -> String {
    format!(r#"{{"kty":"oct","kid":"{id}","k":"{}"}}"#, base64(SECRET))
}

struct Site {
    directory: tempfile::TempDir,
    config: JwtAuth,
}

impl Site {
    fn new(keys: &[&str], algorithms: &[Algorithm]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(&path, format!("{{\"keys\":[{}]}}", keys.join(","))).unwrap();
        let config = JwtAuth {
            jwks: FileOf::read(&path).unwrap(),
            algorithms: algorithms.to_vec(),
            issuer: None,
            audience: Vec::new(),
            leeway: Duration::from_secs(30),
            source: TokenSource::Bearer,
            realm: "den".to_owned(),
            claims_to_headers: vec![("sub".to_owned(), HeaderName::from_static("x-user"))],
            forward: false,
        };
        Self { directory, config }
    }

    fn jwt(&self) -> Jwt {
        Jwt::new(&self.config)
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What becomes of the token now: its user, or what is wrong with it.
fn admit(jwt: &Jwt, token: impl AsRef<[u8]>) -> Result<String, Flaw> {
    let identified = jwt.admit(token.as_ref(), at(NOW))?;
    Ok(identified.user.as_deref().unwrap_or_default().to_owned())
}

#[test]
fn tokens_are_whole_and_of_one_spelling() {
    let jwt = Site::new(&[&secret("s")], &[Algorithm::Hs256]).jwt();
    let good = usual(CLAIMS);
    assert_eq!(admit(&jwt, &good), Ok("ada".to_owned()));
    let long = usual(&format!(r#"{{"exp":2000000000,"x":"{}"}}"#, "x".repeat(LONGEST)));
    let (header, rest) = good.split_once('.').unwrap();
    for (token, flaw) in [
        (String::new(), Flaw::Malformed),
        ("..".to_owned(), Flaw::Malformed),
        (header.to_owned(), Flaw::Malformed),
        (good.rsplit_once('.').unwrap().0.to_owned(), Flaw::Malformed),
        (format!("{good}."), Flaw::Malformed),
        (format!("{good}.x"), Flaw::Malformed),
        (format!("{good}="), Flaw::Malformed),
        (format!("{header} .{rest}"), Flaw::Malformed),
        (format!("{header}\u{e4}.{rest}"), Flaw::Malformed),
        (long, Flaw::TooLong),
    ] {
        assert_eq!(admit(&jwt, &token), Err(flaw), "{token}");
    }
    // Bits of the last character that mean nothing.
    let last = good.as_bytes()[good.len() - 1];
    for other in (b'0'..=b'z').filter(|byte| *byte != last) {
        let mut spelled = good.clone().into_bytes();
        *spelled.last_mut().unwrap() = other;
        assert!(admit(&jwt, &spelled).is_err(), "{}", char::from(other));
    }
    assert_eq!(admit(&jwt, [b"\xff.", rest.as_bytes()].concat()), Err(Flaw::Malformed));
}

#[test]
fn claims_are_held_against_what_the_route_wants() {
    let mut site = Site::new(&[&secret("s")], &[Algorithm::Hs256]);
    let bare = site.jwt();
    site.config.issuer = Some("https://issuer.example".to_owned());
    site.config.audience = vec!["shop".to_owned(), "den".to_owned()];
    let strict = site.jwt();
    let with = |more: &str| format!(r#"{{"exp":2000000000{more}}}"#);
    for (jwt, claims, expected) in [
        (&bare, with(""), Ok(())),
        (&bare, with(r#","iss":"anybody""#), Ok(())),
        (&bare, with(r#","aud":"shop""#), Err(Flaw::Audience)),
        (&bare, r#"{"sub":"ada"}"#.to_owned(), Err(Flaw::NoExpiry)),
        (&bare, r#"{"exp":"2000000000"}"#.to_owned(), Err(Flaw::NoExpiry)),
        (&bare, r#"{"exp":null}"#.to_owned(), Err(Flaw::NoExpiry)),
        (&bare, r#"{"exp":1e999}"#.to_owned(), Err(Flaw::Malformed)),
        (&bare, r#"{"exp":1,"exp":2000000000}"#.to_owned(), Err(Flaw::Malformed)),
        (&bare, with(r#","sub":"ada","sub":"root""#), Err(Flaw::Malformed)),
        (&bare, with(r#","nbf":"soon""#), Err(Flaw::NotBefore)),
        (&bare, "[]".to_owned(), Err(Flaw::Malformed)),
        (&strict, with(""), Err(Flaw::Issuer)),
        (&strict, with(r#","iss":["https://issuer.example"],"aud":"den""#), Err(Flaw::Issuer)),
        (&strict, with(r#","iss":"https://issuer.example/","aud":"den""#), Err(Flaw::Issuer)),
        (&strict, with(r#","iss":"https://issuer.example","aud":"den""#), Ok(())),
        (&strict, with(r#","iss":"https://issuer.example","aud":["x","shop"]"#), Ok(())),
        (&strict, with(r#","iss":"https://issuer.example""#), Err(Flaw::Audience)),
        (&strict, with(r#","iss":"https://issuer.example","aud":[]"#), Err(Flaw::Audience)),
        (&strict, with(r#","iss":"https://issuer.example","aud":{"den":1}"#), Err(Flaw::Audience)),
        (&strict, with(r#","iss":"https://issuer.example","aud":"de""#), Err(Flaw::Audience)),
    ] {
        assert_eq!(admit(jwt, usual(&claims)).map(drop), expected, "{claims}");
    }
}

#[test]
fn a_token_is_good_for_its_time_also_if_it_is_remembered() {
    let jwt = Site::new(&[&secret("s")], &[Algorithm::Hs256]).jwt();
    let token = usual(r#"{"nbf":1000,"exp":2000.5}"#);
    // It is remembered from the second of these on.
    for (seconds, expected) in [
        (969, Err(Flaw::Early)),
        (970, Ok(())),
        (2000, Ok(())),
        (2030, Ok(())),
        (2031, Err(Flaw::Expired)),
        (3000, Err(Flaw::Expired)),
        // The clock is set back.
        (969, Err(Flaw::Early)),
    ] {
        assert_eq!(jwt.admit(token.as_bytes(), at(seconds)).map(drop), expected, "{seconds}");
    }
    for (claims, expected) in [
        (r#"{"exp":-1e300}"#, Err(Flaw::Expired)),
        (r#"{"exp":1e300}"#, Ok(())),
        (r#"{"exp":1e300,"nbf":1e300}"#, Err(Flaw::Early)),
    ] {
        assert_eq!(admit(&jwt, usual(claims)).map(drop), expected, "{claims}");
    }
}

#[test]
fn a_key_that_goes_takes_its_tokens_along() {
    let site = Site::new(&[&secret("s")], &[Algorithm::Hs256]);
    let jwt = site.jwt();
    for _ in 0..2 {
        assert_eq!(admit(&jwt, usual(CLAIMS)), Ok("ada".to_owned()));
    }
    assert_eq!(jwt.keys.get().seen.len(), 1);
    let other = secret("s").replace(&base64(SECRET), &base64([8; 64]));
    fs::write(site.directory.path().join("keys"), format!("{{\"keys\":[{other}]}}")).unwrap();
    assert!(jwt.file().look().is_none());
    assert!(jwt.file().look().unwrap().is_ok());
    assert_eq!(admit(&jwt, usual(CLAIMS)), Err(Flaw::Signature));
    // What is wrong is not remembered.
    assert_eq!(jwt.keys.get().seen.len(), 0);
}

#[test]
fn claims_become_fields() {
    let mut site = Site::new(&[&secret("s")], &[Algorithm::Hs256]);
    site.config.claims_to_headers =
        ["sub", "n", "roles"].map(|name| (name.to_owned(), format!("x-{name}").parse().unwrap())).to_vec();
    let jwt = site.jwt();
    let fields = |claims: &str| {
        let token = usual(&format!(r#"{{"exp":2000000000,{claims}}}"#));
        let identified = jwt.admit(token.as_bytes(), at(NOW))?;
        let text = |(name, value): &(HeaderName, HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        Ok(identified.fields.iter().map(text).collect::<Vec<_>>())
    };
    assert_eq!(
        fields(r#""sub":"ada","n":1.5,"roles":["a","b,c"],"x":"y""#),
        Ok(vec!["x-sub: ada".to_owned(), "x-n: 1.5".to_owned(), r#"x-roles: ["a","b,c"]"#.to_owned()])
    );
    assert_eq!(fields(r#""sub":null"#), Ok(Vec::new()));
    assert_eq!(fields(r#""sub":"\u00e4""#), Ok(vec!["x-sub: \u{e4}".to_owned()]));
    for claims in [r#""sub":"a\r\nx-admin: 1""#, r#""sub":"a\u0000""#, r#""sub":" ada""#, r#""sub":"ada\t""#]
    {
        assert_eq!(fields(claims), Err(Flaw::Claim), "{claims}");
    }
    let half = "x".repeat(LONGEST / 4);
    assert_eq!(fields(&format!(r#""sub":"{half}""#)).unwrap().len(), 1);
    assert_eq!(fields(&format!(r#""sub":"{half}","roles":"{half}""#)), Err(Flaw::Claim));
}

#[test]
fn tokens_are_where_the_route_says() {
    let mut site = Site::new(&[&secret("s")], &[Algorithm::Hs256]);
    let good = usual(CLAIMS);
    let found = |jwt: &Jwt, fields: &[(&str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        match jwt.identify(&headers, at(NOW)) {
            Ok(who) => who.user.as_deref().unwrap_or_default().to_owned(),
            Err(refused) => refused.field.unwrap().1.to_str().unwrap().to_owned(),
        }
    };
    let none = r#"Bearer realm="den""#;
    let flawed = |flaw: &str| format!(r#"{none}, error="invalid_token", error_description="{flaw}""#);
    let bearer = format!("Bearer {good}");
    let bad = flawed("it is no signed token");
    let several = flawed("there are several tokens");
    let jwt = site.jwt();
    for (fields, expected) in [
        (&[("authorization", &bearer[..])][..], "ada"),
        (&[("authorization", &format!("bEARER   {good} "))], "ada"),
        (&[], none),
        (&[("authorization", "Basic YWRhOnNlY3JldA==")], none),
        (&[("authorization", &good)], none),
        (&[("x-token", &good), ("cookie", &good)], none),
        (&[("authorization", "Bearer x")], &bad),
        (&[("authorization", &bearer), ("authorization", &bearer)], &several),
    ] {
        assert_eq!(found(&jwt, fields), expected, "{fields:?}");
    }
    site.config.source = TokenSource::Header(HeaderName::from_static("x-token"));
    let jwt = site.jwt();
    assert_eq!(found(&jwt, &[("x-token", &good)]), "ada");
    assert_eq!(found(&jwt, &[("x-token", &good), ("x-token", &good)]), several);
    assert_eq!(found(&jwt, &[("authorization", &bearer)]), none);
    site.config.source = TokenSource::Cookie("token".to_owned());
    let jwt = site.jwt();
    assert_eq!(found(&jwt, &[("cookie", &format!("a=b; token={good}; token=x"))]), "ada");
    assert_eq!(found(&jwt, &[("cookie", &format!("token2={good}"))]), none);
}

proptest! {
    #[test]
    fn whatever_is_sent_lets_nobody_in(
        bytes: Vec<u8>,
        header in r#"\{"alg":"(HS256|none|RS256)"(,"kid":"[a-z]{0,2}")?\}"#,
        claims in r#"\{("(sub|exp|nbf|aud)":("[a-z]"|[0-9]{1,12}|\[\]),?){0,4}\}"#,
        signature: Vec<u8>,
    ) {
        let jwt = Site::new(&[&secret("s")], &[Algorithm::Hs256]).jwt();
        prop_assert!(admit(&jwt, &bytes).is_err());
        let unsigned = format!("{}.{}", shell(&header, &claims), base64(signature));
        prop_assert!(admit(&jwt, unsigned).is_err());
        // Signed, it is let in or not.
        let _ = admit(&jwt, token(&header, &claims));
    }
}
