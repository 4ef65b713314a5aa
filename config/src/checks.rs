//! Checks across keys and sections. Each looks only at what is valid by itself, so that one mistake is reported once.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::class::ClassSection;
use crate::error::Sink;
use crate::host::HostSection;
use crate::key::{Located, suggestion};
use crate::listener::overlap;
use crate::model::{Class, FieldMatch, ListenAddress};
use crate::pool::PoolSection;
use crate::route::{RouteSection, host_text};
use crate::units::{DurationText, SizeText};

/// No two sockets may be in each other's way.
pub(crate) fn addresses_are_distinct<'a>(
    addresses: impl Iterator<Item = &'a Located<ListenAddress>>,
    sink: &Sink,
) {
    let mut earlier: Vec<&Located<ListenAddress>> = Vec::new();
    for address in addresses {
        if let Some(other) = earlier.iter().find(|other| overlap(&address.value, &other.value)) {
            let message = format!("{} overlaps {}, which is {}", address.value, other.place.key, other.value);
            sink.report(&address.place, message);
        }
        earlier.push(address);
    }
}

/// Why pools keep VMs, for messages.
const KEEPS: &str = "the most of each one's scale.min and scale.schedule";

/// The host has room for each pool's VM, and for what the pools keep at least, all at their highest minimum.
pub(crate) fn host_holds_pools(host: &HostSection, pools: &[PoolSection], sink: &Sink) {
    if let Some(host_memory) = &host.memory {
        let mut kept = 0_u128;
        let mut each_fits = true;
        for pool in pools {
            let Some(memory) = &pool.memory else { continue };
            if memory.value > host_memory.value {
                each_fits = false;
                let [memory_text, limit] = [memory.value, host_memory.value].map(SizeText);
                let message =
                    format!("{memory_text} is more than host.memory, which is {limit}: no VM could start");
                sink.report(&memory.place, message);
            }
            kept += u128::from(memory.value) * u128::from(pool.highest_min);
        }
        if each_fits && kept > u128::from(host_memory.value) {
            let memory = SizeText(host_memory.value);
            let kept = SizeText(u64::try_from(kept).unwrap_or(u64::MAX));
            let message = format!("{memory} is less than the {kept} of the VMs that pools keep ({KEEPS})");
            sink.report(&host_memory.place, message);
        }
    }
    if let Some(max_vms) = &host.max_vms {
        let kept: u64 = pools.iter().map(|pool| u64::from(pool.highest_min)).sum();
        if kept > u64::from(max_vms.value) {
            let message = format!("{} is less than the {kept} VMs that pools keep ({KEEPS})", max_vms.value);
            sink.report(&max_vms.place, message);
        }
    }
}

/// Every route leads to a pool, be it a valid one or not.
pub(crate) fn routes_have_pools(routes: &[RouteSection], pools: &[PoolSection], sink: &Sink) {
    let names = pools.iter().map(|pool| pool.name.as_str()).collect();
    for route in routes {
        let mirror = route.mirror().map(|mirror| &mirror.pool);
        all_exist(route.pools().chain(mirror), &names, "pool", sink);
    }
}

/// Every route's class is there, be it a valid one or not. The default one always is.
pub(crate) fn routes_have_classes(routes: &[RouteSection], classes: &[ClassSection], sink: &Sink) {
    let names = classes.iter().map(|class| class.name.as_str()).chain([Class::DEFAULT]).collect();
    all_exist(routes.iter().flat_map(|route| route.class.iter().flatten()), &names, "class", sink);
}

/// Each of these is the name of a `what`.
fn all_exist<'a>(
    wanted: impl Iterator<Item = &'a Located<String>>,
    names: &BTreeSet<&str>,
    what: &str,
    sink: &Sink,
) {
    for name in wanted {
        if !names.contains(name.value.as_str()) {
            let near = suggestion(&name.value, names.iter().copied());
            sink.report(&name.place, format!("no {what} is named {:?}{near}", name.value));
        }
    }
}

/// No two routes have one name or match the same requests first.
pub(crate) fn routes_are_distinct(routes: &[RouteSection], sink: &Sink) {
    let mut names = HashMap::new();
    let mut matches = HashMap::new();
    for route in routes {
        if let Some(Some(name)) = &route.name
            && let Some(other) = names.insert(&name.value, route)
        {
            sink.report(&name.place, format!("{} has the name {:?} already", other.place.key, name.value));
        }
        if let (Some(host), Some(path), Some(headers)) = (&route.host, &route.path, &route.headers)
            && let fields = headers.iter().flat_map(|headers| &headers.value).map(FieldMatch::texts)
            && let Some(other) = matches.insert((&host.value, &path.value, fields.collect::<Vec<_>>()), route)
        {
            let (host, path) = (host_text(&host.value), &path.value);
            let fields = if headers.is_some() { ", and the same headers" } else { "" };
            let message =
                format!("overlaps {}: both match host {host:?} and path {path:?}{fields}", described(other));
            sink.report(&route.place, message);
        }
    }
}

/// Reports `larger` when it is less than `smaller`, whose key is `name`.
pub(crate) fn not_less(
    larger: &Option<Located<u32>>,
    smaller: &Option<Located<u32>>,
    name: &str,
    sink: &Sink,
) {
    if let (Some(larger), Some(smaller)) = (larger, smaller)
        && larger.value < smaller.value
    {
        let message = format!("{} is less than {name}, which is {}", larger.value, smaller.value);
        sink.report(&larger.place, message);
    }
}

/// Reports `shorter` when it is longer than `longer`, whose key is `name`.
pub(crate) fn not_longer(
    shorter: &Option<Located<Duration>>,
    longer: &Option<Located<Duration>>,
    name: &str,
    sink: &Sink,
) {
    if let (Some(shorter), Some(longer)) = (shorter, longer)
        && shorter.value > longer.value
    {
        let [value, limit] = [shorter.value, longer.value].map(DurationText);
        sink.report(&shorter.place, format!("{value} is longer than {name}, which is {limit}"));
    }
}

/// A route's place, and its name if it has one.
fn described(route: &RouteSection) -> String {
    match &route.name {
        Some(Some(name)) => format!("{} ({:?})", route.place.key, name.value),
        _ => route.place.key.clone(),
    }
}
