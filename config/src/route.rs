//! `[[route]]`: which requests go to which pool.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Method;
use toml::de::DeValue;

use crate::action;
use crate::affinity;
use crate::auth;
use crate::compress;
use crate::cors;
use crate::error::Sink;
use crate::field_match;
use crate::filter;
use crate::key::{Located, Place};
use crate::mirror::{self, MirrorSection};
use crate::model::{
    Affinity, Auth, Class, Compress, Cors, Destination, FieldMatch, Filter, HostPattern, Redirect, Respond,
    Rewrite, Route,
};
use crate::pages::{self, InsteadSection};
use crate::path;
use crate::reader::Reader;
use crate::split::{self, SplitSection};
use crate::values::{boolean, string};

/// One `[[route]]` as far as it is valid.
pub(crate) struct RouteSection {
    pub(crate) place: Place,
    /// `None`: invalid. `Some(None)`: left out.
    pub(crate) name: Option<Option<Located<String>>>,
    pub(crate) host: Option<Located<HostPattern>>,
    /// In normal form.
    pub(crate) path: Option<Located<String>>,
    /// `None`: invalid. `Some(None)`: left out.
    pub(crate) headers: Option<Option<Located<Vec<FieldMatch>>>>,
    /// `None`: invalid. `Some(None)`: it leads to none.
    pool: Option<Option<Located<String>>>,
    split: Option<Option<SplitSection>>,
    fallback: Option<Option<Located<String>>>,
    affinity: Option<Option<Located<Affinity>>>,
    mirror: Option<Option<Located<MirrorSection>>>,
    respond: Option<Option<Located<Respond>>>,
    redirect: Option<Option<Located<Redirect>>>,
    /// `Some(None)`: left out.
    pub(crate) class: Option<Option<Located<String>>>,
    methods: Option<Option<Located<Vec<Method>>>>,
    rewrite: Option<Option<Located<Rewrite>>>,
    filter: Option<Located<Filter>>,
    auth: Option<Option<Auth>>,
    cors: Option<Option<Cors>>,
    compress: Option<Option<Located<Compress>>>,
    server_timing: Option<Option<Located<bool>>>,
    pub(crate) instead: Option<InsteadSection>,
}

impl RouteSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let respond = table.optional_table("respond", action::respond);
        let redirect = table.optional_table("redirect", action::redirect);
        let pool = table.read("pool", string);
        let split = split::read(table);
        let leads = !matches!((&respond, &redirect, &split), (Some(None), Some(None), Some(None)));
        let pool = if leads { pool.optional() } else { pool.required().map(Some) };
        let section = Self {
            place: table.place().clone(),
            name: table.read("name", string).check(|name| check_name(name)).optional(),
            host: table.read("host", host_pattern).or(HostPattern::Any),
            path: table.read("path", |value| path::normalize(&string(value)?)).or("/".to_owned()),
            headers: table.read("headers", field_match::read).optional(),
            pool,
            split,
            fallback: table.read("fallback", string).optional(),
            affinity: table.optional_table("affinity", affinity::read),
            mirror: table.optional_table("mirror", mirror::read),
            respond,
            redirect,
            class: table.read("class", string).optional(),
            methods: table.strings("methods", method).check(|methods| each_once(methods)).optional(),
            rewrite: table.optional_table("rewrite", action::rewrite),
            filter: table
                .table("filter", |table| {
                    Some(Located { value: filter::read(table)?, place: table.place().clone() })
                })
                .flatten(),
            auth: auth::read(table),
            cors: table.optional_table("cors", cors::read),
            compress: table.switch_or_table("compress", compress::read),
            server_timing: table.read("server_timing", boolean).optional(),
            instead: pages::instead(table),
        };
        section.check_destination(table.sink());
        section.check_fallback(table.sink());
        section.check_name(table.sink());
        section
    }

    /// It leads to one thing, and has no key that only pools have.
    fn check_destination(&self, sink: &Sink) {
        fn place<T>(key: &Option<Option<Located<T>>>) -> Option<&Place> {
            key.as_ref()?.as_ref().map(|located| &located.place)
        }
        let answers = [("respond", place(&self.respond)), ("redirect", place(&self.redirect))];
        let of_pools = [
            ("class", place(&self.class)),
            ("rewrite", place(&self.rewrite)),
            ("compress", place(&self.compress)),
            ("server_timing", place(&self.server_timing)),
            ("fallback", place(&self.fallback)),
            ("affinity", place(&self.affinity)),
            ("mirror", place(&self.mirror)),
        ];
        for (key, found) in of_pools {
            if let (Some(found), Some((answer, _))) =
                (found, answers.iter().find(|(_, place)| place.is_some()))
            {
                sink.report(found, format!("a route with {answer} has no {key}"));
            }
        }
        if let (Some(filter), Some((answer, _))) =
            (&self.filter, answers.iter().find(|(_, place)| place.is_some()))
            && !filter.value.request.is_empty()
        {
            let message = format!("a route with {answer} sends no request whose header could be changed");
            sink.report(&filter.place, message);
        }
        let split = self.split.as_ref().and_then(Option::as_ref).map(|split| &split.place);
        let mut leads = [("pool", place(&self.pool)), ("pools", split)]
            .into_iter()
            .chain(answers)
            .filter_map(|(key, place)| Some((key, place?)));
        if let (Some((first, _)), Some((key, place))) = (leads.next(), leads.next()) {
            sink.report(
                place,
                format!(
                    "a route has one of pool, pools, respond and redirect, this one has {first} and {key}"
                ),
            );
        }
    }

    /// All names of pools that its requests may go to.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Located<String>> {
        self.own_pools().chain(self.fallback.iter().flatten())
    }

    /// What it says of requests that belong together, if it is valid.
    pub(crate) fn affinity(&self) -> Option<&Located<Affinity>> {
        self.affinity.as_ref()?.as_ref()
    }

    /// Who gets copies of its requests, if that is valid.
    pub(crate) fn mirror(&self) -> Option<&MirrorSection> {
        Some(&self.mirror.as_ref()?.as_ref()?.value)
    }

    fn own_pools(&self) -> impl Iterator<Item = &Located<String>> {
        let split = self.split.iter().flatten().flat_map(SplitSection::pools);
        self.pool.iter().flatten().chain(split)
    }

    /// Host and path are no name for several routes.
    fn check_name(&self, sink: &Sink) {
        if let (Some(None), Some(Some(headers))) = (&self.name, &self.headers) {
            sink.report(&headers.place, "a route with headers needs a name");
        }
    }

    /// A pool is no help to itself.
    fn check_fallback(&self, sink: &Sink) {
        let Some(Some(fallback)) = &self.fallback else { return };
        if self.own_pools().any(|own| own.value == fallback.value) {
            sink.report(&fallback.place, "is one of the route's own pools");
        }
    }

    fn destination(
        pool: Option<Located<String>>,
        split: Option<SplitSection>,
        respond: Option<Located<Respond>>,
        redirect: Option<Located<Redirect>>,
    ) -> Option<Destination> {
        match (pool, split, respond, redirect) {
            (Some(pool), None, None, None) => Some(Destination::Pool(pool.value)),
            (None, Some(split), None, None) => Some(Destination::Split(split.into_shares()?)),
            (None, None, Some(respond), None) => Some(Destination::Respond(respond.value)),
            (None, None, None, Some(redirect)) => Some(Destination::Redirect(redirect.value)),
            _ => None,
        }
    }

    /// A route without a name is named by what it matches, such as `example.org/api` or `*/`. That cannot clash:
    /// no two of them match the same, and a name that was written has no slash.
    pub(crate) fn into_route(self, classes: &BTreeMap<String, Arc<Class>>) -> Option<Route> {
        let (host, path) = (self.host?.value, self.path?.value);
        let name = self.name?.map_or_else(|| format!("{}{path}", host_text(&host)), |name| name.value);
        let class = self.class?.map_or_else(|| Class::DEFAULT.to_owned(), |class| class.value);
        let class = Arc::clone(classes.get(&class)?);
        let to = Self::destination(self.pool?, self.split?, self.respond?, self.redirect?)?;
        let methods = self.methods?.map(|methods| methods.value);
        let rewrite = self.rewrite?.map(|rewrite| rewrite.value);
        Some(Route {
            name,
            host,
            path,
            headers: self.headers?.map(|headers| headers.value).unwrap_or_default(),
            to,
            fallback: self.fallback?.map(|pool| pool.value),
            affinity: self.affinity?.map(|affinity| affinity.value),
            mirror: self.mirror?.map(|mirror| mirror.value.into_mirror()),
            class,
            methods,
            rewrite,
            filter: self.filter?.value,
            auth: self.auth?,
            cors: self.cors?,
            compress: self.compress?.map(|compress| compress.value),
            server_timing: self.server_timing?.is_some_and(|timing| timing.value),
            instead: self.instead?.into_instead(),
        })
    }
}

