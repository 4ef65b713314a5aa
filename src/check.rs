//! `weir check`: every error of a configuration, those of the text and those of this machine.

use std::cell::RefCell;
use std::error::Error;
use std::path::Path;
use std::time::SystemTime;

use weir_config::{Config, ListenAddress, LoadError, Machine};
use weir_proxy::tls::{Certificate, CertificateError, roots};

use crate::cli::Failure;
use crate::images::{self, Images};

/// The machine that weir runs on.
#[derive(Default)]
struct ThisMachine {
    /// Addresses are bound for good soon after, so they are not tried.
    serving: bool,
    /// What was read to be checked, so that the same bytes are used.
    images: RefCell<Images>,
}

impl Machine for ThisMachine {
    fn address(&self, address: &ListenAddress) -> Result<(), String> {
        match address {
            _ if self.serving => Ok(()),
            ListenAddress::Ip(address) => weir_config::can_bind(*address),
            ListenAddress::Unix(path) => weir_proxy::can_bind_path(path)
                .map_err(|error| format!("{} cannot be bound: {}", error.address, error.source)),
        }
    }

    fn image(&self, image: &str) -> Result<(), String> {
        let mut images = self.images.borrow_mut();
        if !images.contains_key(image) {
            images.insert(image.to_owned(), images::load(image)?);
        }
        Ok(())
    }

    fn certificate(&self, files: &weir_config::Certificate) -> Result<(), String> {
        let certificate = Certificate::load(files).map_err(|error| with_cause(&error))?;
        // Who serves it says so in the log.
        if !self.serving && certificate.has_expired(SystemTime::now()) {
            eprintln!("weir: warning: {} has expired", files.certificate.display());
        }
        Ok(())
    }

    fn client_ca(&self, file: &Path) -> Result<(), String> {
        roots(file).map(drop).map_err(|error| with_cause(&error))
    }
}

fn with_cause(error: &CertificateError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Reports every error of `file`, or how many pools and routes it has.
///
/// # Errors
/// All of them, one a line.
pub(crate) fn check(file: &Path) -> Result<(), Failure> {
    let config = weir_config::check(file, &ThisMachine::default()).map_err(failure)?;
    println!("{}: ok, {} pools, {} routes", file.display(), config.pools.len(), config.routes.len());
    Ok(())
}

/// Reads the configuration that is to be served, and its pools' images.
///
/// # Errors
/// All its errors but addresses in use, one a line.
pub(crate) fn load(file: &Path) -> Result<(Config, Images), Failure> {
    let machine = ThisMachine { serving: true, ..ThisMachine::default() };
    let config = weir_config::check(file, &machine).map_err(failure)?;
    Ok((config, machine.images.into_inner()))
}

/// What is wrong with a configuration, as it is told.
pub(crate) fn failure(error: LoadError) -> Failure {
    match error {
        LoadError::Read { path, source } => {
            Failure::Configuration(format!("weir: read {}: {source}", path.display()))
        }
        LoadError::Invalid(errors) => Failure::Configuration(errors.to_string()),
    }
}
