//! The pools behind a route.

use std::sync::Arc;

use weir_config::model::Isolation;
use weir_pool::Pool;

use super::{Breaker, Split};
use crate::metrics::RouteSeries;
use crate::retry::Retries;

/// A pool as one route's requests use it.
#[derive(Debug)]
pub(crate) struct Backing {
    /// The pool's name.
    pub(crate) name: String,
    pub(crate) pool: Arc<Pool>,
    /// The pool's, shared by all routes there.
    pub(crate) retries: Arc<Retries>,
    /// The pool's, likewise, if it has one.
    pub(crate) breaker: Option<Arc<Breaker>>,
    pub(crate) series: RouteSeries,
}

/// All of a route's, at least one; a request goes to one of them.
#[derive(Debug)]
pub(crate) struct Backings {
    all: Box<[Backing]>,
    /// `None`: all requests go to the first one.
    split: Option<Split>,
    /// The last one is for requests that the others do not take.
    has_fallback: bool,
}

impl Backings {
    /// `weights` are those of `all` in their order; empty if there is nothing to choose. `None`: `all` is
    /// empty.
    pub(crate) fn new(all: Vec<Backing>, weights: &[u32], has_fallback: bool) -> Option<Self> {
        let split = Split::new(weights);
        (!all.is_empty()).then(|| Self { all: all.into(), split, has_fallback })
    }

    /// Which one a request goes to; `random` is asked only if there is a choice, for a uniform number.
    pub(crate) fn choose(&self, random: impl FnOnce() -> u32) -> usize {
        self.split.as_ref().map_or(0, |split| split.choose(random()))
    }

    /// Where a request goes that this one does not take.
    pub(crate) fn fallback_from(&self, index: usize) -> Option<usize> {
        let last = self.all.len() - 1;
        (self.has_fallback && index != last).then_some(last)
    }

    /// One that was chosen here.
    pub(crate) fn get(&self, index: usize) -> Option<&Backing> {
        self.all.get(index)
    }

    /// Whether a connection can have a VM of its own.
    pub(crate) fn isolate_connections(&self) -> bool {
        self.all.iter().any(|backing| backing.pool.isolation() == Isolation::Connection)
    }
}
