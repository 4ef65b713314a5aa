//! A comparison as a table, with the plots below.

use std::fmt;
use std::time::Duration;

use super::plot::Chart;
use super::{Comparison, Measures, SlowVms};

/// Pools that have a table of their own; of more than that only the total is shown.
const MOST_TABLES: usize = 8;

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals: Vec<_> = self.outcomes.iter().map(|outcome| (outcome.policy, outcome.total())).collect();
        self.head(f, &totals)?;
        let used = |index: &usize| self.outcomes.iter().any(|outcome| outcome.pools[*index].starts > 0);
        let used: Vec<_> = (0..self.pools.len()).filter(used).collect();
        if (2..=MOST_TABLES).contains(&used.len()) {
            for index in used {
                let rows = self.outcomes.iter().map(|outcome| (outcome.policy, &outcome.pools[index]));
                table(f, &format!("pool {}", self.pools[index]), rows)?;
            }
        }
        table(f, "all pools", totals.iter().map(|(policy, total)| (*policy, total)))?;
        if self.options.slow.is_some() {
            answers(f, &totals)?;
        }
        self.charts(f, &totals)
    }
}

impl Comparison {
    fn head(&self, f: &mut fmt::Formatter<'_>, totals: &[(&str, Measures)]) -> fmt::Result {
        let (arrivals, starts) = (totals.first().map_or(0, |(_, total)| total.arrivals), self.options.starts);
        writeln!(f, "{arrivals} requests, {} pools, {:.1} s", self.pools.len(), self.end.as_secs_f64())?;
        let (median, p99) = (Millis(starts.median), Millis(starts.p99));
        writeln!(f, "starts take {median} ms, one of 100 takes {p99} ms; seed {}", self.options.seed)?;
        match self.options.slow {
            Some(SlowVms { share, factor }) => {
                writeln!(f, "{} % of the VMs take {factor} times as long to answer", share * 100.0)
            }
            None => Ok(()),
        }
    }

    fn charts(&self, f: &mut fmt::Formatter<'_>, totals: &[(&str, Measures)]) -> fmt::Result {
        let mut demand = vec![0.0; self.demand.first().map_or(0, Vec::len)];
        for pool in &self.demand {
            for (sum, value) in demand.iter_mut().zip(pool) {
                *sum += value;
            }
        }
        let end = self.end.as_secs_f64();
        let all = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        writeln!(
            f,
            "\n{}",
            Chart { title: "requests, if nobody waited", values: &demand, top: all(&demand), end }
        )?;
        // One scale, so that areas can be compared.
        let top = totals.iter().map(|(_, total)| all(&total.vms)).fold(0.0, f64::max);
        for (policy, total) in totals {
            writeln!(f, "{}", Chart { title: &format!("VMs, {policy}"), values: &total.vms, top, end })?;
        }
        Ok(())
    }
}

fn table<'m>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    rows: impl Iterator<Item = (&'m str, &'m Measures)>,
) -> fmt::Result {
    writeln!(f, "\n{title}")?;
    let columns = ["VM-seconds", "starts", "wait p50", "p99", "max ms", "503"];
    let [time, starts, p50, p99, max, refused] = columns;
    writeln!(f, "  {:<12}{time:>12}{starts:>9}{p50:>12}{p99:>12}{max:>12}{refused:>9}", "")?;
    for (policy, row) in rows {
        let waits = [row.wait(1, 2), row.wait(99, 100), row.wait(1, 1)];
        let [p50, p99, max] = waits.map(|wait| Millis(wait).to_string());
        let (time, starts, refused) = (row.vm_time.as_secs_f64(), row.starts, row.rejected + row.timed_out);
        writeln!(f, "  {policy:<12}{time:>12.1}{starts:>9}{p50:>12}{p99:>12}{max:>12}{refused:>9}")?;
    }
    Ok(())
}

/// Only where VMs differ: else answers take as long as waits and the trace make them.
fn answers(f: &mut fmt::Formatter<'_>, totals: &[(&str, Measures)]) -> fmt::Result {
    writeln!(f, "\nall pools: answers, ms\n  {:<12}{:>12}{:>12}{:>12}", "", "p50", "p99", "max")?;
    for (policy, total) in totals.iter().filter(|(_, total)| !total.answers.is_empty()) {
        let [p50, p99, max] =
            [(1, 2), (99, 100), (1, 1)].map(|(of, all)| Millis(total.answer(of, all)).to_string());
        writeln!(f, "  {policy:<12}{p50:>12}{p99:>12}{max:>12}")?;
    }
    Ok(())
}

/// Displayed in milliseconds, to a hundredth.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", self.0.as_secs_f64() * 1e3)
    }
}
