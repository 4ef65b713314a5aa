//! The command line, and how its commands end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_pool::simulate::{SlowVms, StartTimes};

/// A reverse proxy that runs its own microVMs.
#[derive(Debug, Parser)]
#[command(name = "weir", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a configuration until SIGTERM, which drains requests and then stops the VMs
    Serve(ServeOptions),
    /// Check a configuration and report every error with its key path
    Check {
        /// The configuration file
        #[arg(default_value = "weir.toml")]
        file: PathBuf,
    },
    /// Run one VM in the foreground, its log on stdout
    Run(RunOptions),
    /// Try scaling on a trace of requests, in virtual time, and compare it with Knative's
    Simulate(SimulateOptions),
    /// Show the pools and VMs of a running weir
    Ps(AdminOptions),
    /// Take all VMs of a pool out of use: they end after their requests, and further requests start new ones
    Drain(OrderOptions),
    /// Replace all VMs of a pool, failing no request: its image is read again and proven first
    Restart(OrderOptions),
    /// Have a running weir read its configuration again, and say what has changed or what is wrong with it
    Reload(AdminOptions),
    /// Have the program that is at a running weir's path now take over, losing no connection
    Upgrade(AdminOptions),
    /// Examine this host: what weir needs, what is missing, how to fix it
    Doctor,
    /// The process that forks VMs; weir starts it by itself
    #[command(hide = true)]
    Launcher,
}

/// Options of `weir serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeOptions {
    /// The configuration file
    #[arg(short, long, default_value = "weir.toml")]
    pub(crate) config: PathBuf,
    /// Format of weir's own log on stderr (the access log is the configuration's)
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Where a running weir is to be found.
#[derive(Args, Debug)]
pub(crate) struct AdminOptions {
    /// The configuration file that it serves
    #[arg(short, long, default_value = "weir.toml")]
    pub(crate) config: PathBuf,
    /// The address of its administration endpoint, instead of that in the configuration file
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    pub(crate) admin: Option<SocketAddr>,
}

/// Options of what changes a pool.
#[derive(Args, Debug)]
pub(crate) struct OrderOptions {
    /// The pool
    pub(crate) pool: String,
    /// Do not wait for the end
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) admin: AdminOptions,
}

/// Format of the log on stderr.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Options of `weir run`.
#[derive(Args, Debug)]
pub(crate) struct RunOptions {
    /// The name of an embedded image, or a path
    pub(crate) image: String,
    /// Memory of the VM
    #[arg(long, default_value = "16MiB", value_parser = memory)]
    pub(crate) memory: u64,
    /// An environment variable of the application, NAME=value; may be repeated
    #[arg(long = "env", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// An argument of the application; may be repeated
    #[arg(long = "arg", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// Options of `weir simulate`.
#[derive(Args, Debug)]
pub(crate) struct SimulateOptions {
    /// The trace, a CSV file: arrival_s,pool,service_ms[,class,client]
    pub(crate) trace: PathBuf,
    /// The configuration whose pools the requests are for
    #[arg(short, long, default_value = "weir.toml")]
    pub(crate) config: PathBuf,
    /// How long VMs take to start: clone, cold, one time such as 0.5ms, or MEDIAN..P99
    #[arg(long, default_value = "clone")]
    pub(crate) start: StartTimes,
    /// A share of the VMs that are slower, and how many times as long they take, such as 0.25x4
    #[arg(long, value_name = "SHARExFACTOR")]
    pub(crate) slow_vms: Option<SlowVms>,
    /// Of all that is random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Step of the time series; a 640th of the whole unless given
    #[arg(long, value_parser = duration)]
    pub(crate) step: Option<Duration>,
    /// How long the pools run on after the last request
    #[arg(long, default_value = "2m", value_parser = duration)]
    pub(crate) settle: Duration,
    /// Write the time series to this file
    #[arg(long)]
    pub(crate) csv: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    weir_config::units::parse_duration(text).map_err(|error| error.to_string())
}

fn memory(text: &str) -> Result<u64, String> {
    weir_config::units::parse_size(text).map_err(|error| error.to_string())
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form NAME=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// How a command failed; decides the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong: exit code 2. One error a line.
    Configuration(String),
    /// Something went wrong while at it: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// What went wrong, for a command that goes on.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Configuration(text) => anyhow::Error::msg(text),
            Self::Failed(error) => error,
        }
    }

    /// Says on stderr what went wrong.
    pub(crate) fn report(&self) -> ExitCode {
        let (text, code) = match self {
            Self::Configuration(text) => (text.trim_end().to_owned(), ExitCode::from(2)),
            Self::Failed(error) => (format!("weir: {error:#}"), ExitCode::FAILURE),
        };
        // Where stderr cannot be written to, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{text}");
        code
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
