//! `weir check`: every error of a configuration, those of the text and those of this machine.

use std::net::SocketAddr;
use std::path::Path;

use weir_config::{Config, LoadError, Machine};

use crate::cli::Failure;
use crate::images;

/// The machine that weir runs on.
struct ThisMachine;

impl Machine for ThisMachine {
    fn address(&self, address: SocketAddr) -> Result<(), String> {
        weir_config::can_bind(address)
    }

    fn image(&self, image: &str) -> Result<(), String> {
        images::load(image).map(drop)
    }
}

/// The machine that weir serves on: addresses are bound for good soon after, so they are not tried here.
struct ServingMachine;

impl Machine for ServingMachine {
    fn address(&self, _: SocketAddr) -> Result<(), String> {
        Ok(())
    }

    fn image(&self, image: &str) -> Result<(), String> {
        images::load(image).map(drop)
    }
}

/// Reports every error of `file`, or how many pools and routes it has.
///
/// # Errors
/// All of them, one a line.
pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    let config = weir_config::check(file, &ThisMachine).map_err(failure)?;
    println!("{}: ok, {} pools, {} routes", file.display(), config.pools.len(), config.routes.len());
    Ok(())
}

/// Reads the configuration that is to be served.
///
/// # Errors
/// All its errors but addresses in use, one a line.
pub(crate) fn load(file: &Path) -> Result<Config, Failure> {
    weir_config::check(file, &ServingMachine).map_err(failure)
}

fn failure(error: LoadError) -> Failure {
    match error {
        LoadError::Read { path, source } => {
            Failure::Configuration(format!("weir: read {}: {source}", path.display()))
        }
        LoadError::Invalid(errors) => Failure::Configuration(errors.to_string()),
    }
}
