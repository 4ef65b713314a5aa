//! `weir simulate`: what scaling would have done with a trace, in virtual time, and what others would.
//!
//! ```text
//!  trace.csv --Trace--> engine --Policy--> weir: production's decide, as configured and weir-kept
//!  weir.toml --Config-->   |         `---> kpa: Knative's rules, with its defaults and tuned
//!                          v
//!            Measures per pool and policy, the clairvoyant bound --> report, plot, CSV
//! ```
//!
//! Scaling is judged by two numbers that pull apart: the time that VMs exist, and the time that requests wait for one.
//! All policies get the same requests, limits, queue, choice of VMs and start times (the nth start of a pool takes equally
//! long under each), so that what differs is what they decide. `docs/SIMULATOR.md` says what is left out.

mod clairvoyant;
mod csv;
mod engine;
mod kpa;
mod plot;
mod policy;
mod report;
mod slow;
mod start_time;
mod trace;
mod weir;

use std::time::Duration;

use weir_config::model::{Config, Pool};

use engine::Conditions;
use kpa::{Kpa, Rules};
use weir::Weir;

use crate::scale::Limits;

pub use engine::Measures;
pub use slow::{SlowVms, SlowVmsError};
pub use start_time::{StartTimes, StartTimesError};
pub use trace::{Arrival, LONGEST_LINE, MOST_ARRIVALS, Trace, TraceError};

/// Points of all time series of one policy: 16 MB.
const MOST_POINTS: u128 = 2_000_000;
/// Steps of a time series unless otherwise asked for.
const STEPS: u32 = 640;
/// Times `idle_timeout` that `weir-kept` may keep a pool's last VM.
const KEPT: u32 = 10;
/// The longest time after the last request's end.
const LONGEST_SETTLING: Duration = Duration::from_secs(86_400);

/// What a simulation depends on besides the trace and the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long VMs take to start.
    pub starts: StartTimes,
    /// VMs that take longer with every request.
    pub slow: Option<SlowVms>,
    /// Of all that is random: start times, which VMs are slow, and which are looked at for a request.
    pub seed: u64,
    /// Of the time series. `None`: 640 of them.
    pub step: Option<Duration>,
    /// How long the pools run on after the last request may have ended: what is kept for nobody counts, too. At most a
    /// day.
    pub settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { starts: StartTimes::CLONE, slow: None, seed: 1, step: None, settle: Duration::from_secs(120) }
    }
}

/// Why there was no simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    /// The time series would be too large.
    #[error("a step of {step:?} is too short: {pools} pools for {end:?} have {MOST_POINTS} points at most")]
    Step {
        /// Asked for.
        step: Duration,
        /// Of the configuration.
        pools: usize,
        /// How long the simulation is.
        end: Duration,
    },
    /// It would run on for too long.
    #[error("settling for {0:?} is more than a day")]
    Settle(Duration),
}

/// What came of a trace under several policies.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Names of the configuration's pools, in order.
    pub pools: Vec<String>,
    /// What each policy did, weir's first, the clairvoyant bound last.
    pub outcomes: Vec<Outcome>,
    /// Of each pool, requests over time if nobody waited: the mean in each step.
    pub demand: Vec<Vec<f64>>,
    /// Of all time series.
    pub step: Duration,
    /// How long the simulation was, from the trace's begin.
    pub end: Duration,
    /// What it depended on.
    pub options: Options,
}

/// What one policy did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `weir`, `weir-kept`, `weir-blind` (if VMs are slow), `kpa`, `kpa-tuned` or `clairvoyant`.
    pub policy: &'static str,
    /// Of each pool.
    pub pools: Vec<Measures>,
}

impl Outcome {
    /// Of all pools together.
    pub fn total(&self) -> Measures {
        Measures::total(&self.pools)
    }
}

/// Runs `trace` through `config`'s pools under every policy.
///
/// # Errors
/// If the time series would have too many points, or the options are out of their range.
pub fn simulate(trace: &Trace, config: &Config, options: Options) -> Result<Comparison, SimulateError> {
    let pools = config.pools.len();
    let end = end(trace, config, options)?;
    let step = options.step.unwrap_or(end / STEPS).max(Duration::from_millis(1));
    if end.as_nanos().div_ceil(step.as_nanos()) * pools as u128 > MOST_POINTS {
        return Err(SimulateError::Step { step, pools, end });
    }
    let Options { starts, seed, slow, .. } = options;
    let conditions = Conditions { starts, seed, slow, by_latency: true, end, step };
    let weir = |limits: fn(&_) -> Limits, by_latency| {
        let conditions = Conditions { by_latency, ..conditions };
        engine::run(trace, config, &conditions, |pool, begin| Box::new(Weir::new(limits(pool), begin)))
    };
    let blind = slow.map(|_| ("weir-blind", weir(Limits::of, false)));
    let (weir, kept) = (weir(Limits::of, true), weir(kept, true));
    let kpa = |rules: fn(&_) -> Rules| {
        engine::run(trace, config, &conditions, |pool, begin| Box::new(Kpa::new(rules(pool), begin)))
    };
    let (default, tuned) = (kpa(Rules::defaults), kpa(Rules::tuned));
    let bounds = config.pools.values().enumerate();
    let bounds = bounds.map(|(index, pool)| clairvoyant::bound(trace, index, pool, &conditions));
    let (bound, demand) = bounds.unzip();
    let first = [("weir", weir), ("weir-kept", kept)].into_iter().chain(blind);
    let outcomes = first.chain([("kpa", default), ("kpa-tuned", tuned), ("clairvoyant", bound)]);
    let outcomes = outcomes.map(|(policy, pools)| Outcome { policy, pools }).collect();
    Ok(Comparison { pools: config.pools.keys().cloned().collect(), outcomes, demand, step, end, options })
}

/// Of `pool`, but that the last VM is kept where requests come back to it.
fn kept(pool: &Pool) -> Limits {
    let limits = Limits::of(pool);
    Limits { keep_last: limits.keep_last.max(limits.idle_timeout.saturating_mul(KEPT)), ..limits }
}

/// When the last request has been answered at the latest, and all has settled.
fn end(
    trace: &Trace,
    config: &Config,
    Options { slow, settle, .. }: Options,
) -> Result<Duration, SimulateError> {
    let factor = slow.map_or(1.0, |slow| slow.factor);
    if settle > LONGEST_SETTLING {
        return Err(SimulateError::Settle(settle));
    }
    let timeouts: Vec<_> = config.pools.values().map(|pool| pool.queue.timeout).collect();
    let latest = trace
        .arrivals()
        .iter()
        .map(|arrival| arrival.at + timeouts[arrival.pool] + arrival.service.mul_f64(factor));
    Ok(latest.max().unwrap_or_default() + settle)
}

#[cfg(test)]
mod tests;
