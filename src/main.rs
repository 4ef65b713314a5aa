//! weir: a reverse proxy that runs its own microVMs. Command line and wiring; everything else is in the crates.
#![forbid(unsafe_code)]

mod admin;
mod check;
mod cli;
mod doctor;
mod handover;
mod images;
mod logging;
mod run;
mod serve;
mod simulate;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve::serve(&options),
        Command::Check { file } => check::check(&file),
        Command::Run(options) => run::run(&options),
        Command::Simulate(options) => simulate::simulate(&options),
        Command::Ps(options) => admin::ps(&options),
        Command::Drain(options) => admin::drain(&options),
        Command::Restart(options) => admin::restart(&options),
        Command::Reload(options) => admin::reload(&options),
        Command::Upgrade(options) => admin::upgrade(&options),
        Command::Doctor => doctor::doctor(),
        Command::Launcher => weir_vmm::launcher::main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
