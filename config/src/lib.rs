//! weir's configuration: TOML text to a validated [`Config`].
//!
//! Whoever edits a configuration wants to know everything that is wrong with it, not the first thing. So the text
//! is not deserialized but walked (`reader`): each section collects what it finds wrong into one list, goes on with
//! the next key, and the whole is a [`Config`] only if that list stayed empty. What depends on the machine
//! instead of the text (addresses in use, missing images) is asked of a [`Machine`], if there is one: [`check`].
//!
//! ```
//! let config = weir_config::parse(r#"
//! [[listener]]
//! address = "0.0.0.0:8080"
//!
//! [admin]
//! address = "127.0.0.1:9180"
//!
//! [host]
//! memory = "8GiB"
//! max_vms = 512
//! network = "10.88.0.0/16"
//!
//! [pool.hello]
//! kind = "unikernel"
//! image = "hello"
//! port = 8080
//! vcpus = 1
//! memory = "16MiB"
//! env = { GREETING = "hi" }
//! args = []
//! soft_limit = 16
//! hard_limit = 64
//! start_timeout = "5s"
//!
//! [pool.hello.scale]
//! min = 0
//! max = 64
//! idle_timeout = "30s"
//!
//! [pool.hello.queue]
//! max_pending = 1000
//! timeout = "10s"
//!
//! [[route]]
//! name = "hello"
//! host = "hello.example"
//! path = "/"
//! pool = "hello"
//! "#, "weir.toml")?;
//! assert_eq!(config.pools["hello"].memory, 16 << 20);
//!
//! let errors = weir_config::parse("[[listener]]\naddres = '0.0.0.0:80'\n[host]\nmemory = 8\n", "weir.toml").unwrap_err();
//! assert_eq!(errors.to_string(), r#"weir.toml:1:1: listener[0].address: required key is missing
//! weir.toml:2:1: listener[0].addres: unknown key, did you mean "address"?
//! weir.toml:4:10: host.memory: expected a size such as "16MiB", found an integer; units are B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"#);
//! # Ok::<(), weir_config::ConfigErrors>(())
//! ```
#![forbid(unsafe_code)]

mod access_log;
mod acme;
mod action;
mod affinity;
mod auth;
mod breaker;
pub mod change;
mod checks;
mod class;
mod compress;
mod cors;
mod decimal;
mod error;
mod external;
mod field;
mod field_match;
mod fields;
mod file;
mod filter;
mod health;
mod host;
mod hsts;
mod jwt;
mod key;
mod limits;
mod lines;
mod listener;
mod load;
mod machine;
mod mirror;
pub mod model;
mod otlp;
mod pages;
mod path;
mod patience;
mod pool;
mod protocol;
mod proxy_protocol;
mod quarantine;
mod queue;
mod reader;
mod retry;
mod route;
mod rule;
mod scale;
mod schedule;
mod sections;
mod selector;
mod signal;
mod split;
mod tls;
pub mod units;
mod unix;
mod url;
mod values;

pub use change::{Change, NeedsRestart, PoolChange};
pub use error::{ConfigError, ConfigErrors, LoadError, Location};
pub use load::{check, load, parse};
pub use machine::{Machine, can_bind, image_exists};
pub use model::*;
