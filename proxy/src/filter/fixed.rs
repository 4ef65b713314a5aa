//! Answers that a route gives without a pool.

use bytes::Bytes;
use http::header;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use weir_config::model::{self, Respond};

use super::Filters;
use super::redirect::Location;
use crate::answer::{Refusal, send};

/// What a route answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Always the same.
    Respond(Box<ResponseHeader>, Bytes),
    /// The way to somewhere else.
    Redirect(Location),
}

impl Answer {
    pub(crate) fn respond(respond: &Respond) -> pingora::Result<Self> {
        let mut header = ResponseHeader::build(respond.status, Some(respond.headers.len() + 2))?;
        for (name, value) in &respond.headers {
            header.insert_header(name.clone(), value.clone())?;
        }
        // Without it, a browser guesses what the text is.
        if !respond.body.is_empty() && !header.headers.contains_key(header::CONTENT_TYPE) {
            header.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8")?;
        }
        if !matches!(respond.status.as_u16(), 204 | 304) {
            header.insert_header(header::CONTENT_LENGTH, respond.body.len())?;
        }
        Ok(Self::Respond(Box::new(header), Bytes::from(respond.body.clone())))
    }

    pub(crate) fn redirect(redirect: &model::Redirect) -> Self {
        Self::Redirect(Location::new(redirect))
    }

    /// Sends the answer, if the request is one that it can be made for.
    pub(crate) async fn send(
        &self,
        session: &mut Session,
        filters: Option<&Filters>,
    ) -> pingora::Result<Result<(), Refusal>> {
        let (mut header, body) = match self {
            Self::Respond(header, body) => (header.clone(), body.clone()),
            Self::Redirect(location) => match location.header(session.req_header())? {
                Ok(header) => (header, Bytes::new()),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        if let Some(filters) = filters {
            filters.edit_response(&session.req_header().headers, &mut header)?;
        }
        send(session, header, body).await.map(Ok)
    }
}
