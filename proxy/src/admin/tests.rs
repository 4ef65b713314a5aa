//! The endpoint over real sockets, with pools that the tests play.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, pending, ready};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use weir_pool::{Instances, PoolStatus, Replaced, RestartError, Revision, Start, VmState, VmStatus};
use weir_vmm::VmId;

use super::*;

const LOCAL: &str = "127.0.0.1:9180";

/// Pools whose names say how they take orders.
#[derive(Default)]
struct Fake {
    orders: Mutex<Vec<String>>,
}

impl Control for Fake {
    fn pools(&self) -> BoxFuture<'_, Vec<(String, PoolStatus)>> {
        let vm = VmStatus {
            id: VmId(7),
            state: VmState::Draining,
            address: Some(([10, 88, 0, 1], 8080).into()),
            in_flight: 3,
            age: Duration::from_millis(1500),
            start: Some(Start::Clone),
            revision: Revision(2),
        };
        let young = VmStatus { id: VmId(8), state: VmState::Starting, address: None, start: None, ..vm };
        let instances = Instances { starting: 1, draining: 1, ..Instances::default() };
        let status = PoolStatus {
            instances,
            queued: 5,
            desired: 2,
            template: true,
            revision: Revision(2),
            rollout: Some("rolling"),
            vms: vec![vm, young],
        };
        ready(vec![("shop".to_owned(), status)]).boxed()
    }

    fn drain<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Drain, OrderError>> {
        self.orders.lock().push(format!("drain {pool}"));
        let drain = match pool {
            "none" => Err(OrderError::NoPool),
            "busy" => Ok(Drain { vms: 4, done: pending().boxed() }),
            _ => Ok(Drain { vms: 4, done: ready(()).boxed() }),
        };
        ready(drain).boxed()
    }

    fn restart<'a>(&'a self, pool: &'a str) -> BoxFuture<'a, Result<Restart, OrderError>> {
        self.orders.lock().push(format!("restart {pool}"));
        let reason = || "it has a \"reason\"".to_owned();
        let outcome = match pool {
            "none" | "" => return ready(Err(OrderError::NoPool)).boxed(),
            "rolling" => return ready(Err(RestartError::InProgress.into())).boxed(),
            "busy" => return ready(Ok(pending().boxed())).boxed(),
            "broken" => Err(RestartError::Failed { reason: reason() }),
            "crashing" => Err(RestartError::RolledBack { reason: reason() }),
            "ending" => Err(RestartError::ShuttingDown),
            _ => Ok(Replaced { revision: Revision(3), image_changed: true, vms: 9 }),
        };
        ready(Ok(ready(outcome).boxed())).boxed()
    }
}

struct Endpoint {
    address: SocketAddr,
    pools: Arc<Fake>,
    readiness: watch::Sender<Readiness>,
    changes: mpsc::Receiver<ProcessOrder>,
    end: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Registry::new();
        crate::Metrics::register(&registry).unwrap();
        let (readiness, watched) = watch::channel(Readiness::Starting);
        let pools = Arc::<Fake>::default();
        let (end, until) = oneshot::channel::<()>();
        let (orders, changes) = mpsc::channel(1);
        let until = async { drop(until.await) };
        let serving = serve(listener, registry, watched, pools.clone(), orders, until);
        Self { address, pools, readiness, changes, end, serving: tokio::spawn(serving) }
    }

    /// What comes back for this request, whose lines end with line feeds.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(9), stream.read_to_string(&mut answer)).await;
        // A connection with an unread request may end in a reset behind the answer.
        drop(read.expect("an answer comes"));
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\nhost: {LOCAL}\nconnection: close\n\n")).await
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        parts(
            &self
                .send(&format!("POST {path} HTTP/1.1\nhost: {LOCAL}\nx-weir: 1\nconnection: close\n\n"))
                .await,
        )
    }

    fn orders(&self) -> Vec<String> {
        std::mem::take(&mut *self.pools.orders.lock())
    }
}

