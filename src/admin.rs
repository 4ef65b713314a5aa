//! `weir ps`, `weir drain`, `weir restart`, `weir reload` and `weir upgrade`: a running weir, over its administration
//! endpoint.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_config::LoadError;
use weir_pool::printable;
use weir_proxy::admin::guard::HEADER;

use crate::cli::{AdminOptions, Failure, OrderOptions};

/// How long the endpoint may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest answer, bytes: more than the lines of the most VMs that a host may have.
const ANSWER: usize = 64 << 20;

/// Prints all pools and all VMs.
///
/// # Errors
/// If there is no endpoint, or it does not answer.
pub(crate) fn ps(options: &AdminOptions) -> Result<(), Failure> {
    let address = address(options)?;
    let pools = ask(Method::GET, address, "/api/v1/pools")?;
    let vms = ask(Method::GET, address, "/api/v1/vms")?;
    let text = format!("{}\n{}", table(POOLS, &pools), table(VMS, &vms));
    std::io::stdout().write_all(text.as_bytes()).context("write to stdout")?;
    Ok(())
}

/// Takes all VMs of a pool out of use.
///
/// # Errors
/// As for [`ps`], or if there is no such pool.
pub(crate) fn drain(options: &OrderOptions) -> Result<(), Failure> {
    order(options, "drain")
}

/// Replaces all VMs of a pool.
///
/// # Errors
/// As for [`drain`], or if nothing was replaced.
pub(crate) fn restart(options: &OrderOptions) -> Result<(), Failure> {
    order(options, "restart")
}

/// Has weir read its configuration again.
///
/// # Errors
/// As for [`ps`], or what is wrong with the configuration: nothing has changed then.
pub(crate) fn reload(options: &AdminOptions) -> Result<(), Failure> {
    change(options, "reload", "reloaded")
}

/// Has a new binary take over.
///
/// # Errors
/// As for [`ps`], or why it does not: the weir that was asked goes on then.
pub(crate) fn upgrade(options: &AdminOptions) -> Result<(), Failure> {
    change(options, "upgrade", "upgraded")
}

fn change(options: &AdminOptions, what: &'static str, done: &str) -> Result<(), Failure> {
    let address = address(options)?;
    let answer = ask(Method::POST, address, &format!("/api/v1/{what}")).context(what)?;
    writeln!(std::io::stdout(), "{done}: {}", cell(&answer["change"])).context("write to stdout")?;
    Ok(())
}

fn order(options: &OrderOptions, what: &str) -> Result<(), Failure> {
    let OrderOptions { pool, no_wait, admin } = options;
    // Of no pool's name is it true, and in a path it would mean something else.
    if pool.is_empty() || !pool.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Failure::Configuration(format!("weir: {pool:?} is no name of a pool")));
    }
    let address = address(admin)?;
    let path = format!("/api/v1/pools/{pool}/{what}?wait={}", !no_wait);
    let done = ask(Method::POST, address, &path).with_context(|| format!("{what} {pool}"))?;
    let mut line = format!("{pool}: {what} {}", cell(&done["result"]));
    for (name, value) in [("vms", &done["vms"]), ("revision", &done["revision"])] {
        if !value.is_null() {
            line += &format!(", {name} {}", cell(value));
        }
    }
    if done["image_changed"] == true {
        line += ", new image";
    }
    writeln!(std::io::stdout(), "{line}").context("write to stdout")?;
    Ok(())
}

/// Where the endpoint is: as the command line says, else as the configuration does.
fn address(options: &AdminOptions) -> Result<SocketAddr, Failure> {
    if let Some(address) = options.admin {
        return Ok(address);
    }
    let file = options.config.display();
    let config = weir_config::load(&options.config).map_err(|error| match error {
        LoadError::Read { source, .. } => Failure::Configuration(format!("weir: read {file}: {source}")),
        LoadError::Invalid(errors) => Failure::Configuration(errors.to_string()),
    })?;
    let address = config.admin.map(|admin| admin.address).filter(|address| address.port() != 0);
    let address = address.ok_or_else(|| {
        let why = "has no admin.address with a port: name the address by --admin";
        Failure::Configuration(format!("weir: {file} {why}"))
    })?;
    Ok(SocketAddr::new(reachable(address.ip()), address.port()))
}

