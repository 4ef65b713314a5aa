//! `error_pages`, `route.error_pages` and `route.maintenance`: what clients are shown instead of what they asked for.
//!
//! Pages are read when the configuration is, so that a missing one is an error of the configuration, and no request waits
//! for a disk.

use std::path::Path;

use http::StatusCode;
use toml::de::DeValue;

use crate::error::Sink;
use crate::key::Located;
use crate::load::read_bounded;
use crate::model::{ErrorPages, Instead, Maintenance, Page};
use crate::reader::Reader;
use crate::route::RouteSection;
use crate::values::{boolean, duration, integer, network, string};

/// Largest page, bytes: it stays in memory, and goes out whenever something is wrong.
const LARGEST: u64 = 256 << 10;

/// Extensions of pages, and what they are to browsers.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
];

/// The table `key` of pages by status or class of statuses; none if absent. `None`: some of it is wrong.
pub(crate) fn error_pages(table: &mut Reader<'_>, key: &'static str) -> Option<ErrorPages> {
    let files = table.named_strings(key, |name, file| {
        which(name)?;
        read(file).map(drop)
    })?;
    let mut pages = ErrorPages::default();
    for (name, file) in files {
        let page = read(&file).ok()?;
        match which(&name).ok()? {
            Which::Status(status) => drop(pages.by_status.insert(status, page)),
            Which::ClientErrors => pages.client_errors = Some(page),
            Which::ServerErrors => pages.server_errors = Some(page),
        }
    }
    Some(pages)
}

/// `true`, or a table. `None`: some of it is wrong. `Some(None)`: there is no maintenance.
fn maintenance(table: &mut Reader<'_>) -> Option<Option<Maintenance>> {
    if let Some(on) = table.boolean_instead_of_table("maintenance") {
        return Some(on.then(Maintenance::default));
    }
    table.optional_table("maintenance", |table| {
        let page = table.read("page", |value| read(&string(value)?)).optional();
        let status = table.read("status", status).or(StatusCode::SERVICE_UNAVAILABLE);
        let retry_after = table.read("retry_after", duration).optional();
        let allow = table.strings("allow", network).or(Vec::new());
        Some(Maintenance {
            page: page?.map(|page| page.value),
            status: status?.value,
            retry_after: retry_after?.map(|after| after.value),
            allow: allow?.value,
        })
    })
}

/// The keys of a route.
pub(crate) fn instead(table: &mut Reader<'_>) -> Option<InsteadSection> {
    let error_pages = error_pages(table, "error_pages");
    let intercept_errors = table.read("intercept_errors", boolean).or(false);
    let maintenance = maintenance(table);
    Some(InsteadSection {
        error_pages: error_pages?,
        intercept_errors: intercept_errors?,
        maintenance: maintenance?,
    })
}

/// [`Instead`], and where it says that it intercepts.
pub(crate) struct InsteadSection {
    error_pages: ErrorPages,
    intercept_errors: Located<bool>,
    maintenance: Option<Maintenance>,
}

impl InsteadSection {
    pub(crate) fn into_instead(self) -> Instead {
        Instead {
            error_pages: self.error_pages,
            intercept_errors: self.intercept_errors.value,
            maintenance: self.maintenance,
        }
    }
}

/// Who replaces answers has something to replace them with.
pub(crate) fn check_interception(routes: &[RouteSection], of_all: &ErrorPages, sink: &Sink) {
    for instead in routes.iter().flat_map(|route| &route.instead) {
        let none = |pages: &ErrorPages| *pages == ErrorPages::default();
        if instead.intercept_errors.value && none(&instead.error_pages) && none(of_all) {
            sink.report(
                &instead.intercept_errors.place,
                "needs error_pages, the route's or those of all routes",
            );
        }
    }
}

/// What a page is for.
enum Which {
    Status(StatusCode),
    ClientErrors,
    ServerErrors,
}

fn which(name: &str) -> Result<Which, String> {
    let status = || {
        let number = name.parse().ok().filter(|_| name.len() == 3)?;
        StatusCode::from_u16(number)
            .ok()
            .filter(|status| status.is_client_error() || status.is_server_error())
    };
    match (name, status()) {
        ("4xx", _) => Ok(Which::ClientErrors),
        ("5xx", _) => Ok(Which::ServerErrors),
        (_, Some(status)) => Ok(Which::Status(status)),
        _ => Err(format!(r#"{name:?} is neither a status from 400 to 599 nor "4xx" or "5xx""#)),
    }
}

fn status(value: &DeValue<'_>) -> Result<StatusCode, String> {
    let status = integer(400_u16..=599)(value)?;
    StatusCode::from_u16(status).map_err(|error| error.to_string())
}

/// The page in a file; the error is a message.
fn read(file: &str) -> Result<Page, String> {
    let path = Path::new(file);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let content_type = TYPES.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
    let Some((_, content_type)) = content_type else {
        let known: Vec<_> = TYPES.iter().map(|(known, _)| format!(".{known}")).collect();
        return Err(format!("{file:?} does not end in one of {}", known.join(", ")));
    };
    let body = read_bounded(path, LARGEST).map_err(|error| format!("read {file:?}: {error}"))?;
    Ok(Page { content_type, body: body.into() })
}
