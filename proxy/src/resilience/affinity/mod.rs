//! Session affinity: requests that belong together go to the same VM, as long as it is there and has room.
//!
//! ```text
//!  hash    key of the request --keyed hash with each VM--> the highest that has room (rendezvous hashing)
//!  cookie  session, tag ------keyed hash with each VM--> the one whose hash is the tag, if it has room
//!                                                        else any, and the client gets another tag
//! ```
//!
//! A VM that comes or goes changes the choice only of those that it is, or was, the highest for: one part in as many as
//! there are VMs. The hash is keyed with a number that nobody outside this process knows. So no client can choose keys
//! that all come to one VM, nor learn from its tag which VM that is, whether another client has the same, or make one up.
//!
//! The session is a number that weir draws for a client, and which also decides where requests are divided among several
//! pools. It is no secret and stays when the VM changes.

mod cookie;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use weir_config::model::{self, AffinityKey};
use weir_pool::{Client, Lease, Member};

use crate::context::Context;
use crate::proxy::Proxy;
use crate::request::is_final;
use crate::service::has_tls;
use cookie::SetCookie;
pub(crate) use cookie::cookies;

/// What a request's VM is to depend on, of one route. Made when the configuration is read.
#[derive(Debug)]
pub(crate) enum Affinity {
    /// A cookie of weir's.
    Session(SetCookie),
    /// Something that the request brings along.
    Hash(AffinityKey),
}

/// Which requests one belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belongs {
    /// To those of this session, which was served by the VM with this tag.
    Session { session: u64, tag: Option<u64> },
    /// To those with this hash.
    Hash(u64),
}

impl Affinity {
    /// Of a route, if it has any.
    pub(crate) fn new(route: &model::Route) -> Option<Self> {
        match route.affinity.as_ref()? {
            model::Affinity::Session(cookie) => Some(Self::Session(SetCookie::new(cookie, &route.path))),
            model::Affinity::Hash(key) => Some(Self::Hash(key.clone())),
        }
    }

    /// Which others a request belongs to; `None`: it has not what these are told by. `keys` are the process's, `draw` is
    /// asked for the number of a new session.
    pub(crate) fn of(
        &self,
        headers: &HeaderMap,
        client: Option<IpAddr>,
        keys: &RandomState,
        draw: impl FnOnce() -> u64,
    ) -> Option<Belongs> {
        let hash = |value: &[u8]| Belongs::Hash(keys.hash_one(("affinity", value)));
        match self {
            Self::Session(cookie) => {
                let known = cookies(headers, cookie.name()).find_map(cookie::parse);
                let (session, tag) =
                    known.map_or_else(|| (draw(), None), |(session, tag)| (session, Some(tag)));
                Some(Belongs::Session { session, tag })
            }
            Self::Hash(AffinityKey::Client) => {
                Some(Belongs::Hash(keys.hash_one(("affinity", Client::from(client?)))))
            }
            Self::Hash(AffinityKey::Header(name)) => Some(hash(headers.get(name)?.as_bytes())),
            Self::Hash(AffinityKey::Cookie(name)) => cookies(headers, name).next().map(hash),
        }
    }

    /// Has the client come back to the VM that it was served by, if it would not otherwise.
    fn remember(
        &self,
        belongs: Belongs,
        lease: &Lease,
        keys: &RandomState,
        secure: bool,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let (Self::Session(cookie), Belongs::Session { session, tag: known }) = (self, belongs) else {
            return Ok(());
        };
        let tag = tag(keys, session, lease.member());
        if known == Some(tag) {
            return Ok(());
        }
        response.append_header(header::SET_COOKIE, cookie.value(session, tag, secure))?;
        // A cache would give it to others (RFC 9111 §5.2.2.4).
        response.append_header(header::CACHE_CONTROL, HeaderValue::from_static("no-cache=\"set-cookie\""))?;
        Ok(())
    }
}

impl Proxy {
    /// Has the client of a final `response` come back to the VM that it is from, where that is what its route wants.
    pub(crate) fn remember(
        &self,
        session: &Session,
        ctx: &Context,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let Some(belongs) = ctx.belongs else { return Ok(()) };
        let affinity = ctx.route.as_ref().and_then(|route| route.affinity.as_ref());
        match (affinity, &ctx.lease) {
            (Some(affinity), Some(lease)) if is_final(response.status) => {
                affinity.remember(belongs, lease, &self.keys, has_tls(session), response)
            }
            _ => Ok(()),
        }
    }
}

impl Belongs {
    /// A number that is the same for all that belong together, and as good as random over all others.
    pub(crate) fn number(self, keys: &RandomState) -> u32 {
        let hash = match self {
            Self::Session { session, .. } => keys.hash_one(("pool of session", session)),
            Self::Hash(hash) => keys.hash_one(("pool of hash", hash)),
        };
        u32::try_from(hash >> 32).expect("32 bits are left")
    }

    /// Whether no VM would be better than another.
    pub(crate) fn is_new(self) -> bool {
        matches!(self, Self::Session { tag: None, .. })
    }

    /// How good `member` is; `None`: as any.
    pub(crate) fn rank(self, keys: &RandomState, member: Member) -> Option<u64> {
        match self {
            Self::Session { session, tag: wanted } => {
                (wanted? == tag(keys, session, member)).then_some(u64::MAX)
            }
            Self::Hash(hash) => Some(keys.hash_one((hash, member))),
        }
    }
}

/// What names a VM to the client of one session, and nobody else.
fn tag(keys: &RandomState, session: u64, member: Member) -> u64 {
    keys.hash_one(("tag", session, member))
}

#[cfg(test)]
mod tests;
