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
//! is never remembered: whoever guesses pays each time, in time of few threads ([`Verifiers`]) that no client can have alone.
//!
//! Whom a VM is told of it cannot be told by clients: fields of these names are taken out of their requests.

pub(crate) mod basic;
mod flights;
mod seen;
mod verifiers;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;
use weir_config::model;

use crate::answer::Refusal;
use crate::filter::Refused;
use crate::follow::Follow;
use basic::Basic;
pub(crate) use verifiers::Verifiers;

/// How a route asks its clients who they are, ready for use.
#[derive(Debug)]
pub(crate) struct Auth {
    scheme: Scheme,
    /// Fields that only weir sets.
    own: Box<[HeaderName]>,
    /// The `Authorization` field is weir's alone.
    takes_credentials: bool,
}

#[derive(Debug)]
enum Scheme {
    Basic(Basic),
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
                takes_credentials: !basic.forward,
                scheme: Scheme::Basic(Basic::new(basic, Arc::clone(verifiers))),
            },
        }
    }

    /// Files that it is made from.
    pub(crate) fn file(&self) -> Arc<dyn Follow> {
        match &self.scheme {
            Scheme::Basic(basic) => basic.file(),
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
        }
    }

    /// Tells a VM who it is, and nothing that a client says in weir's name.
    pub(crate) fn tell(&self, who: Option<&Identified>, request: &mut RequestHeader) -> pingora::Result<()> {
        let forged: Vec<HeaderName> =
            request.headers.keys().filter(|name| self.is_own(name)).cloned().collect();
        for name in &forged {
            request.remove_header(name);
        }
        if self.takes_credentials {
            request.remove_header(&header::AUTHORIZATION);
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

/// 401, and how to do better.
fn unauthorized(challenge: &HeaderValue) -> Refused {
    Refused { refusal: Refusal::Unauthorized, field: Some((header::WWW_AUTHENTICATE, challenge.clone())) }
}

#[cfg(test)]
mod tests;
