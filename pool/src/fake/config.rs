//! Configurations to begin with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_config::model::{
    AccessLog, Class, Config, ErrorPages, Health, Host, Isolation, Kind, MetricSelector, Pool, Protocol,
    Quarantine, Queue, Retry, Scale, Signal, Thousandths, VmLimits,
};

/// A pool called `name`: up to 4 VMs, none kept, soft limit 2, hard limit 4, 8 may wait for 10 s, idle after 30 s.
pub fn pool(name: &str) -> Pool {
    Pool {
        name: name.to_owned(),
        kind: Kind::Unikernel,
        image: "hello".to_owned(),
        protocol: Protocol::H1,
        port: 8080,
        vcpus: 1,
        memory: 16 << 20,
        env: BTreeMap::new(),
        args: Vec::new(),
        weight: 1,
        isolation: Isolation::Vm,
        soft_limit: 2,
        hard_limit: 4,
        start_timeout: Duration::from_secs(5),
        // Whatever `idle_timeout` a test sets holds for the last VM too.
        scale: Scale { max: 4, keep_last: Duration::ZERO, ..Scale::default() },
        queue: Queue { max_pending: 8, ..Queue::default() },
        health: Health::default(),
        retry: Retry::default(),
        breaker: None,
        quarantine: Quarantine::default(),
        signal: None,
        limits: VmLimits::default(),
    }
}

/// The sum of the metric called `name`, `target` of which are one VM's work; asked for every second.
pub fn signal(name: &str, target: Thousandths) -> Signal {
    Signal {
        scrape: "/metrics".to_owned(),
        metric: MetricSelector { text: name.to_owned(), name: name.to_owned(), labels: BTreeMap::new() },
        target,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        weights: false,
    }
}

/// A configuration of these pools on a host with room for many.
pub fn config(pools: impl IntoIterator<Item = Pool>) -> Config {
    Config {
        listeners: Vec::new(),
        acme: None,
        admin: None,
        host: Host::default(),
        access_log: AccessLog::default(),
        otlp: None,
        classes: [(Class::DEFAULT.to_owned(), Arc::default())].into(),
        pools: pools.into_iter().map(|pool| (pool.name.clone(), Arc::new(pool))).collect(),
        error_pages: ErrorPages::default(),
        routes: Vec::new(),
    }
}