fn parts(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[tokio::test]
async fn it_says_how_weir_is() {
    let endpoint = Endpoint::start();
    assert!(endpoint.get("/healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(endpoint.get("/readyz").await.starts_with("HTTP/1.1 503 "));
    endpoint.readiness.send(Readiness::Ready).unwrap();
    assert!(endpoint.get("/readyz").await.starts_with("HTTP/1.1 200 "));
    endpoint.readiness.send(Readiness::Draining).unwrap();
    assert!(endpoint.get("/readyz").await.ends_with("draining\n"));
    let metrics = endpoint.get("/metrics").await;
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(metrics.contains("weir_build_info{version="), "{metrics}");
    assert!(endpoint.get("/nothing").await.starts_with("HTTP/1.1 404 "));
    let by_name = endpoint.send("GET /metrics HTTP/1.1\nhost: weir.example\nconnection: close\n\n").await;
    assert!(by_name.starts_with("HTTP/1.1 200 "), "whoever scrapes may use a name");
    drop(endpoint.end);
    endpoint.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn pools_and_vms_are_listed() {
    let endpoint = Endpoint::start();
    let pool = json!([{
        "name": "shop", "queued": 5, "desired": 2, "template": true, "revision": 2, "rollout": "rolling",
        "instances": { "starting": 1, "ready": 0, "draining": 1, "stopping": 0 },
    }]);
    assert_eq!(parts(&endpoint.get("/api/v1/pools").await), (200, pool));
    let vms = json!([
        {
            "id": "7", "pool": "shop", "state": "draining", "address": "10.88.0.1:8080", "in_flight": 3,
            "age_seconds": 1.5, "kind": "clone", "revision": 2,
        },
        {
            "id": "8", "pool": "shop", "state": "starting", "address": null, "in_flight": 3,
            "age_seconds": 1.5, "kind": null, "revision": 2,
        },
    ]);
    assert_eq!(parts(&endpoint.get("/api/v1/vms").await), (200, vms));
}

#[tokio::test]
async fn orders_are_answered_when_they_are_done_or_at_once() {
    let endpoint = Endpoint::start();
    let done = json!({ "pool": "shop", "result": "done", "vms": 4 });
    assert_eq!(endpoint.post("/api/v1/pools/shop/drain").await, (200, done));
    let begun = json!({ "pool": "busy", "result": "begun", "vms": 4 });
    assert_eq!(endpoint.post("/api/v1/pools/busy/drain?wait=false").await, (202, begun));
    let done = json!({ "pool": "shop", "result": "done", "vms": 9, "revision": 3, "image_changed": true });
    assert_eq!(endpoint.post("/api/v1/pools/shop/restart?wait=true").await, (200, done));
    let begun = json!({ "pool": "busy", "result": "begun" });
    assert_eq!(endpoint.post("/api/v1/pools/busy/restart?wait=false").await, (202, begun));
    let orders = ["drain shop", "drain busy", "restart shop", "restart busy"];
    assert_eq!(endpoint.orders(), orders);
}

#[tokio::test]
async fn the_process_is_changed_as_it_is_asked_to() {
    let mut endpoint = Endpoint::start();
    let mut changes = std::mem::replace(&mut endpoint.changes, mpsc::channel(1).1);
    let process = tokio::spawn(async move {
        let outcomes = [Ok("2 routes read"), Err("t:1:1: host:\n\"x\""), Err("it ended"), Ok("")];
        let mut asked = Vec::new();
        for outcome in outcomes {
            let order = changes.recv().await.unwrap();
            asked.push(order.change);
            order.answer(outcome.map(str::to_owned).map_err(str::to_owned));
        }
        // The process ends with an order unanswered.
        drop(changes.recv().await.unwrap());
        asked
    });
    let done = |change: &str| (200, json!({ "result": "done", "change": change }));
    assert_eq!(endpoint.post("/api/v1/reload").await, done("2 routes read"));
    let error = |status: u16, error: &str| (status, json!({ "error": error }));
    assert_eq!(endpoint.post("/api/v1/reload").await, error(422, "t:1:1: host:\n\"x\""));
    assert_eq!(endpoint.post("/api/v1/upgrade").await, error(500, "it ended"));
    assert_eq!(endpoint.post("/api/v1/upgrade").await, done(""));
    for what in ["upgrade", "reload"] {
        assert_eq!(endpoint.post(&format!("/api/v1/{what}")).await, error(503, "shutting down"));
    }
    use ProcessChange::{Reload, Upgrade};
    assert_eq!(process.await.unwrap(), [Reload, Reload, Upgrade, Upgrade]);
}

#[tokio::test]
async fn failures_name_the_pool_and_the_reason() {
    let endpoint = Endpoint::start();
    let cases = [
        ("none/drain", 404, "no such pool"),
        ("none/restart", 404, "no such pool"),
        ("/restart", 404, "no such pool"),
        ("rolling/restart", 409, "a restart is under way"),
        ("ending/restart", 503, "shutting down"),
        ("broken/restart", 500, "new revision failed, nothing was replaced: it has a \"reason\""),
        ("crashing/restart", 500, "new vms failed, rolled back: it has a \"reason\""),
    ];
    for (order, status, error) in cases {
        let pool = order.split('/').next().unwrap();
        let expected = json!({ "pool": pool, "error": error });
        assert_eq!(endpoint.post(&format!("/api/v1/pools/{order}")).await, (status, expected));
    }
}

#[tokio::test]
async fn nothing_is_done_for_a_page_in_somebodys_browser() {
    let mut endpoint = Endpoint::start();
    let refused = [
        // A form, or fetch() in its simple mode.
        format!(
            "POST /api/v1/pools/shop/drain HTTP/1.1\nhost: {LOCAL}\norigin: http://evil.example\ncontent-type: text/plain\n"
        ),
        // The question that a browser asks before it sends another header.
        format!(
            "OPTIONS /api/v1/pools/shop/drain HTTP/1.1\nhost: {LOCAL}\norigin: http://evil.example\n\
             access-control-request-method: POST\naccess-control-request-headers: x-weir\n"
        ),
        // A name that was made to resolve to this address.
        "POST /api/v1/pools/shop/drain HTTP/1.1\nhost: evil.example:9180\nx-weir: 1\n".to_owned(),
        "GET /api/v1/vms HTTP/1.1\nhost: evil.example:9180\n".to_owned(),
        format!("GET /api/v1/vms HTTP/1.1\nhost: {LOCAL}\nhost: evil.example\n"),
        format!("DELETE /api/v1/pools HTTP/1.1\nhost: {LOCAL}\n"),
        format!("POST /api/v1/reload HTTP/1.1\nhost: {LOCAL}\n"),
        "POST /api/v1/upgrade HTTP/1.1\nhost: evil.example:9180\nx-weir: 1\n".to_owned(),
    ];
    for request in refused {
        let answer = endpoint.send(&format!("{request}connection: close\n\n")).await;
        let status = answer.split(' ').nth(1).unwrap();
        assert!(["400", "403"].contains(&status), "{request}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow"), "{answer}");
    }
    assert_eq!(endpoint.orders(), [""; 0]);
    assert!(endpoint.changes.try_recv().is_err(), "nothing of weir is changed");
}

#[tokio::test]
async fn other_methods_paths_and_queries_change_nothing() {
    let endpoint = Endpoint::start();
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let request = format!(
            "{method} /api/v1/pools/shop/restart HTTP/1.1\nhost: {LOCAL}\nx-weir: 1\nconnection: close\n\n"
        );
        let answer = endpoint.send(&request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
    }
    for (path, status) in [
        ("/api/v1/pools", 405),
        ("/api/v1/reload/", 404),
        ("/api/v1/pools/shop", 404),
        ("/api/v1/pools/shop/restart/", 404),
        ("/api/v1/pools/a/b/restart", 404),
        ("/api/v1/pools/shop/explode", 404),
        ("/api/v2/pools/shop/restart", 404),
        ("/api/v1/pools/shop/restart?wait=no", 400),
        ("/api/v1/pools/shop/restart?wait=false&wait=true", 400),
        ("/api/v1/pools/%ff/restart", 400),
    ] {
        let request = format!("POST {path} HTTP/1.1\nhost: {LOCAL}\nx-weir: 1\nconnection: close\n\n");
        let answer = endpoint.send(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    assert_eq!(endpoint.orders(), [""; 0]);
}

#[tokio::test]
async fn a_body_is_not_waited_for_however_long_it_says_it_is() {
    let endpoint = Endpoint::start();
    for length in ["content-length: 9000000000", "transfer-encoding: chunked"] {
        let request =
            format!("POST /api/v1/pools/shop/drain HTTP/1.1\nhost: {LOCAL}\nx-weir: 1\n{length}\n\n");
        let (status, _) = parts(&endpoint.send(&request).await);
        assert_eq!(status, 200, "{length}");
    }
}
