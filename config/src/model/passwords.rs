//! Users and their passwords' hashes, in a file as Apache's `htpasswd` writes it.

use std::collections::BTreeMap;
use std::fmt;

use super::Content;
use crate::lines::lines;

/// Users by name, at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Passwords(pub BTreeMap<String, PasswordHash>);

/// A hash in its usual notation ("modular crypt format"), which costs no more to compare with than a request may.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// `$2a$`, `$2b$` or `$2y$`; 60 characters.
    Bcrypt(String),
    /// `$5$` or `$6$`: SHA-256-crypt or SHA-512-crypt.
    ShaCrypt(String),
}

/// Longest name of a user, bytes.
const LONGEST_USER: usize = 255;

/// Highest cost of bcrypt, the logarithm of its rounds: some 0.7 seconds.
const HIGHEST_COST: u32 = 14;

/// Most rounds of SHA-crypt: some 0.2 seconds.
const MOST_ROUNDS: u32 = 200_000;

impl Content for Passwords {
    const LARGEST: u64 = 1 << 20;

    /// No message has a hash in it.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut users = BTreeMap::new();
        for (number, line) in lines(bytes)? {
            let (user, hash) = entry(line).map_err(|message| format!("line {number}: {message}"))?;
            if users.insert(user.to_owned(), hash).is_some() {
                return Err(format!("line {number}: has the user {user:?} once more"));
            }
        }
        if users.is_empty() {
            return Err("line 1: has no user, nor has any other".to_owned());
        }
        Ok(Self(users))
    }
}

fn entry(line: &str) -> Result<(&str, PasswordHash), String> {
    let (user, hash) = line.split_once(':').ok_or("is not a user, a colon and a hash")?;
    let is_printable = user.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !is_printable || !(1..=LONGEST_USER).contains(&user.len()) {
        return Err(format!("a user's name has 1 to {LONGEST_USER} characters of printable ASCII"));
    }
    Ok((user, password_hash(hash).map_err(|message| format!("user {user:?}: {message}"))?))
}

