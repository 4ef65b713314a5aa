//! The administration endpoint: `/metrics` (Prometheus text), `/healthz` (the process works), `/readyz` (it takes
//! requests: not while it starts or drains).

use std::future::Future;
use std::io;
use std::net::TcpListener;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;

/// Whether weir takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// It does.
    Ready,
    /// No more.
    Draining,
}

#[derive(Clone, Debug)]
struct Admin {
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
}

/// Serves on `listener` until `until` resolves.
///
/// # Errors
///
/// If the socket cannot be handed to the runtime.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Admin { registry, readiness });
    tokio::select! {
        ended = axum::serve(listener, routes) => ended,
        () = until => Ok(()),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("encode metrics: {error}\n")).into_response()
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    match *admin.readiness.borrow() {
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_says_how_weir_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Registry::new();
        crate::Metrics::register(&registry).unwrap();
        let (readiness, watched) = watch::channel(Readiness::Starting);
        let (end, until) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, registry, watched, async { drop(until.await) }));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        readiness.send(Readiness::Ready).unwrap();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        readiness.send(Readiness::Draining).unwrap();
        assert!(get(address, "/readyz").await.ends_with("draining\n"));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("weir_build_info{version="), "{metrics}");
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404 "));

        drop(end);
        serving.await.unwrap().unwrap();
    }
}
