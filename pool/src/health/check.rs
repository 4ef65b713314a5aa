//! How a VM is asked whether it works: the same for the first clone of a template and for those in service.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use weir_config::model::Health;

use super::Finding;
use crate::network::{Network, OwnNetwork};

/// Longest status line that is looked at, bytes.
const STATUS_LINE: usize = 64;

/// Why a VM is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It takes no connection.
    #[error("connect {address}")]
    Connect {
        /// Where it should listen.
        address: SocketAddr,
        /// What the connection met.
        source: io::Error,
    },
    /// Nothing answers the attempt to connect: neither yes nor no.
    #[error("no connection within {0:?}")]
    Silent(Duration),
    /// The connection ended without an answer.
    #[error("no answer to GET {path}")]
    Exchange {
        /// What was asked for.
        path: String,
        /// How the connection ended.
        source: io::Error,
    },
    /// The answer is no HTTP.
    #[error("answer to GET {path} is no HTTP: {line:?}")]
    NoHttp {
        /// What was asked for.
        path: String,
        /// How the answer begins.
        line: String,
    },
    /// The answer is not a good one.
    #[error("answer to GET {path} has status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// Its status.
        status: u16,
    },
    /// It took the connection, but did not answer in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

impl Unhealthy {
    /// What this says of the VM.
    pub(crate) fn finding(&self) -> Finding {
        use io::ErrorKind::{
            ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut,
        };
        match self {
            Self::Silent(_) => Finding::Silent,
            Self::Connect { source, .. } => match source.kind() {
                ConnectionRefused | ConnectionReset => Finding::Unwell,
                TimedOut => Finding::Silent,
                HostUnreachable | NetworkUnreachable | NetworkDown => Finding::Lost,
                // The kernel gave no socket: no descriptors, no memory, no port. Not the VM's doing.
                _ => Finding::Unknown,
            },
            Self::Exchange { .. } | Self::NoHttp { .. } | Self::Status { .. } | Self::Late(_) => {
                Finding::Unwell
            }
        }
    }
}

/// Checks a VM in service, or a server outside, which listens at `address` of `network`: with `health.path` it has to answer a GET with a status from 200 to
/// 399, without it has to accept a connection; all that within `health.timeout`.
///
/// # Errors
/// What is wrong.
pub(crate) async fn check(
    network: &dyn Network,
    address: SocketAddr,
    health: &Health,
) -> Result<(), Unhealthy> {
    let deadline = Instant::now() + health.timeout;
    let stream = connect(network, address, health.timeout, deadline).await?;
    match &health.path {
        Some(path) => ask(stream, path, health.timeout, deadline).await,
        None => Ok(()),
    }
}

/// Checks the first clone of a template: as [`check`], but a GET is sent in any case, for the sake of what the VM then
/// touches.
pub(crate) async fn check_canary(address: SocketAddr, health: &Health) -> Result<(), Unhealthy> {
    let deadline = Instant::now() + health.timeout;
    let stream = connect(&OwnNetwork, address, health.timeout, deadline).await?;
    let answered = ask(stream, health.path.as_deref().unwrap_or("/"), health.timeout, deadline).await;
    if health.path.is_some() { answered } else { Ok(()) }
}

async fn connect(
    network: &dyn Network,
    address: SocketAddr,
    limit: Duration,
    deadline: Instant,
) -> Result<TcpStream, Unhealthy> {
    let connected =
        timeout_at(deadline, network.connect(address)).await.map_err(|_| Unhealthy::Silent(limit))?;
    connected.map_err(|source| Unhealthy::Connect { address, source })
}

async fn ask(mut stream: TcpStream, path: &str, limit: Duration, deadline: Instant) -> Result<(), Unhealthy> {
    timeout_at(deadline, get(&mut stream, path)).await.map_err(|_| Unhealthy::Late(limit))?
}

async fn get(stream: &mut TcpStream, path: &str) -> Result<(), Unhealthy> {
    let failed = |source| Unhealthy::Exchange { path: path.to_owned(), source };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: weir-health\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut line = Vec::with_capacity(STATUS_LINE);
    while line.len() < STATUS_LINE && !line.contains(&b'\n') {
        if stream.read_buf(&mut (&mut line).limit(STATUS_LINE)).await.map_err(failed)? == 0 {
            break;
        }
    }
    match status(&line) {
        Some(200..400) => Ok(()),
        Some(status) => Err(Unhealthy::Status { path: path.to_owned(), status }),
        None => Err(Unhealthy::NoHttp {
            path: path.to_owned(),
            line: String::from_utf8_lossy(&line).into_owned(),
        }),
    }
}

/// The status of a status line (RFC 9112, section 4).
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    if rest.get(1) != Some(&b' ') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn status_lines_are_read_and_anything_else_is_none() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for line in [&b""[..], b"HTTP/1.1", b"HTTP/1.1 2", b"HTTP/1.1-200", b"SSH-2.0", b"HTTP/1.1 +20 "] {
            assert_eq!(status(line), None, "{line:?}");
        }
    }

    async fn checked(answer: &'static [u8], path: Option<&str>) -> Result<(), Unhealthy> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 512]).await;
                let _ = stream.write_all(answer).await;
            }
        });
        let health = Health { path: path.map(str::to_owned), ..Health::default() };
        let canary = check_canary(address, &health).await;
        let served = check(&OwnNetwork, address, &health).await;
        assert_eq!(canary.is_ok(), served.is_ok(), "{canary:?} {served:?}");
        served
    }

    #[tokio::test]
    async fn only_a_good_status_passes_where_a_path_is_given() {
        checked(b"HTTP/1.1 204 No Content\r\n\r\n", Some("/health")).await.unwrap();
        let error = checked(b"HTTP/1.1 500 Oh\r\n\r\n", Some("/health")).await.unwrap_err();
        assert_eq!(error.to_string(), "answer to GET /health has status 500");
        let error = checked(b"hello", Some("/")).await.unwrap_err();
        assert_eq!(error.to_string(), "answer to GET / is no HTTP: \"hello\"");
        assert!(checked(b"", Some("/")).await.is_err());
    }

    #[tokio::test]
    async fn without_a_path_a_connection_is_enough() {
        for answer in [&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], b"", b"SSH-2.0"] {
            checked(answer, None).await.unwrap();
        }
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = check(&OwnNetwork, nobody, &Health::default()).await.unwrap_err();
        assert_eq!(refused.finding(), Finding::Unwell);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_connections_and_never_answers_is_late() {
        // The kernel takes the connection.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let health = Health { path: Some("/".to_owned()), ..Health::default() };
        let error = check(&OwnNetwork, listener.local_addr().unwrap(), &health).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.finding()), ("no answer within 1s", Finding::Unwell));
    }

    #[test]
    fn only_what_the_vm_did_counts_against_it() {
        let met = |kind| {
            let source = io::Error::from(kind);
            Unhealthy::Connect { address: ([127, 0, 0, 1], 1).into(), source }.finding()
        };
        assert_eq!(met(io::ErrorKind::ConnectionRefused), Finding::Unwell);
        assert_eq!(met(io::ErrorKind::TimedOut), Finding::Silent);
        assert_eq!(met(io::ErrorKind::HostUnreachable), Finding::Lost);
        assert_eq!(met(io::ErrorKind::AddrNotAvailable), Finding::Unknown);
    }
}
