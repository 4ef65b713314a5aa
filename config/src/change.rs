//! What leads from one configuration to another: as little as possible, so that a reload touches nothing else.
//!
//! Most of a configuration can change while weir serves. What a pool's VMs are made from can, too, but only other VMs
//! are of it then. What cannot change is what all VMs and all of weir stand on: [`NeedsRestart`] says so, and nothing of
//! such a configuration is used.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::{Class, Config, ErrorPages, Host, Listener, Pool, Route};

/// What differs between two configurations. Parts that are the same are not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Listeners that there are no more.
    pub listeners_removed: Vec<Listener>,
    /// Listeners that there are besides. One with the address of a removed one takes its place.
    pub listeners_added: Vec<Listener>,
    /// Limits of the host.
    pub host: Option<Host>,
    /// Pools, by name.
    pub pools: BTreeMap<String, PoolChange>,
    /// All routes and classes, if any of them differs or a pool does.
    pub routing: Option<Routing>,
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// As [`Config::classes`].
    pub classes: BTreeMap<String, Arc<Class>>,
    /// As [`Config::error_pages`].
    pub error_pages: ErrorPages,
    /// As [`Config::routes`].
    pub routes: Vec<Arc<Route>>,
}

/// What becomes of one pool.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolChange {
    /// It is a new one.
    Added(Arc<Pool>),
    /// There is no such pool any more.
    Removed,
    /// It has other settings. Its VMs are replaced if [`same_machines`] says so.
    Changed(Arc<Pool>),
}

/// Keys whose values differ and can only be changed by starting weir again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsRestart {
    /// Their paths, such as `host.network`; at least one.
    pub keys: Vec<String>,
}

impl fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changed, for which weir has to be started again", self.keys.join(", "))
    }
}

impl std::error::Error for NeedsRestart {}

/// Whether VMs of the one pool are as good as VMs of the other: they are made from the same.
pub fn same_machines(a: &Pool, b: &Pool) -> bool {
    a.with_machines_of(b) == *a
}

impl Pool {
    /// The same pool, but of VMs that are made from what `other`'s are.
    #[must_use]
    pub fn with_machines_of(&self, other: &Self) -> Self {
        Self {
            kind: other.kind.clone(),
            image: other.image.clone(),
            protocol: other.protocol,
            port: other.port,
            vcpus: other.vcpus,
            memory: other.memory,
            env: other.env.clone(),
            args: other.args.clone(),
            isolation: other.isolation,
            limits: other.limits.clone(),
            ..self.clone()
        }
    }
}

