//! A comparison's time series as CSV, for whoever wants to draw them better.

use std::io::{self, Write};

use super::Comparison;

impl Comparison {
    /// Writes `time_s,pool,demand` and the VMs under each policy, one line per step and pool: means over the step that
    /// begins at that time.
    ///
    /// # Errors
    /// When `out` cannot be written to.
    pub fn write_csv(&self, mut out: impl Write) -> io::Result<()> {
        write!(out, "time_s,pool,demand")?;
        for outcome in &self.outcomes {
            write!(out, ",{}", outcome.policy)?;
        }
        writeln!(out)?;
        let steps = self.demand.first().map_or(0, Vec::len);
        for step in 0..steps {
            let time = self.step.as_secs_f64() * step as f64;
            for (index, pool) in self.pools.iter().enumerate() {
                write!(out, "{time:.3},{pool},{:.3}", self.demand[index][step])?;
                for outcome in &self.outcomes {
                    write!(out, ",{:.3}", outcome.pools[index].vms[step])?;
                }
                writeln!(out)?;
            }
        }
        out.flush()
    }
}
