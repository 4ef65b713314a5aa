//! `weir simulate`: what scaling would have done with a trace.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use weir_config::Config;
use weir_pool::simulate::{Comparison, Options, Trace, TraceError};

use crate::check;
use crate::cli::{Failure, SimulateOptions};

/// Prints how weir and others would have scaled, and writes the time series if asked to.
///
/// # Errors
/// What is wrong with the trace, the configuration or the options; when a file cannot be read or written.
pub(crate) fn simulate(options: &SimulateOptions) -> Result<(), Failure> {
    // Neither the addresses of this machine nor the images matter.
    let mut config = weir_config::load(&options.config).map_err(check::failure)?;
    // Servers outside are not scaled.
    config.pools.retain(|_, pool| pool.external().is_none());
    let trace = read(&options.trace, &config)?;
    let SimulateOptions { start: starts, slow_vms: slow, seed, step, settle, .. } = *options;
    let comparison =
        weir_pool::simulate::simulate(&trace, &config, Options { starts, slow, seed, step, settle })
            .map_err(|error| Failure::Configuration(format!("weir: simulate: {error}")))?;
    if let Some(path) = &options.csv {
        write_csv(&comparison, path).with_context(|| format!("write {}", path.display()))?;
    }
    // Whoever stops reading has seen enough.
    let _ = write!(std::io::stdout().lock(), "{comparison}");
    Ok(())
}

fn read(path: &Path, config: &Config) -> Result<Trace, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("open {name}"))?;
    Trace::read(BufReader::new(file), &name, config).map_err(|error| match error {
        TraceError::Invalid { .. } => Failure::Configuration(error.to_string()),
        TraceError::Read { .. } => Failure::Failed(error.into()),
    })
}

fn write_csv(comparison: &Comparison, path: &Path) -> std::io::Result<()> {
    comparison.write_csv(BufWriter::new(File::create(path)?))
}
