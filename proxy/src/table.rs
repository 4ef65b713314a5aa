//! Where requests go by the configuration that holds now.
//!
//! A reload puts another table in the place of this one, all at once. A request takes its route out of the table that is
//! there when its header has been read, and keeps that, with its pool, to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_config::model::{self, Config, Destination};
use weir_pool::{Pool, Pools};

use crate::auth::Verifiers;
use crate::context::{AnsweringRoute, Found, Route};
use crate::filter::{Answer, Filters};
use crate::follow::Follow;
use crate::metrics::Metrics;
use crate::resilience::{Affinity, Backing, Backings, Breaker, Instead, Mirror, Pages};
use crate::retry::Retries;
use crate::routes::Router;
use crate::serve::ServeError;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) router: Router<Found>,
    /// Whether a connection can have a VM of its own.
    pub(crate) isolates_connections: bool,
    /// Of errors, for requests without a route.
    pub(crate) pages: Arc<Pages>,
    /// That its routes need.
    pub(crate) files: Vec<Arc<dyn Follow>>,
    /// Of passwords, for all routes and tables.
    verifiers: Arc<Verifiers>,
    /// By pool.
    kept: HashMap<String, Kept>,
}

/// What is remembered of a pool's requests. Several tables share it as long as the pool's settings for it are the same.
#[derive(Clone, Debug)]
struct Kept {
    retry: model::Retry,
    retries: Arc<Retries>,
    breaker_config: Option<model::Breaker>,
    breaker: Option<Arc<Breaker>>,
}

impl Table {
    /// The routes of `config` to `pools`, which are there. `before`: the table that it replaces.
    pub(crate) fn new(
        config: &Config,
        pools: &Pools,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Result<Self, ServeError> {
        let keep = |(name, pool): (&String, &Arc<Pool>)| {
            let kept = before.and_then(|before| before.kept.get(name));
            (name.clone(), Kept::new(&pool.config(), kept, metrics))
        };
        let pools = pools.all();
        let verifiers = before.map(|before| Arc::clone(&before.verifiers)).unwrap_or_default();
        // One that leaves is there until no request can come for it any more.
        let stays = |(name, _): &(&String, _)| config.pools.contains_key(*name);
        let kept: HashMap<_, _> = pools.iter().filter(stays).map(keep).collect();
        let before = before.into_iter().flat_map(|before| before.kept.keys());
        before.filter(|name| !kept.contains_key(*name)).for_each(|name| metrics.forget_breaker(name));
        let pages = Arc::new(Pages::new(&config.error_pages));
        let parts = Parts { pools: &pools, kept: &kept, pages: &pages, verifiers: &verifiers, metrics };
        let route = |(number, config): (u32, &Arc<model::Route>)| match &config.to {
            Destination::Pool(_) | Destination::Split(_) => parts.pool_route(config, number),
            Destination::Respond(respond) => parts.answering_route(config, Answer::respond(respond)),
            Destination::Redirect(to) => parts.answering_route(config, Ok(Answer::redirect(to))),
        };
        let routes = (0..).zip(&config.routes).map(route).collect::<Result<Vec<_>, _>>()?;
        let of_connections = |found: &Found| match found {
            Found::Pool(route) => route.to.isolate_connections(),
            Found::Answer(_) => false,
        };
        let isolates_connections = routes.iter().any(of_connections);
        let files = routes.iter().filter_map(Found::filters).flat_map(Filters::files).collect();
        let entries = config.routes.iter().zip(routes);
        let router = Router::new(entries.map(|(config, route)| {
            let predicate = (&config.host, config.path.as_str(), &config.headers[..]);
            (predicate, route)
        }));
        Ok(Self { router, isolates_connections, pages, files, verifiers, kept })
    }
}

impl Kept {
    /// Of a pool that is so now; `before`: what there is of it.
    fn new(pool: &model::Pool, before: Option<&Self>, metrics: &Metrics) -> Self {
        let retries = before.filter(|before| before.retry == pool.retry).map(|before| before.retries.clone());
        let breaker = before.filter(|before| before.breaker_config == pool.breaker);
        let breaker = breaker.map(|before| before.breaker.clone());
        Self {
            retry: pool.retry.clone(),
            retries: retries.unwrap_or_else(|| Arc::new(metrics.retries(pool))),
            breaker_config: pool.breaker.clone(),
            breaker: breaker.unwrap_or_else(|| metrics.breaker(pool)),
        }
    }
}

/// What routes are made from.
struct Parts<'a> {
    pools: &'a BTreeMap<String, Arc<Pool>>,
    kept: &'a HashMap<String, Kept>,
    pages: &'a Arc<Pages>,
    verifiers: &'a Arc<Verifiers>,
    metrics: &'a Metrics,
}

impl Parts<'_> {
    fn answering_route(
        &self,
        config: &Arc<model::Route>,
        answer: pingora::Result<Answer>,
    ) -> Result<Found, ServeError> {
        let answer = answer.map_err(|source| ServeError::Answer { route: config.name.clone(), source })?;
        let (series, filters) = (self.metrics.route(&config.name, ""), self.filters(config));
        let instead = Instead::new(&config.instead, self.pages);
        let config = Arc::clone(config);
        Ok(Found::Answer(Arc::new(AnsweringRoute { config, series, filters, instead, answer })))
    }

    fn pool_route(&self, config: &Arc<model::Route>, number: u32) -> Result<Found, ServeError> {
        let all = config.pools().map(|pool| self.backing(config, pool)).collect::<Result<Vec<_>, _>>()?;
        let weights = match &config.to {
            Destination::Split(shares) => shares.iter().map(|share| share.weight).collect(),
            _ => Vec::new(),
        };
        let to =
            Backings::new(all, &weights, config.fallback.is_some()).ok_or_else(|| no_pool(config, ""))?;
        let (filters, instead) = (self.filters(config), Instead::new(&config.instead, self.pages));
        let mirror = config.mirror.as_ref().map(|mirror| self.mirror(config, mirror)).transpose()?;
        let (config, affinity) = (Arc::clone(config), Affinity::new(config));
        Ok(Found::Pool(Arc::new(Route { config, number, to, affinity, mirror, filters, instead })))
    }

    fn mirror(&self, route: &model::Route, config: &model::Mirror) -> Result<Arc<Mirror>, ServeError> {
        let pool = self.pools.get(&config.pool).ok_or_else(|| no_pool(route, &config.pool))?;
        Ok(Mirror::new(config, Arc::clone(pool), self.metrics.mirror(&route.name)))
    }

    fn filters(&self, config: &model::Route) -> Option<Box<Filters>> {
        Filters::new(config, self.metrics, self.verifiers)
    }

    fn backing(&self, config: &model::Route, name: &str) -> Result<Backing, ServeError> {
        let (Some(pool), Some(kept)) = (self.pools.get(name), self.kept.get(name)) else {
            return Err(no_pool(config, name));
        };
        Ok(Backing {
            name: name.to_owned(),
            pool: Arc::clone(pool),
            retries: Arc::clone(&kept.retries),
            breaker: kept.breaker.clone(),
            series: self.metrics.route(&config.name, name),
        })
    }
}

fn no_pool(config: &model::Route, pool: &str) -> ServeError {
    ServeError::NoPool { route: config.name.clone(), pool: pool.to_owned() }
}
