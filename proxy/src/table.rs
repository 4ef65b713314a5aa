//! Where requests go by the configuration that holds now.
//!
//! A reload puts another table in the place of this one, all at once. A request takes its route out of the table that is
//! there when its header has been read, and keeps that, with its pool, to its end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use weir_config::model::{self, Config, Destination, Isolation};
use weir_pool::{Pool, Pools};

use crate::context::{AnsweringRoute, Found, Route};
use crate::filter::{Answer, Filters};
use crate::metrics::Metrics;
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
        let route = |(number, config): (u32, &Arc<model::Route>)| match &config.to {
            Destination::Pool(pool) => pool_route(config, number, pool, &pools, &retries, metrics),
            Destination::Respond(respond) => answering_route(config, Answer::respond(respond), metrics),
            Destination::Redirect(to) => answering_route(config, Ok(Answer::redirect(to)), metrics),
        };
        let routes = (0..).zip(&config.routes).map(route).collect::<Result<Vec<_>, _>>()?;
        let of_connections = |found: &Found| match found {
            Found::Pool(route) => route.pool.isolation() == Isolation::Connection,
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
    let (series, filters) = (metrics.route(&config.name, ""), Filters::new(config, metrics));
    Ok(Found::Answer(Arc::new(AnsweringRoute { config: Arc::clone(config), series, filters, answer })))
}

fn pool_route(
    config: &Arc<model::Route>,
    number: u32,
    pool: &str,
    pools: &BTreeMap<String, Arc<Pool>>,
    retries: &HashMap<String, Budget>,
    metrics: &Metrics,
) -> Result<Found, ServeError> {
    let (Some(found), Some(budget)) = (pools.get(pool), retries.get(pool)) else {
        return Err(ServeError::NoPool { route: config.name.clone(), pool: pool.to_owned() });
    };
    Ok(Found::Pool(Arc::new(Route {
        config: Arc::clone(config),
        number,
        pool: Arc::clone(found),
        retries: Arc::clone(&budget.retries),
        series: metrics.route(&config.name, pool),
        filters: Filters::new(config, metrics),
    })))
}
