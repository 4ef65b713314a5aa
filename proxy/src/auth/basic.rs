//! Names and passwords (RFC 7617).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha_crypt::{PasswordHashRef, PasswordVerifier as _, ShaCrypt};
use weir_config::model::{BasicAuth, PasswordHash, Passwords};

use super::flights::Flights;
use super::seen::Seen;
use super::{Identified, Verifiers, unauthorized};
use crate::filter::Refused;
use crate::follow::{Follow, Followed};

/// Longest password, bytes. SHA-crypt takes time by a password's length.
const LONGEST_PASSWORD: usize = 256;

/// `[route.auth.basic]`, ready for use.
#[derive(Debug)]
pub(super) struct Basic {
    users: Arc<Followed<Passwords, Users>>,
    /// Value of `WWW-Authenticate`.
    challenge: HeaderValue,
    /// Their digests have the password's hash in them, so that none outlives a change of the file.
    seen: Seen<()>,
    under_way: Flights,
    verifiers: Arc<Verifiers>,
}

/// At least one.
#[derive(Debug)]
struct Users {
    by_name: HashMap<String, Arc<User>>,
    all: Box<[Arc<User>]>,
}

struct User {
    hash: PasswordHash,
    identified: Arc<Identified>,
}

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Basic {
    pub(super) fn new(config: &BasicAuth, verifiers: Arc<Verifiers>) -> Self {
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm);
        let challenge = HeaderValue::from_str(&challenge).expect("a realm is printable ASCII");
        let field = config.user_header.clone();
        let users = Followed::new(&config.file, move |passwords| Users::new(passwords, &field));
        Self { users, challenge, seen: Seen::new(), under_way: Flights::default(), verifiers }
    }

    pub(super) fn file(&self) -> Arc<dyn Follow> {
        Arc::clone(&self.users) as _
    }

    /// A user that there is not takes as long as one that there is: some other user's password is verified in vain.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        client: Option<IpAddr>,
    ) -> Result<Arc<Identified>, Refused> {
        let refused = || unauthorized(&self.challenge);
        let Credentials { user: name, password } = credentials(headers).ok_or_else(refused)?;
        let (user, known) = self.users.get().find(&name, self.seen.digest(&[&name]).number());
        let digest = self.seen.digest(&[&name, user.hash_text().as_bytes(), &password]);
        if known && self.seen.get(digest).is_some() {
            return Ok(Arc::clone(&user.identified));
        }
        let client = client.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).into();
        let asked = Arc::clone(&user);
        let verify = || self.verifiers.run(client, move || asked.has(&password));
        let right = self.under_way.join(digest, verify).await?;
        if !known || !right {
            return Err(refused());
        }
        self.seen.put(digest, ());
        Ok(Arc::clone(&user.identified))
    }
}

impl Users {
    fn new(passwords: &Passwords, field: &HeaderName) -> Self {
        let user = |(name, hash): (&String, &PasswordHash)| {
            let value = HeaderValue::from_str(name).expect("a user's name is printable ASCII");
            let fields = [(field.clone(), value)].into();
            let identified = Arc::new(Identified { user: Some(name.as_str().into()), fields });
            (name.clone(), Arc::new(User { hash: hash.clone(), identified }))
        };
        let by_name: HashMap<_, _> = passwords.0.iter().map(user).collect();
        let all = by_name.values().cloned().collect();
        Self { by_name, all }
    }

    /// The user of this name, and `true`; or another one, always the same for one `number`.
    fn find(&self, name: &[u8], number: u64) -> (Arc<User>, bool) {
        let known = std::str::from_utf8(name).ok().and_then(|name| self.by_name.get(name));
        let other = usize::try_from(number % self.all.len() as u64).unwrap_or_default();
        (Arc::clone(known.unwrap_or(&self.all[other])), known.is_some())
    }
}

impl User {
    fn hash_text(&self) -> &str {
        match &self.hash {
            PasswordHash::Bcrypt(text) | PasswordHash::ShaCrypt(text) => text,
        }
    }

    /// Whether this is the password. Takes tens of milliseconds.
    fn has(&self, password: &[u8]) -> bool {
        match &self.hash {
            PasswordHash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            PasswordHash::ShaCrypt(hash) => PasswordHashRef::new(hash)
                .is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok()),
        }
    }
}

/// Hashes are secrets.
impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("User").field(&self.identified.user).finish()
    }
}

/// `None`: there are none, or several, or what there is cannot be right.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, rest) = value.as_bytes().split_at_checked("basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = (decoded[..colon].to_vec(), decoded[colon + 1..].to_vec());
    (password.len() <= LONGEST_PASSWORD).then_some(Credentials { user, password })
}

/// The user that a client says it is.
#[cfg(test)]
pub(crate) fn named_user(headers: &HeaderMap) -> Option<Vec<u8>> {
    credentials(headers).map(|credentials| credentials.user)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn found(values: &[&[u8]]) -> Option<(String, Vec<u8>)> {
        let found = credentials(&headers(values))?;
        Some((String::from_utf8(found.user).unwrap(), found.password))
    }

    #[test]
    fn credentials_are_read_as_they_are_written() {
        let ada = || Some(("ada".to_owned(), b"a:b".to_vec()));
        // ada:a:b
        for value in [&b"Basic YWRhOmE6Yg=="[..], b"basic YWRhOmE6Yg==", b"BASIC   YWRhOmE6Yg== "] {
            assert_eq!(found(&[value]), ada());
        }
        for values in [
            &[][..],
            &[&b"Basic YWRhOmE6Yg=="[..], b"Basic YWRhOmE6Yg=="],
            &[&b"Basic"[..]],
            &[&b"Basic "[..]],
            &[&b"Bearer YWRhOmE6Yg=="[..]],
            &[&b"Basic YWRhOmE6Yg"[..]],
            &[&b"Basic YWRhOmE6Yg==, Basic YWRhOmE6Yg=="[..]],
            // No colon.
            &[&b"Basic YWRh"[..]],
            &[&b"Basic \xff\xff"[..]],
        ] {
            assert_eq!(found(values), None, "{values:?}");
        }
        let with =
            |length: usize| format!("Basic {}", STANDARD.encode(format!("ada:{}", "x".repeat(length))));
        assert!(found(&[with(256).as_bytes()]).is_some());
        assert!(found(&[with(257).as_bytes()]).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_not(value in prop::collection::vec(32_u8.., 0..80), password: Vec<u8>) {
            let value: Vec<u8> = value.into_iter().filter(|byte| *byte != 127).collect();
            credentials(&headers(&[&value]));
            let written = [b"Basic ", STANDARD.encode([b"u:", &password[..]].concat()).as_bytes()].concat();
            let read = credentials(&headers(&[&written]));
            prop_assert_eq!(read.map(|read| read.password), Some(password));
        }
    }
}