/// A pattern as it is written.
pub(crate) fn host_text(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*.{suffix}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let valid = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if valid {
        return Ok(());
    }
    Err(r#"a route's name has 1 to 63 characters of a-z, A-Z, 0-9, ".", "_" and "-""#.to_owned())
}

pub(crate) fn method(value: &DeValue<'_>) -> Result<Method, String> {
    let text = string(value)?;
    // Methods are case-sensitive (RFC 9110 §9.1), and all that there are have capitals only.
    let method = text
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        .then(|| text.parse().ok())
        .flatten();
    match method {
        Some(Method::CONNECT) => Err("CONNECT is never served".to_owned()),
        Some(method) => Ok(method),
        None => Err(format!("{text:?} is no method such as \"GET\"")),
    }
}

pub(crate) fn each_once(methods: &[Method]) -> Result<(), String> {
    if methods.is_empty() {
        return Err("must name at least one method; leave it out for all".to_owned());
    }
    match methods.iter().enumerate().find(|(index, method)| methods[..*index].contains(method)) {
        Some((_, method)) => Err(format!("names {method} more than once")),
        None => Ok(()),
    }
}

fn host_pattern(value: &DeValue<'_>) -> Result<HostPattern, String> {
    let text = string(value)?.to_ascii_lowercase();
    if text.is_empty() || text == "*" {
        return Err("leave host out to match any host".to_owned());
    }
    if !text.is_ascii() {
        return Err(format!(r#"{text:?} is not ASCII; write its "xn--" form"#));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && let Ok(address) = inner.parse::<Ipv6Addr>()
    {
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    let suffix = text.strip_prefix("*.");
    if !is_host_name(suffix.unwrap_or(&text)) {
        return Err(format!(
            r#"{text:?} is no host such as "example.org" or "*.example.org", without a port"#
        ));
    }
    match suffix {
        Some(suffix) if suffix.parse::<Ipv4Addr>().is_ok() => {
            Err(format!("{text:?}: an address has no names below it"))
        }
        Some(suffix) => Ok(HostPattern::Suffix(suffix.to_owned())),
        None => Ok(HostPattern::Exact(text)),
    }
}

/// RFC 1123, and the underscore, which browsers send and DNS carries. IPv4 addresses are among these.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}
