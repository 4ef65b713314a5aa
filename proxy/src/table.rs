//! Where requests go by the configuration that holds now.
//!
//! A reload puts another table in the place of this one, all at once. A request takes its route out of the table that is
//! there when its header has been read, and keeps that, with its pool, to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_config::model::{self, Config, Destination};
use weir_pool::{Pool, Pools};

use crate::context::{AnsweringRoute, Found, Route};
use crate::filter::{Answer, Filters};
use crate::metrics::Metrics;
use crate::resilience::{Backing, Backings};
use crate::retry::Retries;
use crate::routes::Router;
use crate::serve::ServeError;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) router: Router<Found>,
    /// Whether a connection can have a VM of its own.
    pub(crate) isolates_connections: bool,
    /// By pool.
    retries: HashMap<String, Budget>,
}

/// A pool's retries, which several tables share as long as the pool's settings for them are the same.
#[derive(Clone, Debug)]
struct Budget {
    config: model::Retry,
    retries: Arc<Retries>,
}

impl Table {
    /// The routes of `config` to `pools`, which are there. `before`: the table that it replaces.
    pub(crate) fn new(
        config: &Config,
        pools: &Pools,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Result<Self, ServeError> {
        let budget = |(name, pool): (&String, &Arc<Pool>)| {
            let config = pool.config();
            let kept = before.and_then(|before| before.retries.get(name)).cloned();
            let kept = kept.filter(|kept| kept.config == config.retry);
            let new = || Budget { config: config.retry.clone(), retries: Arc::new(metrics.retries(&config)) };
            (name.clone(), kept.unwrap_or_else(new))
        };
        let pools = pools.all();
        let retries: HashMap<_, _> = pools.iter().map(budget).collect();
        let parts = Parts { pools: &pools, retries: &retries, metrics };
        let route = |(number, config): (u32, &Arc<model::Route>)| match &config.to {
            Destination::Pool(_) | Destination::Split(_) => parts.pool_route(config, number),
            Destination::Respond(respond) => answering_route(config, Answer::respond(respond), metrics),
            Destination::Redirect(to) => answering_route(config, Ok(Answer::redirect(to)), metrics),
        };
        let routes = (0..).zip(&config.routes).map(route).collect::<Result<Vec<_>, _>>()?;
        let of_connections = |found: &Found| match found {
            Found::Pool(route) => route.to.isolate_connections(),
            Found::Answer(_) => false,
        };
        let isolates_connections = routes.iter().any(of_connections);
        let entries = config.routes.iter().zip(routes);
        let router = Router::new(entries.map(|(config, route)| (&config.host, config.path.as_str(), route)));
        Ok(Self { router, isolates_connections, retries })
    }
}

fn answering_route(
    config: &Arc<model::Route>,
    answer: pingora::Result<Answer>,
    metrics: &Metrics,
) -> Result<Found, ServeError> {
    let answer = answer.map_err(|source| ServeError::Answer { route: config.name.clone(), source })?;
    let (series, filters) = (metrics.route(&config.name, ""), Filters::new(config));
    Ok(Found::Answer(Arc::new(AnsweringRoute { config: Arc::clone(config), series, filters, answer })))
}

/// What routes to pools are made from.
struct Parts<'a> {
    pools: &'a BTreeMap<String, Arc<Pool>>,
    retries: &'a HashMap<String, Budget>,
    metrics: &'a Metrics,
}

impl Parts<'_> {
    fn pool_route(&self, config: &Arc<model::Route>, number: u32) -> Result<Found, ServeError> {
        let all = config.pools().map(|pool| self.backing(config, pool)).collect::<Result<Vec<_>, _>>()?;
        let weights = match &config.to {
            Destination::Split(shares) => shares.iter().map(|share| share.weight).collect(),
            _ => Vec::new(),
        };
        let to = Backings::new(all, &weights).ok_or_else(|| no_pool(config, ""))?;
        let (config, filters) = (Arc::clone(config), Filters::new(config));
        Ok(Found::Pool(Arc::new(Route { config, number, to, filters })))
    }

    fn backing(&self, config: &model::Route, name: &str) -> Result<Backing, ServeError> {
        let (Some(pool), Some(budget)) = (self.pools.get(name), self.retries.get(name)) else {
            return Err(no_pool(config, name));
        };
        Ok(Backing {
            name: name.to_owned(),
            pool: Arc::clone(pool),
            retries: Arc::clone(&budget.retries),
            series: self.metrics.route(&config.name, name),
        })
    }
}

fn no_pool(config: &model::Route, pool: &str) -> ServeError {
    ServeError::NoPool { route: config.name.clone(), pool: pool.to_owned() }
}