impl Change {
    /// From `old` to `new`.
    ///
    /// # Errors
    /// If that is not possible in a weir that runs.
    pub fn between(old: &Config, new: &Config) -> Result<Self, NeedsRestart> {
        let keys = fixed(old, new);
        if !keys.is_empty() {
            return Err(NeedsRestart { keys });
        }
        let pools = pools(old, new);
        let routing = || Routing {
            classes: new.classes.clone(),
            error_pages: new.error_pages.clone(),
            routes: new.routes.clone(),
        };
        let same_pages = old.error_pages == new.error_pages;
        let rerouted =
            old.classes != new.classes || old.routes != new.routes || !same_pages || !pools.is_empty();
        Ok(Self {
            listeners_removed: without(&old.listeners, &new.listeners),
            listeners_added: without(&new.listeners, &old.listeners),
            host: (old.host != new.host).then(|| new.host.clone()),
            pools,
            routing: rerouted.then(routing),
        })
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |kind: fn(&PoolChange) -> bool| self.pools.values().filter(|change| kind(change)).count();
        let parts = [
            (count(|change| matches!(change, PoolChange::Added(_))), "pools added"),
            (count(|change| matches!(change, PoolChange::Changed(_))), "pools changed"),
            (count(|change| matches!(change, PoolChange::Removed)), "pools removed"),
            (self.listeners_added.len(), "listeners added"),
            (self.listeners_removed.len(), "listeners removed"),
            (usize::from(self.host.is_some()), "host limits changed"),
            (self.routing.as_ref().map_or(0, |routing| routing.routes.len()), "routes read"),
        ];
        let parts: Vec<_> = parts.iter().filter(|(count, _)| *count > 0).collect();
        if parts.is_empty() {
            return f.write_str("nothing changed");
        }
        for (index, (count, what)) in parts.iter().enumerate() {
            write!(f, "{}{count} {what}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Keys that differ though they cannot be changed.
fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    let mut hold = |same: bool, key: String| keys.extend((!same).then_some(key));
    hold(old.admin == new.admin, "admin.address".to_owned());
    hold(old.acme == new.acme, "acme".to_owned());
    hold(old.host.network == new.host.network, "host.network".to_owned());
    hold(old.host.trusted_proxies == new.host.trusted_proxies, "host.trusted_proxies".to_owned());
    hold(old.host.snapshots == new.host.snapshots, "host.snapshots".to_owned());
    hold(old.access_log == new.access_log, "access_log".to_owned());
    hold(old.otlp == new.otlp, "telemetry.otlp".to_owned());
    for (name, (old, new)) in both(old, new) {
        hold(old.kind == new.kind, format!("pool.{name}.kind"));
        // Its servers' task knows one configuration.
        let servers_change = old.external().is_some() && old.kind == new.kind && old != new;
        hold(!servers_change, format!("pool.{name}, an external pool,"));
        hold(old.isolation == new.isolation, format!("pool.{name}.isolation"));
    }
    keys
}

fn pools(old: &Config, new: &Config) -> BTreeMap<String, PoolChange> {
    let removed = old.pools.keys().filter(|name| !new.pools.contains_key(*name));
    let removed = removed.map(|name| (name.clone(), PoolChange::Removed));
    let others = new.pools.iter().filter_map(|(name, pool)| match old.pools.get(name) {
        None => Some((name.clone(), PoolChange::Added(pool.clone()))),
        Some(before) if before != pool => Some((name.clone(), PoolChange::Changed(pool.clone()))),
        Some(_) => None,
    });
    removed.chain(others).collect()
}

/// Pools that are in both.
fn both<'a>(
    old: &'a Config,
    new: &'a Config,
) -> impl Iterator<Item = (&'a String, (&'a Arc<Pool>, &'a Arc<Pool>))> {
    old.pools.iter().filter_map(|(name, pool)| Some((name, (pool, new.pools.get(name)?))))
}

/// Those of `these` that have no equal among `others`, each of which is the equal of one.
fn without(these: &[Listener], others: &[Listener]) -> Vec<Listener> {
    let mut others: Vec<_> = others.iter().collect();
    let mut has_equal = |listener: &Listener| {
        let equal = others.iter().position(|other| *other == listener);
        equal.map(|at| others.swap_remove(at)).is_some()
    };
    these.iter().filter(|listener| !has_equal(listener)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse;

    /// What a configuration consists of, in small numbers so that two have much in common.
    #[derive(Clone, Debug)]
    struct Parts {
        listeners: Vec<u8>,
        max_vms: u8,
        pools: BTreeMap<u8, (u8, u8, u8)>,
        class_weight: u8,
        routes: Vec<u8>,
    }

    impl Parts {
        fn config(&self) -> Config {
            let mut text = format!("[host]\nmax_vms = {}\n", 400 + u32::from(self.max_vms));
            text += &format!("[class.c]\nweight = {}\n", 1 + self.class_weight);
            for listener in &self.listeners {
                // Some have port 0, of which there may be several.
                text += &format!("[[listener]]\naddress = \"127.0.0.1:{listener}\"\n");
            }
            for (name, (image, memory, max)) in &self.pools {
                let memory = 16 + memory;
                text += &format!("[pool.p{name}]\nimage = \"i{image}\"\nmemory = \"{memory}MiB\"\n");
                text += &format!("[pool.p{name}.scale]\nmax = {}\n", 1 + max);
            }
            let names: Vec<_> = self.pools.keys().collect();
            for (index, route) in self.routes.iter().enumerate() {
                let pool = names[usize::from(*route) % names.len()];
                text += &format!("[[route]]\npath = \"/{index}\"\npool = \"p{pool}\"\nclass = \"c\"\n");
            }
            parse(&text, "t").expect("it is valid")
        }
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let listeners = (0..3usize, proptest::collection::btree_set(1..5u8, 1..4))
            .prop_map(|(zeros, ports)| std::iter::repeat_n(0, zeros).chain(ports).collect());
        let pools = proptest::collection::btree_map(0..4u8, (0..2u8, 0..2u8, 0..2u8), 1..4);
        let routes = proptest::collection::vec(0..4u8, 0..3);
        (listeners, 0..2u8, pools, 0..2u8, routes).prop_map(
            |(listeners, max_vms, pools, class_weight, routes)| Parts {
                listeners,
                max_vms,
                pools,
                class_weight,
                routes,
            },
        )
    }

    /// What `config` is after `change`.
    fn applied(mut config: Config, change: Change) -> Config {
        for gone in &change.listeners_removed {
            let at = config.listeners.iter().position(|listener| listener == gone).expect("it was there");
            config.listeners.remove(at);
        }
        config.listeners.extend(change.listeners_added);
        if let Some(host) = change.host {
            config.host = host;
        }
        for (name, change) in change.pools {
            match change {
                PoolChange::Added(pool) => assert_eq!(config.pools.insert(name, pool), None),
                PoolChange::Removed => assert!(config.pools.remove(&name).is_some()),
                PoolChange::Changed(pool) => assert!(config.pools.insert(name, pool).is_some()),
            }
        }
        if let Some(Routing { classes, error_pages, routes }) = change.routing {
            (config.classes, config.error_pages, config.routes) = (classes, error_pages, routes);
        }
        config
    }

    fn sorted(mut config: Config) -> Config {
        config.listeners.sort_by_key(|listener| listener.address.clone());
        config
    }

    proptest! {
        #[test]
        fn a_change_leads_to_the_new_configuration(old in parts(), new in parts()) {
            let (old, new) = (old.config(), new.config());
            let change = Change::between(&old, &new).unwrap();
            prop_assert_eq!(sorted(applied(old, change)), sorted(new));
        }

        #[test]
        fn it_touches_nothing_that_is_the_same(old in parts(), new in parts()) {
            let (old, new) = (old.config(), new.config());
            let change = Change::between(&old, &new).unwrap();
            prop_assert!(change.listeners_added.iter().all(|one| !change.listeners_removed.contains(one)));
            for (name, change) in &change.pools {
                prop_assert_ne!(old.pools.get(name), new.pools.get(name), "{:?}", change);
            }
            prop_assert_eq!(change.host.is_some(), old.host != new.host);
            prop_assert!(Change::between(&new, &new.clone()).unwrap().is_empty());
            prop_assert_eq!(change.is_empty(), sorted(old) == sorted(new));
        }

        #[test]
        fn scaling_does_not_make_other_machines(one in parts(), other in parts()) {
            let (one, other) = (one.config(), other.config());
            for (a, b) in one.pools.values().zip(other.pools.values()) {
                let same = a.image == b.image && a.memory == b.memory;
                prop_assert_eq!(same_machines(a, b), same);
                prop_assert_eq!(a.with_machines_of(b).scale.max, a.scale.max);
                prop_assert!(same_machines(&a.with_machines_of(b), b));
            }
        }
    }

    #[test]
    fn what_weir_stands_on_needs_a_restart() {
        let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[pool.p]\nimage = \"i\"\n";
        let old = parse(text, "t").unwrap();
        let others = [
            ("isolation = \"request\"", "pool.p.isolation"),
            ("[host]\nnetwork = \"10.9.0.0/16\"", "host.network"),
            ("[host]\ntrusted_proxies = [\"10.0.0.0/8\"]", "host.trusted_proxies"),
            ("[access_log]\nsample = 0.5", "access_log"),
            ("[telemetry.otlp]\nendpoint = \"http://127.0.0.1\"", "telemetry.otlp"),
            ("[host]\nsnapshots = \"/var/lib/weir\"", "host.snapshots"),
            ("[admin]\naddress = \"127.0.0.1:1\"", "admin.address"),
        ];
        for (more, key) in others {
            let new = parse(&format!("{text}{more}\n"), "t").unwrap();
            assert_eq!(Change::between(&old, &new), Err(NeedsRestart { keys: vec![key.to_owned()] }));
        }
    }

    #[test]
    fn a_change_is_told_in_one_line() {
        let base = Parts {
            listeners: vec![1],
            max_vms: 0,
            pools: [(0, (0, 0, 0))].into(),
            class_weight: 0,
            routes: vec![0],
        };
        let more =
            Parts { listeners: vec![2], pools: [(0, (0, 0, 1)), (1, (0, 0, 0))].into(), ..base.clone() };
        let told =
            |old: &Parts, new: &Parts| Change::between(&old.config(), &new.config()).unwrap().to_string();
        assert_eq!(
            told(&base, &more),
            "1 pools added, 1 pools changed, 1 listeners added, 1 listeners removed, 1 routes read"
        );
        assert_eq!(told(&base, &base), "nothing changed");
    }
}
