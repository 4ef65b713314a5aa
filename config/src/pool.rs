//! `[pool.NAME]`: what a pool's VMs are made from, and how many there may be.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use crate::error::Sink;
use crate::key::{Located, Place, suggestion};
use crate::limits;
use crate::model::{Health, Isolation, Kind, Pool, Queue, Scale};
use crate::path::check_target;
use crate::reader::Reader;
use crate::units::SizeText;
use crate::values::{duration, integer, size, string};

/// Smallest and largest memory of a VM, bytes: room for a libOS with an application below, the MMIO window above.
const MEMORY: (u64, u64) = (8 << 20, 3 << 30);
/// Unit in which memory is mapped, bytes.
const PAGE: u64 = 4096;
/// Environment and arguments stay below this, bytes: the guest gets them in one 64 KiB region with its boot-info.
const STRINGS_LIMIT: usize = 60 << 10;
/// Variable by which the guest learns its pool's `port`.
const PORT_VARIABLE: &str = "PORT";

/// `[pool.NAME]` as far as it is valid.
pub(crate) struct PoolSection {
    pub(crate) name: String,
    /// Where its VMs' image is.
    pub(crate) image: Option<Located<String>>,
    /// Memory per VM, bytes.
    pub(crate) memory: Option<Located<u64>>,
    /// `scale.min`.
    pub(crate) min: Option<Located<u32>>,
    /// The whole, if all of it is valid.
    pub(crate) pool: Option<Pool>,
}

impl PoolSection {
    pub(crate) fn read(name: &str, table: &mut Reader<'_>) -> Self {
        let valid_name = check_name(name, table.place(), table.sink());
        let kind = table.read("kind", kind).or(Kind::Unikernel);
        let image = table.read("image", string).check(|image| not_empty(image)).required();
        let port = table.read("port", integer(1..=u16::MAX)).or(8080);
        let vcpus = table.read("vcpus", integer(1..=u32::MAX)).check(one_vcpu).or(1);
        let memory = table.read("memory", size).check(mappable).or(16 << 20);
        let env = table.named_strings("env", check_variable);
        let args = table.strings("args", |_| Ok(()));
        if let (Some(env), Some(args)) = (&env, &args) {
            check_strings(env, args, table.place(), table.sink());
        }
        let isolation = table.read("isolation", isolation).or(Isolation::Vm);
        let (soft_limit, hard_limit) = read_concurrency(table, isolation.as_ref());
        let start_timeout = table.read("start_timeout", duration).or(Duration::from_secs(5));
        let scale = table.table("scale", ScaleSection::read);
        let queue = table.table("queue", read_queue).flatten();
        let health = table.table("health", read_health).flatten();
        let limits = table.table("limits", limits::read).flatten();

        let min = scale.as_ref().and_then(|scale| scale.min.clone());
        let memory_per_vm = memory.clone();
        let image_name = image.clone();
        let pool = || {
            Some(Pool {
                name: valid_name?,
                kind: kind?.value,
                image: image?.value,
                port: port?.value,
                vcpus: vcpus?.value,
                memory: memory?.value,
                env: env?,
                args: args?,
                isolation: isolation?.value,
                soft_limit: soft_limit?.value,
                hard_limit: hard_limit?.value,
                start_timeout: start_timeout?.value,
                scale: scale?.into_scale()?,
                queue: queue?,
                health: health?,
                limits: limits?,
            })
        };
        Self { name: name.to_owned(), image: image_name, memory: memory_per_vm, min, pool: pool() }
    }
}

/// `[pool.NAME.scale]` as far as it is valid.
struct ScaleSection {
    min: Option<Located<u32>>,
    max: Option<Located<u32>>,
    idle_timeout: Option<Located<Duration>>,
}

impl ScaleSection {
    fn read(table: &mut Reader<'_>) -> Self {
        let min = table.read("min", integer(0..=u32::MAX)).or(0);
        let max = table.read("max", integer(1..=u32::MAX)).or(64);
        not_less(&max, &min, "min", table.sink());
        Self { min, max, idle_timeout: table.read("idle_timeout", duration).or(Duration::from_secs(30)) }
    }

    fn into_scale(self) -> Option<Scale> {
        Some(Scale { min: self.min?.value, max: self.max?.value, idle_timeout: self.idle_timeout?.value })
    }
}

fn read_queue(table: &mut Reader<'_>) -> Option<Queue> {
    let max_pending = table.read("max_pending", integer(1..=1_000_000)).or(1000);
    let timeout = table.read("timeout", duration).or(Duration::from_secs(10));
    Some(Queue { max_pending: max_pending?.value, timeout: timeout?.value })
}

fn read_health(table: &mut Reader<'_>) -> Option<Health> {
    let path = table.read("path", string).check(|path| check_target(path)).optional();
    let timeout = table.read("timeout", duration).or(Health::default().timeout);
    Some(Health { path: path?.map(|path| path.value), timeout: timeout?.value })
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

fn isolation(value: &DeValue<'_>) -> Result<Isolation, String> {
    let text = string(value)?;
    match text.as_str() {
        "vm" => Ok(Isolation::Vm),
        "connection" => Ok(Isolation::Connection),
        "request" => Ok(Isolation::Request),
        _ => {
            let near = suggestion(&text, ["vm", "connection", "request"]);
            Err(format!(r#"must be "vm", "connection" or "request", is {text:?}{near}"#))
        }
    }
}

fn check_name(name: &str, place: &Place, sink: &Sink) -> Option<String> {
    let valid = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !valid {
        sink.report(place, r#"a pool's name has 1 to 63 characters of a-z, 0-9 and "-""#);
    }
    valid.then(|| name.to_owned())
}

fn kind(value: &DeValue<'_>) -> Result<Kind, String> {
    let text = string(value)?;
    match text.as_str() {
        "unikernel" => Ok(Kind::Unikernel),
        "process" | "application" | "container" | "external" => {
            Err(format!(r#"kind {text:?} is not supported yet, only "unikernel""#))
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
    let (smallest, largest) = MEMORY;
    if !(smallest..=largest).contains(memory) {
        let [smallest, largest, memory] = [smallest, largest, *memory].map(SizeText);
        return Err(format!("must be from {smallest} to {largest}, is {memory}"));
    }
    if !memory.is_multiple_of(PAGE) {
        return Err(format!("must be a multiple of {}, is {}", SizeText(PAGE), SizeText(*memory)));
    }
    Ok(())
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

/// Reports `larger` when it is less than `smaller`, whose key is `name`.
fn not_less(larger: &Option<Located<u32>>, smaller: &Option<Located<u32>>, name: &str, sink: &Sink) {
    if let (Some(larger), Some(smaller)) = (larger, smaller)
        && larger.value < smaller.value
    {
        let message = format!("{} is less than {name}, which is {}", larger.value, smaller.value);
        sink.report(&larger.place, message);
    }
}
