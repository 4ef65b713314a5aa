//! `[pool.NAME]`: what a pool's VMs are made from, and how many there may be; or that it has none, see
//! [`crate::external`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::checks::not_less;
use crate::error::Sink;
use crate::key::{Located, Place, check_name, suggestion};
use crate::model::{Isolation, Kind, Pool};
use crate::reader::Reader;
use crate::scale::ScaleSection;
use crate::units::SizeText;
use crate::values::{choice, duration, integer, size_within, string};
use crate::{breaker, external, health, limits, protocol, quarantine, queue, retry, signal};

/// Smallest and largest memory of a VM, bytes: room for a libOS with an application below, the MMIO window above.
const MEMORY: RangeInclusive<u64> = 8 << 20..=3 << 30;
/// Unit in which memory is mapped, bytes.
const PAGE: u64 = 4096;
/// Environment and arguments stay below this, bytes: the guest gets them in one 64 KiB region with its boot-info.
const STRINGS_LIMIT: usize = 60 << 10;
/// Variable by which the guest learns its pool's `port`.
const PORT_VARIABLE: &str = "PORT";
/// What `isolation` may be.
const ISOLATIONS: &[(&str, Isolation)] =
    &[("vm", Isolation::Vm), ("connection", Isolation::Connection), ("request", Isolation::Request)];

/// `[pool.NAME]` as far as it is valid.
pub(crate) struct PoolSection {
    pub(crate) name: String,
    /// Where its VMs' image is.
    pub(crate) image: Option<Located<String>>,
    /// Memory per VM, bytes.
    pub(crate) memory: Option<Located<u64>>,
    /// The most VMs that it ever keeps though they are idle; 0 if that is not known.
    pub(crate) highest_min: u32,
    /// The whole, if all of it is valid.
    pub(crate) pool: Option<Pool>,
}

impl PoolSection {
    pub(crate) fn read(name: &str, table: &mut Reader<'_>) -> Self {
        let valid_name =
            check_name("a pool", name).map_err(|message| table.sink().report(table.place(), message));
        let valid_name = valid_name.ok().map(|()| name.to_owned());
        let of_what = table.read("kind", of_what).or(Of::Vms);
        if of_what.as_ref().is_some_and(|of_what| of_what.value == Of::Servers) {
            let pool = external::read(valid_name, table);
            return Self { name: name.to_owned(), image: None, memory: None, highest_min: 0, pool };
        }
        external::refuse(table);
        let image = table.read("image", string).check(|image| not_empty(image)).required();
        let protocol = protocol::read(table);
        let port = table.read("port", integer(1..=u16::MAX)).or(8080);
        let vcpus = table.read("vcpus", integer(1..=u32::MAX)).check(one_vcpu).or(1);
        let memory = table.read("memory", size_within(MEMORY)).check(mappable).or(16 << 20);
        let env = table.named_strings("env", check_variable);
        let args = read_args(table, env.as_ref());
        let weight = table.read("weight", integer(1..=1000)).or(1);
        let isolation = table.read("isolation", choice(ISOLATIONS)).or(Isolation::Vm);
        let (soft_limit, hard_limit) = read_concurrency(table, isolation.as_ref());
        let start_timeout = table.read("start_timeout", duration).or(Duration::from_secs(5));
        let scale = table.table("scale", ScaleSection::read);
        let queue = table.table("queue", queue::read).flatten();
        let health = table.table("health", health::read).flatten();
        let retry = table.table("retry", retry::read).flatten();
        let breaker = table.optional_table("breaker", breaker::read);
        let quarantine = table.table("quarantine", quarantine::read).flatten();
        let signal = table.optional_table("signal", signal::read);
        let limits = table.table("limits", limits::read).flatten();
        let asks_signal = signal.as_ref().is_some_and(Option::is_some);
        protocol::check_questions(&protocol, health.as_ref(), asks_signal, table.sink());

        let highest_min = scale.as_ref().map_or(0, ScaleSection::highest_min);
        let (image_name, memory_per_vm) = (image.clone(), memory.clone());
        let pool = || {
            Some(Pool {
                name: valid_name?,
                kind: of_what.map(|_| Kind::Unikernel)?,
                image: image?.value,
                protocol: protocol?.value,
                port: port?.value,
                vcpus: vcpus?.value,
                memory: memory?.value,
                env: env?,
                args: args?.value,
                weight: weight?.value,
                isolation: isolation?.value,
                soft_limit: soft_limit?.value,
                hard_limit: hard_limit?.value,
                start_timeout: start_timeout?.value,
                scale: scale?.into_scale()?,
                queue: queue?,
                health: health?,
                retry: retry?,
                breaker: breaker?,
                quarantine: quarantine?,
                signal: signal?,
                limits: limits?,
            })
        };
        Self { name: name.to_owned(), image: image_name, memory: memory_per_vm, highest_min, pool: pool() }
    }
}

