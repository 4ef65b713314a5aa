//! A lower bound: what it takes at least if nobody may wait and everything is known in advance.
//!
//! At a time with `d` requests, all answered from the moment they come, `ceil(d / hard_limit)` VMs must exist. Think of
//! them as levels: the first exists while there is any request, the second while there are more than `hard_limit`, and so
//! on. A level that is not needed for a while either ends and is started anew, which takes the shortest start, or is kept,
//! whichever is less. Requests are counted as if they could move between VMs, starts as if they were always the fastest.
//!
//! So it is a bound for policies that let nobody wait, and not one that could be reached. A policy that lets requests wait
//! can take less: those that wait are then answered together, at higher occupancy.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use weir_config::model::Pool;

use super::engine::{Conditions, Measures, Series};
use super::trace::Trace;

/// VMs that exist only when they must.
struct Levels {
    count: u32,
    /// When each level that has existed was last needed.
    needed_until: Vec<Option<Duration>>,
    shortest_start: Duration,
    since: Duration,
    measures: Measures,
    vms: Series,
}

/// The bound for the pool with this index, and the number of its requests over time if nobody waits.
pub(crate) fn bound(
    trace: &Trace,
    index: usize,
    pool: &Pool,
    conditions: &Conditions,
) -> (Measures, Vec<f64>) {
    let mut levels = Levels {
        count: 0,
        needed_until: Vec::new(),
        shortest_start: conditions.starts.shortest(),
        since: Duration::ZERO,
        measures: Measures::default(),
        vms: Series::new(conditions.step, conditions.end),
    };
    let mut demand = Series::new(conditions.step, conditions.end);
    let mut ends = BinaryHeap::new();
    levels.set(pool.scale.min, Duration::ZERO);
    let mut set = |levels: &mut Levels, in_flight: usize, at| {
        let in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
        levels.set(in_flight.div_ceil(pool.hard_limit).max(pool.scale.min).min(pool.scale.max), at);
        demand.set(in_flight, at);
    };
    for arrival in trace.arrivals().iter().filter(|arrival| arrival.pool == index) {
        while let Some(Reverse(end)) = ends.pop_if_before(arrival.at) {
            set(&mut levels, ends.len(), end);
        }
        ends.push(Reverse(arrival.at + arrival.service));
        set(&mut levels, ends.len(), arrival.at);
        levels.measures.arrivals += 1;
    }
    while let Some(Reverse(end)) = ends.pop() {
        set(&mut levels, ends.len(), end);
    }
    (levels.finish(conditions.end), demand.means(conditions.end))
}

impl Levels {
    /// So many are needed from `at` on.
    fn set(&mut self, count: u32, at: Duration) {
        self.measures.vm_time += (at - self.since) * self.count;
        self.since = at;
        for level in count..self.count {
            self.needed_until[level as usize] = Some(at);
        }
        for level in self.count..count {
            if level as usize == self.needed_until.len() {
                self.needed_until.push(None);
            }
            let idle = self.needed_until[level as usize].map(|until| at - until);
            self.measures.vm_time += idle.unwrap_or(Duration::MAX).min(self.shortest_start);
            self.measures.starts += u64::from(idle.is_none_or(|idle| idle > self.shortest_start));
        }
        self.count = count;
        self.vms.set(count, at);
    }

    fn finish(mut self, end: Duration) -> Measures {
        self.measures.vm_time += (end - self.since) * self.count;
        let arrivals = self.measures.arrivals;
        let waits = vec![Duration::ZERO; usize::try_from(arrivals).unwrap_or(usize::MAX)];
        Measures { served: arrivals, waits, vms: self.vms.means(end), ..self.measures }
    }
}

/// What a heap of times lacks.
trait PopIfBefore {
    /// Takes the earliest, unless it is after `at`.
    fn pop_if_before(&mut self, at: Duration) -> Option<Reverse<Duration>>;
}

impl PopIfBefore for BinaryHeap<Reverse<Duration>> {
    fn pop_if_before(&mut self, at: Duration) -> Option<Reverse<Duration>> {
        self.peek().filter(|Reverse(end)| *end <= at)?;
        self.pop()
    }
}

#[cfg(test)]
mod tests;
