//! Who a client is, where a route wants to know.
//!
//! ```text
//!  let through by the filters --credentials--> seen before? --no--> verified --right--> remembered, let in
//!                                  |                `-----yes--> let in   `--wrong--.
//!                                  '-- none ----------------------------------------+--> 401
//! ```
//!
//! To verify is dear on purpose (passwords) or by nature (signatures), so what has proved to be right is remembered, in bounded
//! memory and under a keyed hash: nobody can read credentials out of weir's memory, or find some that share an entry. What is wrong
//! is never remembered: whoever guesses passwords pays each time, in time of few threads ([`Verifiers`]) that no client can have
//! alone. A token's signature takes no longer than a TLS handshake, and is verified where requests are served.
//!
//! Whom a VM is told of it cannot be told by clients: fields of these names are taken out of their requests.

pub(crate) mod basic;
mod flights;
mod jwt;
mod seen;
mod verifiers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;
use weir_config::model::{self, TokenSource};

use crate::answer::Refusal;
use crate::filter::Refused;
use crate::follow::Follow;
use crate::resilience::cookies;
use basic::Basic;
use jwt::Jwt;
pub(crate) use verifiers::Verifiers;

/// How a route asks its clients who they are, ready for use.
#[derive(Debug)]
pub(crate) struct Auth {
    scheme: Scheme,
    /// Fields that only weir sets.
    own: Box<[HeaderName]>,
    /// What a VM does not get.
    taken: Taken,
}

#[derive(Debug)]
enum Scheme {
    Basic(Basic),
    Jwt(Jwt),
}

/// Credentials that are weir's alone.
#[derive(Debug)]
enum Taken {
    Nothing,
    Field(HeaderName),
    Cookie(String),
}

/// Somebody who was let in.
#[derive(Debug)]
pub(crate) struct Identified {
    /// For the access log.
    pub(crate) user: Option<Box<str>>,
    /// What a VM is told.
    fields: Box<[(HeaderName, HeaderValue)]>,
}

impl Auth {
    pub(crate) fn new(config: &model::Auth, verifiers: &Arc<Verifiers>) -> Self {
        match config {
            model::Auth::Basic(basic) => Self {
                own: [basic.user_header.clone()].into(),
                taken: if basic.forward { Taken::Nothing } else { Taken::Field(header::AUTHORIZATION) },
                scheme: Scheme::Basic(Basic::new(basic, Arc::clone(verifiers))),
            },
            model::Auth::Jwt(jwt) => Self {
                own: jwt.claims_to_headers.iter().map(|(_, name)| name.clone()).collect(),
                taken: if jwt.forward { Taken::Nothing } else { Taken::from(&jwt.source) },
                scheme: Scheme::Jwt(Jwt::new(jwt)),
            },
        }
    }

    /// Files that it is made from.
    pub(crate) fn file(&self) -> Arc<dyn Follow> {
        match &self.scheme {
            Scheme::Basic(basic) => basic.file(),
            Scheme::Jwt(jwt) => jwt.file(),
        }
    }

    /// Who sent the request.
    pub(crate) async fn identify(
        &self,
        request: &RequestHeader,
        client: Option<IpAddr>,
    ) -> Result<Arc<Identified>, Refused> {
        match &self.scheme {
            Scheme::Basic(basic) => basic.identify(&request.headers, client).await,
            Scheme::Jwt(jwt) => jwt.identify(&request.headers, SystemTime::now()),
        }
    }

    /// Tells a VM who it is, and nothing that a client says in weir's name.
    pub(crate) fn tell(&self, who: Option<&Identified>, request: &mut RequestHeader) -> pingora::Result<()> {
        let forged: Vec<HeaderName> =
            request.headers.keys().filter(|name| self.is_own(name)).cloned().collect();
        for name in &forged {
            request.remove_header(name);
        }
        match &self.taken {
            Taken::Nothing => {}
            Taken::Field(name) => drop(request.remove_header(name)),
            Taken::Cookie(name) => take_cookie(request, name)?,
        }
        for (name, value) in who.iter().flat_map(|who| &who.fields) {
            request.insert_header(name.clone(), value.clone())?;
        }
        Ok(())
    }

    /// To many applications, those that go by CGI's rules, `x_user` is `x-user`.
    fn is_own(&self, name: &HeaderName) -> bool {
        self.own
            .iter()
            .any(|own| own.as_str().len() == name.as_str().len() && spelling(own).eq(spelling(name)))
    }
}

fn spelling(name: &HeaderName) -> impl Iterator<Item = u8> {
    name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte })
}

impl From<&TokenSource> for Taken {
    fn from(source: &TokenSource) -> Self {
        match source {
            TokenSource::Bearer => Self::Field(header::AUTHORIZATION),
            TokenSource::Header(name) => Self::Field(name.clone()),
            TokenSource::Cookie(name) => Self::Cookie(name.clone()),
        }
    }
}

/// Leaves the other cookies as they are.
fn take_cookie(request: &mut RequestHeader, name: &str) -> pingora::Result<()> {
    if cookies(&request.headers, name).next().is_none() {
        return Ok(());
    }
    let is_other = |pair: &&[u8]| {
        let rest = pair.trim_ascii().strip_prefix(name.as_bytes());
        !rest.is_some_and(|rest| rest.starts_with(b"="))
    };
    let fields = request.headers.get_all(header::COOKIE);
    let pairs = fields.iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let others: Vec<_> = pairs.filter(is_other).map(<[u8]>::trim_ascii).collect();
    if others.is_empty() {
        request.remove_header(&header::COOKIE);
        return Ok(());
    }
    request.insert_header(header::COOKIE, others.join(&b"; "[..]))
}

/// 401, and how to do better.
fn unauthorized(challenge: &HeaderValue) -> Refused {
    Refused { refusal: Refusal::Unauthorized, field: Some((header::WWW_AUTHENTICATE, challenge.clone())) }
}

#[cfg(test)]
mod tests;
