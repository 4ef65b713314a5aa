//! The sections of a configuration: read each for itself, then held against each other.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access_log;
use crate::acme::{self, AcmeSection};
use crate::affinity;
use crate::checks;
use crate::class::{self, ClassSection};
use crate::error::Sink;
use crate::host::HostSection;
use crate::key::Located;
use crate::listener::{ListenerSection, read_address};
use crate::machine::{self, Machine};
use crate::mirror;
use crate::model::{AccessLog, Admin, Config, ErrorPages, ListenAddress};
use crate::otlp::{self, OtlpSection};
use crate::pages;
use crate::pool::PoolSection;
use crate::reader::Reader;
use crate::route::RouteSection;

/// Everything at the root as far as it is valid; `None`: it is not, which has been reported.
pub(crate) struct Sections {
    listeners: Option<Vec<ListenerSection>>,
    admin: Option<Option<Located<SocketAddr>>>,
    acme: Option<Option<AcmeSection>>,
    host: Option<HostSection>,
    access_log: Option<AccessLog>,
    otlp: Option<Option<OtlpSection>>,
    classes: Option<Vec<ClassSection>>,
    pools: Option<Vec<PoolSection>>,
    error_pages: Option<ErrorPages>,
    routes: Option<Vec<RouteSection>>,
}

impl Sections {
    pub(crate) fn read(root: &mut Reader<'_>) -> Self {
        Self {
            listeners: root.tables("listener", ListenerSection::read),
            admin: root.optional_table("admin", read_address),
            acme: root.optional_table("acme", AcmeSection::read),
            host: root.table("host", HostSection::read),
            access_log: root.table("access_log", access_log::read).flatten(),
            otlp: root.optional_table("telemetry", otlp::telemetry).map(Option::flatten),
            classes: root.named_tables("class", ClassSection::read),
            pools: root.named_tables("pool", PoolSection::read),
            error_pages: pages::error_pages(root, "error_pages"),
            routes: root.tables("route", RouteSection::read),
        }
    }

    /// Reports what does not go together, and what is not there on `machine`.
    pub(crate) fn check(&self, root: &Reader<'_>, machine: Option<&dyn Machine>) {
        let sink = root.sink();
        if self.listeners.as_ref().is_some_and(Vec::is_empty) {
            sink.report(&root.place().child("listener", 0), "at least one [[listener]] is needed");
        }
        self.check_addresses(machine, sink);
        if let (Some(acme), Some(listeners)) = (&self.acme, &self.listeners) {
            acme::check(acme.as_ref(), listeners, sink);
        }
        if let (Some(host), Some(pools)) = (&self.host, &self.pools) {
            checks::host_holds_pools(host, pools, sink);
        }
        if let Some(classes) = &self.classes {
            class::check_number(classes, sink);
        }
        self.check_routes(sink);
        if let Some(machine) = machine {
            let listeners = self.listeners.as_deref().unwrap_or_default();
            machine::check_certificates(listeners, machine, sink);
            machine::check_acme(self.acme.as_ref().and_then(Option::as_ref), machine, sink);
            machine::check_otlp(self.otlp.as_ref().and_then(Option::as_ref), machine, sink);
            machine::check_images(self.pools.as_deref().unwrap_or_default(), machine, sink);
        }
    }

    fn check_addresses(&self, machine: Option<&dyn Machine>, sink: &Sink) {
        let of_admin: Vec<_> = self
            .admin
            .iter()
            .flatten()
            .map(|admin| Located { value: ListenAddress::Ip(admin.value), place: admin.place.clone() })
            .collect();
        let of_listeners = self.listeners.iter().flatten().flat_map(|listener| &listener.address);
        let addresses = of_listeners.chain(&of_admin);
        checks::addresses_are_distinct(addresses.clone(), sink);
        if let Some(machine) = machine {
            machine::check_addresses(addresses, machine, sink);
        }
    }

    fn check_routes(&self, sink: &Sink) {
        let Some(routes) = &self.routes else { return };
        checks::routes_are_distinct(routes, sink);
        if let Some(error_pages) = &self.error_pages {
            pages::check_interception(routes, error_pages, sink);
        }
        if let Some(pools) = &self.pools {
            checks::routes_have_pools(routes, pools, sink);
            affinity::check_isolation(routes, pools, sink);
            mirror::check_pools(routes, pools, sink);
        }
        if let Some(classes) = &self.classes {
            checks::routes_have_classes(routes, classes, sink);
        }
    }

    /// `None` if any of it is not valid.
    pub(crate) fn into_config(self) -> Option<Config> {
        let acme = match self.acme? {
            Some(acme) => Some(acme.into_acme()?),
            None => None,
        };
        let otlp = match self.otlp? {
            Some(otlp) => Some(otlp.into_otlp()?),
            None => None,
        };
        let listeners = self.listeners?.into_iter().map(|listener| listener.into_listener(acme.as_ref()));
        let listeners = listeners.collect::<Option<_>>()?;
        let classes = class::into_classes(self.classes?)?;
        let pools = self.pools?.into_iter().map(|pool| Some((pool.name, Arc::new(pool.pool?))));
        let routes = self.routes?.into_iter().map(|route| Some(Arc::new(route.into_route(&classes)?)));
        Some(Config {
            listeners,
            acme,
            admin: self.admin?.map(|address| Admin { address: address.value }),
            host: self.host?.into_host()?,
            access_log: self.access_log?,
            otlp,
            pools: pools.collect::<Option<_>>()?,
            routes: routes.collect::<Option<_>>()?,
            classes,
            error_pages: self.error_pages?,
        })
    }
}