/// `args`, which a guest gets together with `env`.
fn read_args(table: &mut Reader<'_>, env: Option<&BTreeMap<String, String>>) -> Option<Located<Vec<String>>> {
    let args = table.strings("args", string).or(Vec::new())?;
    if let Some(env) = env {
        check_strings(env, &args.value, table.place(), table.sink());
    }
    Some(args)
}

/// `soft_limit` and `hard_limit`. A VM that is reset between tenants has one at a time.
fn read_concurrency(
    table: &mut Reader<'_>,
    isolation: Option<&Located<Isolation>>,
) -> (Option<Located<u32>>, Option<Located<u32>>) {
    let shared = isolation.is_none_or(|isolation| isolation.value == Isolation::Vm);
    let rule = |limit: &u32| match limit {
        2.. if !shared => Err(format!(
            r#"must be 1, or left out, with an isolation other than "vm": one tenant at a time; is {limit}"#
        )),
        _ => Ok(()),
    };
    let [default_soft, default_hard] = if shared { [16, 64] } else { [1, 1] };
    let soft_limit = table.read("soft_limit", integer(1..=1024)).check(rule).or(default_soft);
    let hard_limit = table.read("hard_limit", integer(1..=1024)).check(rule).or(default_hard);
    // With an isolation that is none, the defaults are anyone's guess.
    if isolation.is_some() {
        not_less(&hard_limit, &soft_limit, "soft_limit", table.sink());
    }
    (soft_limit, hard_limit)
}

/// What a pool has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Vms,
    Servers,
}

fn of_what(value: &DeValue<'_>) -> Result<Of, String> {
    let text = string(value)?;
    match text.as_str() {
        "unikernel" => Ok(Of::Vms),
        "external" => Ok(Of::Servers),
        "process" | "application" | "container" => {
            Err(format!(r#"kind {text:?} is not supported yet, only "unikernel" and "external""#))
        }
        _ => {
            let known = ["unikernel", "process", "application", "container", "external"];
            Err(format!("{text:?} is no kind of pool{}", suggestion(&text, known)))
        }
    }
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

fn one_vcpu(vcpus: &u32) -> Result<(), String> {
    if *vcpus == 1 { Ok(()) } else { Err("more than 1 virtual CPU is not supported yet".to_owned()) }
}

fn mappable(memory: &u64) -> Result<(), String> {
    if memory.is_multiple_of(PAGE) {
        return Ok(());
    }
    Err(format!("must be a multiple of {}, is {}", SizeText(PAGE), SizeText(*memory)))
}

/// Holds one variable against what a `NAME=value` string can carry. The value has no NUL already.
fn check_variable(name: &str, _value: &str) -> Result<(), String> {
    if name == PORT_VARIABLE {
        return Err("is reserved: weir sets it to the pool's port".to_owned());
    }
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(r#"a variable's name must not be empty nor contain "=" or a NUL character"#.to_owned());
    }
    Ok(())
}

/// Holds all strings together against the room for them. The port's variable takes at most `PORT=65535`.
fn check_strings(env: &BTreeMap<String, String>, args: &[String], place: &Place, sink: &Sink) {
    let port = PORT_VARIABLE.len() + "=65535\0".len();
    let variables = env.iter().map(|(name, value)| name.len() + value.len() + "=\0".len());
    let total = port + variables.sum::<usize>() + args.iter().map(|arg| arg.len() + 1).sum::<usize>();
    if total >= STRINGS_LIMIT {
        let limit = STRINGS_LIMIT;
        sink.report(place, format!("env and args take {total} bytes together, must be less than {limit}"));
    }
}