fn password_hash(hash: &str) -> Result<PasswordHash, String> {
    let kind = |prefixes: &[&str]| prefixes.iter().find_map(|prefix| hash.strip_prefix(prefix));
    if let Some(rest) = kind(&["$2a$", "$2b$", "$2y$"]) {
        return bcrypt(rest).map(|()| PasswordHash::Bcrypt(hash.to_owned()));
    }
    for (prefix, length) in [("$5$", 43), ("$6$", 86)] {
        if let Some(rest) = kind(&[prefix]) {
            return sha_crypt(rest, length).map(|()| PasswordHash::ShaCrypt(hash.to_owned()));
        }
    }
    let weak = [
        (&["$apr1$", "$1$"][..], "MD5"),
        (&["{SHA}", "{SSHA}"], "SHA-1"),
        (&["$2x$", "$2$"], "bcrypt of a version that is broken"),
    ];
    let known = weak.iter().find(|(prefixes, _)| kind(prefixes).is_some()).map(|(_, name)| *name);
    let found = known.unwrap_or("neither bcrypt nor SHA-crypt");
    Err(format!(r#"its password is {found}; make it bcrypt with "htpasswd -B""#))
}

/// What follows the version: `COST$SALTHASH`.
fn bcrypt(rest: &str) -> Result<(), String> {
    let (cost, hash) = rest.split_once('$').ok_or("its bcrypt hash is damaged")?;
    if hash.len() != 53 || !hash.bytes().all(is_digit) || cost.len() != 2 {
        return Err("its bcrypt hash is damaged".to_owned());
    }
    match cost.parse::<u32>() {
        Ok(cost) if (4..=HIGHEST_COST).contains(&cost) => Ok(()),
        _ => Err(format!("bcrypt's cost must be from 4 to {HIGHEST_COST}, is {cost:?}")),
    }
}

/// What follows the algorithm: `[rounds=N$]SALT$HASH`.
fn sha_crypt(rest: &str, length: usize) -> Result<(), String> {
    let (rounds, rest) = match rest.strip_prefix("rounds=").and_then(|rest| rest.split_once('$')) {
        Some((rounds, rest)) => (Some(rounds), rest),
        None => (None, rest),
    };
    if let Some(rounds) = rounds
        && !rounds.parse().is_ok_and(|rounds: u32| (1000..=MOST_ROUNDS).contains(&rounds))
    {
        return Err(format!("SHA-crypt's rounds must be from 1000 to {MOST_ROUNDS}, are {rounds:?}"));
    }
    match rest.split_once('$') {
        Some((salt, hash))
            if salt.len() <= 16
                && salt.bytes().all(is_digit)
                && hash.len() == length
                && hash.bytes().all(is_digit) =>
        {
            Ok(())
        }
        _ => Err("its SHA-crypt hash is damaged".to_owned()),
    }
}

/// Of crypt's Base64.
fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/'
}

/// Hashes are secrets.
impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BCRYPT: &str = "$2b$04$qEZtgg5L9Pm2qsqf9Qr79eA4yrk5nEphcYNaDxOeFAjP2qCs0Hpii";
    const SHA_256: &str = "$5$s9vxgrB/5WbQXioc$QpUxty2eQMVdE0sqBHTCyAOUQL8LbISb8iY8S7ZHY0C";

    fn message(hash: &str) -> String {
        let found = Passwords::parse(format!("ada:{hash}").as_bytes());
        let message = found.map_or_else(|message| message, |_| String::new());
        message.strip_prefix("line 1: user \"ada\": ").unwrap_or(&message).to_owned()
    }

    #[test]
    fn good_hashes_are_taken_and_weak_ones_named() {
        for hash in [BCRYPT, &BCRYPT.replace("2b", "2y"), SHA_256, &SHA_256.replace("$5$", "$5$rounds=1000$")]
        {
            assert_eq!(message(hash), "", "{hash}");
        }
        let weak = |what: &str| format!(r#"its password is {what}; make it bcrypt with "htpasswd -B""#);
        for (hash, expected) in [
            ("$apr1$x$y", weak("MD5")),
            ("{SHA}C5wmJdwh7wX2rU3fR8XyA4N6oyw=", weak("SHA-1")),
            ("secret", weak("neither bcrypt nor SHA-crypt")),
            (&BCRYPT.replace("2b", "2x"), weak("bcrypt of a version that is broken")),
            (&BCRYPT[..59], "its bcrypt hash is damaged".to_owned()),
            (&BCRYPT.replace("$04", "$31"), r#"bcrypt's cost must be from 4 to 14, is "31""#.to_owned()),
            (&SHA_256[..SHA_256.len() - 1], "its SHA-crypt hash is damaged".to_owned()),
            (&SHA_256.replace("$5$", "$6$"), "its SHA-crypt hash is damaged".to_owned()),
            (
                &SHA_256.replace("$5$", "$5$rounds=999999999$"),
                r#"SHA-crypt's rounds must be from 1000 to 200000, are "999999999""#.to_owned(),
            ),
        ] {
            assert_eq!(message(hash), expected, "{hash}");
        }
    }

    #[test]
    fn mistakes_are_found_in_their_lines() {
        let parse = |text: &str| Passwords::parse(text.as_bytes()).unwrap_err();
        assert_eq!(parse("# nobody\n"), "line 1: has no user, nor has any other");
        assert_eq!(parse("ada"), "line 1: is not a user, a colon and a hash");
        assert_eq!(parse(&format!("ada:{BCRYPT}\nada:{SHA_256}")), r#"line 2: has the user "ada" once more"#);
        let names = "line 1: a user's name has 1 to 255 characters of printable ASCII";
        assert_eq!(parse(&format!("\u{e4}da:{BCRYPT}")), names);
        assert_eq!(parse(&format!(":{BCRYPT}")), names);
        let shown = format!("{:?}", Passwords::parse(format!("ada:{BCRYPT}").as_bytes()).unwrap());
        assert_eq!(shown, r#"{"ada"}"#);
    }

    proptest! {
        #[test]
        fn any_bytes_are_users_or_a_line_that_is_wrong(
            bytes: Vec<u8>,
            text in "([a-c]?:?\\$?(2b|6)?\\$(rounds=)?[0-9]{0,12}\\$?[a-z./]{0,90}\n){0,4}",
        ) {
            for bytes in [&bytes[..], text.as_bytes()] {
                if let Err(message) = Passwords::parse(bytes) {
                    prop_assert!(message.starts_with("line "), "{}", message);
                }
            }
        }
    }
}
