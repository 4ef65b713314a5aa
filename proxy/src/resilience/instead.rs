//! What a route answers instead of what it was asked for: while it is in maintenance, and with pages where there would be a
//! line of text, or a VM's own answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::http::ResponseHeader;
use weir_config::model::{self, ErrorPages};

use crate::answer::Refusal;
use crate::filter::Networks;

/// Fields of a VM's answer that say what its status asks of the client, and stay when the body is replaced.
const KEPT: [HeaderName; 5] = [
    header::ALLOW,
    header::PROXY_AUTHENTICATE,
    header::RETRY_AFTER,
    header::UPGRADE,
    header::WWW_AUTHENTICATE,
];

/// See the module's documentation. Made when the configuration is read.
#[derive(Debug)]
pub(crate) struct Instead {
    maintenance: Option<Maintenance>,
    /// The route's own, then those of all routes.
    pages: [Arc<Pages>; 2],
    /// They also take the place of what VMs answer.
    intercepts: bool,
}

#[derive(Debug)]
struct Maintenance {
    status: StatusCode,
    retry_after: Option<Duration>,
    page: Option<Page>,
    allow: Networks,
}

/// Pages of errors.
#[derive(Debug, Default)]
pub(crate) struct Pages(Vec<(PageFor, Page)>);

/// A page, ready to be sent. Clones share the text.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    content_type: HeaderValue,
    pub(crate) body: Bytes,
}

/// Which statuses a page is for; of the first that fits the page is taken.
#[derive(Clone, Copy, Debug)]
enum PageFor {
    Status(StatusCode),
    ClientErrors,
    ServerErrors,
}

impl Instead {
    /// Of a route; `None` if it has nothing of the kind. `all` are the pages of all routes.
    pub(crate) fn new(route: &model::Instead, all: &Arc<Pages>) -> Option<Box<Self>> {
        if *route == model::Instead::default() && all.0.is_empty() {
            return None;
        }
        let maintenance = route.maintenance.as_ref().map(|maintenance| Maintenance {
            status: maintenance.status,
            retry_after: maintenance.retry_after,
            page: maintenance.page.as_ref().map(Page::new),
            allow: Networks::new(&maintenance.allow),
        });
        let pages = [Arc::new(Pages::new(&route.error_pages)), Arc::clone(all)];
        Some(Box::new(Self { maintenance, pages, intercepts: route.intercept_errors }))
    }

    /// Why `client` is not served now, if so.
    pub(crate) fn closed_for(&self, client: Option<IpAddr>) -> Option<Refusal> {
        let maintenance = self.maintenance.as_ref()?;
        let is_let_in = client.is_some_and(|client| maintenance.allow.contains(client));
        let Maintenance { status, retry_after, .. } = *maintenance;
        (!is_let_in).then_some(Refusal::Maintenance(status, retry_after))
    }

    /// The page to go with a refusal.
    pub(crate) fn page(&self, refusal: Refusal) -> Option<&Page> {
        let own = match refusal {
            Refusal::Maintenance(..) => self.maintenance.as_ref().and_then(|own| own.page.as_ref()),
            _ => None,
        };
        own.or_else(|| self.page_for(refusal.status()))
    }

    fn page_for(&self, status: StatusCode) -> Option<&Page> {
        self.pages.iter().find_map(|pages| pages.get(status))
    }

    /// What a client gets in place of a VM's answer, if it does not get that.
    pub(crate) fn intercept(&self, answer: &ResponseHeader) -> pingora::Result<Option<Intercepted>> {
        if !self.intercepts {
            return Ok(None);
        }
        let Some(page) = self.page_for(answer.status) else { return Ok(None) };
        let mut header = ResponseHeader::build(answer.status, Some(8))?;
        for name in &KEPT {
            for value in answer.headers.get_all(name) {
                header.append_header(name.clone(), value.clone())?;
            }
        }
        header.insert_header(header::CACHE_CONTROL, "no-store")?;
        page.describe(&mut header)?;
        Ok(Some(Intercepted { header: Box::new(header), body: page.body.clone() }))
    }
}

/// An answer that takes the place of a VM's.
#[derive(Debug)]
pub(crate) struct Intercepted {
    pub(crate) header: Box<ResponseHeader>,
    pub(crate) body: Bytes,
}

impl Pages {
    pub(crate) fn new(pages: &ErrorPages) -> Self {
        let of_status = pages.by_status.iter().map(|(status, page)| (PageFor::Status(*status), page));
        let of_class =
            [(PageFor::ClientErrors, &pages.client_errors), (PageFor::ServerErrors, &pages.server_errors)];
        let of_class = of_class.into_iter().filter_map(|(which, page)| Some((which, page.as_ref()?)));
        Self(of_status.chain(of_class).map(|(which, page)| (which, Page::new(page))).collect())
    }

    pub(crate) fn get(&self, status: StatusCode) -> Option<&Page> {
        let fits = |which: PageFor| match which {
            PageFor::Status(exact) => exact == status,
            PageFor::ClientErrors => status.is_client_error(),
            PageFor::ServerErrors => status.is_server_error(),
        };
        self.0.iter().find(|(which, _)| fits(*which)).map(|(_, page)| page)
    }
}

impl Page {
    fn new(page: &model::Page) -> Self {
        let content_type = HeaderValue::from_static(page.content_type);
        Self { content_type, body: Bytes::copy_from_slice(&page.body) }
    }

    /// Says in `header` what the body is.
    pub(crate) fn describe(&self, header: &mut ResponseHeader) -> pingora::Result<()> {
        header.insert_header(header::CONTENT_TYPE, self.content_type.clone())?;
        header.insert_header(header::CONTENT_LENGTH, self.body.len())
    }
}