/// Where a socket that is bound to `address` can be reached from here.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn ask(method: Method, address: SocketAddr, path: &str) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.context("start the runtime")?.block_on(exchange(method, address, path));
    let (status, body) = asked.with_context(|| format!("ask weir at {address}"))?;
    let value: Value = serde_json::from_slice(&body)
        .with_context(|| format!("{address} answers {path} with status {status} and no JSON: is it weir?"))?;
    if status.is_success() {
        return Ok(value);
    }
    let error = value["error"].as_str().unwrap_or("no reason given");
    // A configuration's errors are one a line.
    let lines: Vec<_> = error.trim_end().lines().map(printable).collect();
    anyhow::bail!("{}", lines.join("\n"))
}

async fn exchange(method: Method, address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await.context("connect: no answer")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream.context("connect")?)).await?;
    // How it ends shows in the answer.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(HEADER, "1")
        .body(Empty::<Bytes>::new())
        .context("make the request")?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error)).context("read the answer")?;
    Ok((status, body.to_bytes()))
}

/// A table's columns: heading, and where in a JSON object the value is.
type Columns = &'static [(&'static str, &'static str)];

const POOLS: Columns = &[
    ("POOL", "/name"),
    ("READY", "/instances/ready"),
    ("STARTING", "/instances/starting"),
    ("DRAINING", "/instances/draining"),
    ("STOPPING", "/instances/stopping"),
    ("DESIRED", "/desired"),
    ("QUEUED", "/queued"),
    ("TEMPLATE", "/template"),
    ("REVISION", "/revision"),
    ("ROLLOUT", "/rollout"),
];

const VMS: Columns = &[
    ("VM", "/id"),
    ("POOL", "/pool"),
    ("STATE", "/state"),
    ("ADDRESS", "/address"),
    ("IN-FLIGHT", "/in_flight"),
    ("AGE", "/age_seconds"),
    ("KIND", "/kind"),
    ("REVISION", "/revision"),
];

/// One line for each of `rows`, under a heading, in columns.
fn table(columns: Columns, rows: &Value) -> String {
    let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>();
    let cells = |row: &Value| {
        let value = |pointer| row.pointer(pointer).unwrap_or(&Value::Null);
        columns.iter().map(|(_, pointer)| cell(value(pointer))).collect::<Vec<_>>()
    };
    let lines: Vec<_> =
        std::iter::once(heading).chain(rows.as_array().into_iter().flatten().map(cells)).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    lines.iter().fold(String::new(), |text, line| {
        let line = line
            .iter()
            .zip(&widths)
            .fold(String::new(), |text, (cell, width)| text + &format!("{cell:width$}  "));
        text + line.trim_end() + "\n"
    })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
        Value::Number(number) if number.is_f64() => format!("{:.1}s", number.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_and_nothing_that_moves_the_cursor() {
        let rows = serde_json::json!([
            { "id": "7", "pool": "a\u{1b}[2J", "state": "ready", "in_flight": 2, "age_seconds": 61.25, "revision": 1 },
            { "id": "10", "pool": "shop" },
        ]);
        let text = table(VMS, &rows);
        let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0][..3], ["VM", "POOL", "STATE"]);
        assert_eq!(words[1], ["7", "a\\u{1b}[2J", "ready", "-", "2", "61.2s", "-", "1"]);
        assert_eq!(words[2], ["10", "shop", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(table(VMS, &Value::Null).lines().count(), 1);
    }

    #[test]
    fn what_listens_everywhere_is_reached_here() {
        let reached = |text: &str| reachable(text.parse().expect("an address")).to_string();
        assert_eq!(["0.0.0.0", "::", "10.1.2.3"].map(reached), ["127.0.0.1", "::1", "10.1.2.3"]);
    }
}
