//! The rules across sections, held against a plain restatement of them: small configurations that differ only in
//! what these rules look at are valid exactly when no rule is broken.

use proptest::prelude::*;
use weir_config::parse;

#[derive(Clone, Debug)]
struct Pool {
    memory_mib: u64,
    min: u64,
    /// Minimum of a schedule.
    scheduled: Option<u64>,
}

#[derive(Clone, Debug)]
struct Route {
    name: Option<&'static str>,
    host: Option<&'static str>,
    path: &'static str,
    pool: usize,
    class: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Sample {
    listeners: Vec<&'static str>,
    admin: Option<&'static str>,
    memory_mib: u64,
    max_vms: u64,
    /// Named by their index.
    pools: Vec<Pool>,
    routes: Vec<Route>,
}

const ADDRESSES: [&str; 6] =
    ["127.0.0.1:81", "127.0.0.2:81", "127.0.0.1:82", "0.0.0.0:82", "[::1]:81", "[::]:83"];

fn sample() -> impl Strategy<Value = Sample> {
    let address = || prop::sample::select(&ADDRESSES[..]);
    let pool = (8_u64..40, 0_u64..4, prop::option::of(0_u64..4))
        .prop_map(|(memory_mib, min, scheduled)| Pool { memory_mib, min, scheduled });
    let route = (
        prop::option::of(prop::sample::select(&["a", "b", "c", "d"][..])),
        prop::option::of(prop::sample::select(&["x.org", "X.org", "*.x.org"][..])),
        prop::sample::select(&["/", "/a", "/a/", "/b"][..]),
        0_usize..4,
        prop::option::of(prop::sample::select(&["default", "written", "written", "missing"][..])),
    );
    let route = route.prop_map(|(name, host, path, pool, class)| Route { name, host, path, pool, class });
    (
        prop::collection::vec(address(), 0..3),
        prop::option::of(address()),
        30_u64..150,
        1_u64..8,
        prop::collection::vec(pool, 0..4),
        prop::collection::vec(route, 0..4),
    )
        .prop_map(|(listeners, admin, memory_mib, max_vms, pools, routes)| Sample {
            listeners,
            admin,
            memory_mib,
            max_vms,
            pools,
            routes,
        })
}

impl Sample {
    fn text(&self) -> String {
        let mut text = format!("[host]\nmemory = '{}MiB'\nmax_vms = {}\n", self.memory_mib, self.max_vms);
        text +=
            &self.listeners.iter().map(|a| format!("[[listener]]\naddress = '{a}'\n")).collect::<String>();
        text += &self.admin.map(|a| format!("[admin]\naddress = '{a}'\n")).unwrap_or_default();
        for (name, Pool { memory_mib, min, scheduled }) in self.pools.iter().enumerate() {
            text += &format!("[pool.{name}]\nimage = 'x'\nmemory = '{memory_mib}MiB'\nscale.min = {min}\n");
            let schedule =
                |min| format!("scale.schedule = [{{ from = '22:00', to = '06:00', min = {min} }}]\n");
            text += &scheduled.map(schedule).unwrap_or_default();
        }
        text += "[class.written]\nweight = 3\n";
        for Route { name, host, path, pool, class } in &self.routes {
            text += &format!("[[route]]\npath = '{path}'\npool = '{pool}'\n");
            text += &name.map(|name| format!("name = '{name}'\n")).unwrap_or_default();
            text += &class.map(|class| format!("class = '{class}'\n")).unwrap_or_default();
            text += &host.map(|host| format!("host = '{host}'\n")).unwrap_or_default();
        }
        text
    }

    fn is_valid(&self) -> bool {
        let highest = |p: &Pool| p.min.max(p.scheduled.unwrap_or(0));
        let kept = |per_vm: fn(&Pool) -> u64| self.pools.iter().map(|p| highest(p) * per_vm(p)).sum::<u64>();
        let addresses: Vec<_> = self.listeners.iter().chain(&self.admin).collect();
        let overlaps = [("127.0.0.1:82", "0.0.0.0:82"), ("0.0.0.0:82", "127.0.0.1:82")];
        let matched = |r: &Route| (r.host.map(str::to_lowercase), r.path.len() > 1, r.path.contains('b'));
        !self.listeners.is_empty()
            && pairs(&addresses).all(|(a, b)| a != b && !overlaps.contains(&(**a, **b)))
            && self.pools.iter().all(|pool| pool.memory_mib <= self.memory_mib)
            && kept(|pool| pool.memory_mib) <= self.memory_mib
            && kept(|_| 1) <= self.max_vms
            && self.routes.iter().all(|route| route.pool < self.pools.len())
            && self.routes.iter().all(|route| route.class != Some("missing"))
            && pairs(&self.routes).all(|(a, b)| matched(a) != matched(b))
            && pairs(&self.routes).all(|(a, b)| a.name.is_none() || a.name != b.name)
    }
}

fn pairs<T>(items: &[T]) -> impl Iterator<Item = (&T, &T)> {
    items.iter().enumerate().flat_map(|(i, a)| items[i + 1..].iter().map(move |b| (a, b)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]
    #[test]
    fn valid_exactly_when_no_rule_is_broken(sample in sample()) {
        let parsed = parse(&sample.text(), "f");
        prop_assert_eq!(parsed.is_ok(), sample.is_valid(), "{:?}", parsed);
        if let Ok(config) = parsed {
            let mut names: Vec<_> = config.routes.iter().map(|route| &route.name).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), sample.routes.len(), "names are unique, derived ones too");
        }
    }
}
