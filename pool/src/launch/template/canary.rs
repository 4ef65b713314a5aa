//! The health check that the first clone of a template has to pass.

use std::io;
use std::net::SocketAddr;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_config::model::Pool;

/// Longest status line that is looked at, bytes.
const STATUS_LINE: usize = 64;

/// Why a VM is not healthy.
#[derive(Debug, thiserror::Error)]
pub(in crate::launch) enum Unhealthy {
    #[error("connect {address}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no answer to GET {path}")]
    Exchange { path: String, source: io::Error },
    #[error("answer to GET {path} is no HTTP: {line:?}")]
    NoHttp { path: String, line: String },
    #[error("answer to GET {path} has status {status}")]
    Status { path: String, status: u16 },
    #[error("not within {0:?}")]
    Late(std::time::Duration),
}

/// Checks the VM of `pool` that listens at `address`: with `health.path` it has to answer a GET with a status from
/// 200 to 399, without it has to accept a connection. A GET is sent in any case, for the sake of what the VM then touches.
pub(super) async fn check(address: SocketAddr, pool: &Pool) -> Result<(), Unhealthy> {
    let limit = pool.health.timeout;
    let connect = async { TcpStream::connect(address).await };
    let mut stream = timeout(limit, connect)
        .await
        .map_err(|_| Unhealthy::Late(limit))?
        .map_err(|source| Unhealthy::Connect { address, source })?;
    let path = pool.health.path.as_deref();
    let answered = timeout(limit, get(&mut stream, path.unwrap_or("/"))).await;
    match (answered, path) {
        (Ok(outcome), Some(_)) => outcome,
        (Err(_), Some(_)) => Err(Unhealthy::Late(limit)),
        (_, None) => Ok(()),
    }
}

async fn get(stream: &mut TcpStream, path: &str) -> Result<(), Unhealthy> {
    let failed = |source| Unhealthy::Exchange { path: path.to_owned(), source };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: weir-canary\r\nconnection: close\r\n\r\n"
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
    use crate::fake;

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
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(answer).await;
        });
        let mut pool = fake::pool("p");
        pool.health.path = path.map(str::to_owned);
        check(address, &pool).await
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
        assert!(check(nobody, &fake::pool("p")).await.is_err());
    }
}
