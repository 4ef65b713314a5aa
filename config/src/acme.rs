//! `[acme]` and `listener.tls.acme`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use toml::de::DeValue;

use crate::error::Sink;
use crate::key::{Located, Place};
use crate::listener::ListenerSection;
use crate::model::{Acme, AcmeChallenge, ExternalAccount, file_name};
use crate::reader::Reader;
use crate::url::{is_loopback, url};
use crate::values::{boolean, choice, directory, file, string};

const CHALLENGES: &[(&str, AcmeChallenge)] =
    &[("http-01", AcmeChallenge::Http01), ("tls-alpn-01", AcmeChallenge::TlsAlpn01)];
/// Names of one certificate, as many as CAs take.
const MOST_NAMES: usize = 100;
/// Longest name, bytes: DNS has longer ones, but files have not, and the first names a file.
const LONGEST_NAME: usize = 240;
/// Longest part of one between dots, bytes (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;
/// Longest name of a file, bytes.
const LONGEST_FILE_NAME: usize = 255;

/// `[acme]` as far as it is valid.
pub(crate) struct AcmeSection {
    pub(crate) ca: Option<Option<Located<PathBuf>>>,
    challenge: Option<Located<AcmeChallenge>>,
    acme: Option<Acme>,
}

impl AcmeSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Option<Self> {
        let url = table.read("directory", directory_url).required();
        let contact = table.strings("contact", contact).or(Vec::new());
        let accepted = table.read("accept_terms", boolean).check(terms_accepted).required();
        let state = table.read("state", directory).required();
        let ca = table.read("ca", file).optional();
        let challenge = table.read("challenge", choice(CHALLENGES)).or(AcmeChallenge::Http01);
        let kid = table.read("eab_kid", key_identifier).optional();
        let key = table.read("eab_key_file", file).optional();
        let external_account = external_account(kid, key, table.sink());
        let acme = || {
            accepted?;
            Some(Acme {
                directory: url?.value,
                contact: contact?.value,
                state: state?.value,
                ca: ca.as_ref()?.as_ref().map(|ca| ca.value.clone()),
                challenge: challenge.as_ref()?.value,
                external_account: external_account?,
            })
        };
        let acme = acme();
        Some(Self { ca, challenge, acme })
    }

    /// `None`: something in it is wrong.
    pub(crate) fn into_acme(self) -> Option<Acme> {
        self.acme
    }
}

/// The names of a certificate that is to be obtained.
pub(crate) fn names(table: &mut Reader<'_>) -> Option<Located<Vec<String>>> {
    table.strings("names", dns_name).check(|names| distinct(names)).required()
}

/// Holds all that is to be obtained against what says how, and against each other.
pub(crate) fn check(acme: Option<&AcmeSection>, listeners: &[ListenerSection], sink: &Sink) {
    let mut by_first: BTreeMap<&str, &Located<Vec<String>>> = BTreeMap::new();
    for listener in listeners {
        for names in listener.tls.obtained() {
            let Some(acme) = acme else {
                sink.report(&names.place, "needs [acme], which says who issues certificates");
                continue;
            };
            let challenge = acme.challenge.as_ref().map(|challenge| challenge.value);
            check_reachable(challenge, listener, listeners, &names.place, sink);
            let Some(first) = names.value.first() else { continue };
            match by_first.get(first.as_str()) {
                Some(other) if other.value != names.value => {
                    let other = &other.place.key;
                    sink.report(&names.place, format!("begins as {other} does, but has other names"));
                }
                Some(_) => {}
                None => drop(by_first.insert(first, names)),
            }
        }
    }
}

/// Whether the CA's challenges can be answered.
fn check_reachable(
    challenge: Option<AcmeChallenge>,
    listener: &ListenerSection,
    listeners: &[ListenerSection],
    place: &Place,
    sink: &Sink,
) {
    match challenge {
        Some(AcmeChallenge::Http01) if !listeners.iter().any(|listener| listener.tls.is_plain()) => {
            sink.report(place, "http-01 needs a [[listener]] without tls, which the CA reaches at port 80");
        }
        Some(AcmeChallenge::TlsAlpn01) if listener.tls.requires_client_certificate() => {
            sink.report(
                place,
                "tls-alpn-01 does not work where clients must have certificates, the CA has none",
            );
        }
        _ => {}
    }
}

/// `Some(None)`: none.
fn external_account(
    kid: Option<Option<Located<String>>>,
    key: Option<Option<Located<PathBuf>>>,
    sink: &Sink,
) -> Option<Option<ExternalAccount>> {
    match (kid?, key?) {
        (Some(kid), Some(key)) => Some(Some(ExternalAccount { kid: kid.value, key: key.value })),
        (None, None) => Some(None),
        (Some(kid), None) => {
            sink.report(&kid.place, "has no effect without eab_key_file");
            None
        }
        (None, Some(key)) => {
            sink.report(&key.place, "has no effect without eab_kid");
            None
        }
    }
}

fn directory_url(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let uri = url(&text, "https://acme-v02.api.letsencrypt.org/directory")?;
    if uri.scheme_str() == Some("http") && !uri.host().is_some_and(is_loopback) {
        return Err("must be https: http is only for a CA on this machine".to_owned());
    }
    if file_name(&text).len() > LONGEST_FILE_NAME {
        return Err("is too long to name a directory".to_owned());
    }
    Ok(text)
}

fn contact(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let address = text.strip_prefix("mailto:").filter(|address| address.contains('@'));
    match address {
        Some(address) if address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?') => Ok(text),
        _ => Err(format!(r#"{text:?} is no address such as "mailto:ops@example.com""#)),
    }
}

fn terms_accepted(accepted: &bool) -> Result<(), String> {
    if *accepted {
        Ok(())
    } else {
        Err("must be true: the CA's terms of service have to be agreed to".to_owned())
    }
}

fn key_identifier(value: &DeValue<'_>) -> Result<String, String> {
    match string(value)? {
        text if text.is_empty() => Err("must not be empty".to_owned()),
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("must be printable ASCII without spaces".to_owned())
        }
        text => Ok(text),
    }
}

/// A name that a CA can issue a certificate for, in lower case.
fn dns_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    if text.starts_with("*.") {
        return Err(format!("{text:?} is a wildcard, for which CAs want to see DNS records; weir has none"));
    }
    // The last label of a name is no number, or it would be one of the many ways to write an IP address.
    let number = text.rsplit('.').next().is_none_or(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if text.len() > LONGEST_NAME || number || !text.split('.').all(is_label) {
        return Err(format!(r#"{text:?} is no host name such as "www.example.com""#));
    }
    Ok(text.to_ascii_lowercase())
}

/// RFC 952 and 1123.
fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn distinct(names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Err("must not be empty: a certificate is for at least one name".to_owned());
    }
    if names.len() > MOST_NAMES {
        return Err(format!("must have at most {MOST_NAMES} names, has {}", names.len()));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(format!("{twice:?} is there twice")),
        None => Ok(()),
    }
}
