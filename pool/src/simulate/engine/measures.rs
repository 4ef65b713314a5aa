//! What a simulation measures of one pool.

use std::time::Duration;

/// What became of one pool's requests, and what it took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// Requests.
    pub arrivals: u64,
    /// Requests that a VM answered.
    pub served: u64,
    /// Requests answered 503 at once, since the queue was full or nobody may wait.
    pub rejected: u64,
    /// Requests answered 503 after they had waited as long as they may.
    pub timed_out: u64,
    /// VMs started.
    pub starts: u64,
    /// Time that VMs existed, from the order to start them to their end, all together.
    pub vm_time: Duration,
    /// How long each request waited that was not rejected, the shortest first.
    pub waits: Vec<Duration>,
    /// How long each request took that was served, its wait included, the shortest first. Only where some VMs are slow, and
    /// none in a bound.
    pub answers: Vec<Duration>,
    /// VMs over time: the mean in each step.
    pub vms: Vec<f64>,
}

impl Measures {
    /// The wait that a share of `numerator` in `denominator` of the requests does not exceed (nearest rank).
    pub fn wait(&self, numerator: usize, denominator: usize) -> Duration {
        percentile(&self.waits, numerator, denominator)
    }

    /// The time to the answer that this share of the requests does not exceed.
    pub fn answer(&self, numerator: usize, denominator: usize) -> Duration {
        percentile(&self.answers, numerator, denominator)
    }

    /// Of several pools together.
    pub fn total<'m>(of: impl IntoIterator<Item = &'m Self>) -> Self {
        let mut total = Self::default();
        for pool in of {
            total.arrivals += pool.arrivals;
            total.served += pool.served;
            total.rejected += pool.rejected;
            total.timed_out += pool.timed_out;
            total.starts += pool.starts;
            total.vm_time += pool.vm_time;
            total.waits.extend_from_slice(&pool.waits);
            total.answers.extend_from_slice(&pool.answers);
            total.vms.resize(total.vms.len().max(pool.vms.len()), 0.0);
            for (sum, vms) in total.vms.iter_mut().zip(&pool.vms) {
                *sum += vms;
            }
        }
        total.waits.sort_unstable();
        total.answers.sort_unstable();
        total
    }
}

fn percentile(sorted: &[Duration], numerator: usize, denominator: usize) -> Duration {
    let rank = (sorted.len() * numerator).div_ceil(denominator).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A number that changes now and then, as its means over steps of time.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    step: Duration,
    /// Number times seconds within each step.
    sums: Vec<f64>,
    since: Duration,
    value: u32,
}

impl Series {
    /// 0 from the begin to `end`, in steps of `step`, which is not zero.
    pub(crate) fn new(step: Duration, end: Duration) -> Self {
        let steps = end.as_nanos().div_ceil(step.as_nanos());
        let sums = vec![0.0; usize::try_from(steps).unwrap_or(usize::MAX)];
        Self { step, sums, since: Duration::ZERO, value: 0 }
    }

    /// The number is `value` from `at` on, which is not before the last such time.
    pub(crate) fn set(&mut self, value: u32, at: Duration) {
        if value != self.value {
            self.add_until(at);
            self.value = value;
        }
    }

    /// The mean in each step. The number ends at `end`.
    pub(crate) fn means(mut self, end: Duration) -> Vec<f64> {
        self.add_until(end);
        let step = self.step.as_secs_f64();
        self.sums.iter_mut().for_each(|sum| *sum /= step);
        self.sums
    }

    fn add_until(&mut self, until: Duration) {
        while self.since < until && self.value > 0 {
            let nth = self.since.as_nanos() / self.step.as_nanos();
            let nth = usize::try_from(nth).unwrap_or(usize::MAX);
            let Some(sum) = self.sums.get_mut(nth) else { break };
            let step_end = self.step.saturating_mul(u32::try_from(nth + 1).unwrap_or(u32::MAX));
            let end = step_end.min(until);
            *sum += f64::from(self.value) * (end - self.since).as_secs_f64();
            self.since = end;
        }
        self.since = self.since.max(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_the_mean_of_each_step() {
        let seconds = Duration::from_secs;
        let mut series = Series::new(seconds(10), seconds(35));
        series.set(4, seconds(5));
        series.set(1, seconds(22));
        series.set(0, seconds(24));
        series.set(2, seconds(30));
        assert_eq!(series.means(seconds(35)), [2.0, 4.0, 1.0, 1.0]);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let waits = (1..=200).map(Duration::from_millis).collect();
        let measures = Measures { waits, ..Measures::default() };
        let millis = |numerator, denominator| measures.wait(numerator, denominator).as_millis();
        assert_eq!([millis(1, 2), millis(99, 100), millis(1, 1), millis(0, 1)], [100, 198, 200, 1]);
        assert_eq!(Measures::default().wait(1, 2), Duration::ZERO);
    }
}
