//! VMs that remember, and must not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use weir_config::model::{Config, Isolation};
use weir_pool::fake::Script;
use weir_vmm::ExitReason;

use crate::backend::{Backend, Connection};
use crate::client::{Client, ask, header};
use crate::site::{Site, config_with, ready, until};

/// A server with a global variable, which only a reset of its VM clears.
struct Guest {
    backend: Backend,
    memory: Arc<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// How often the VM has been reset.
    resets: Arc<AtomicU32>,
    /// Of this generation: who asked.
    asked: Mutex<(u32, Vec<String>)>,
    /// Requests on connections of an earlier generation.
    strays: AtomicUsize,
    waiting: AtomicUsize,
}

impl Memory {
    /// Remembers who asks; who asked before.
    fn ask(&self, who: &str) -> String {
        let mut asked = self.asked.lock();
        let generation = self.resets.load(SeqCst);
        if asked.0 != generation {
            *asked = (generation, Vec::new());
        }
        let before = asked.1.join(",");
        asked.1.push(who.to_owned());
        before
    }

    async fn serve(&self, mut connection: Connection) {
        let generation = self.resets.load(SeqCst);
        while let Some((head, _)) = connection.request().await {
            if self.resets.load(SeqCst) != generation {
                self.strays.fetch_add(1, SeqCst);
            }
            let before = self.ask(header(&head, "who").unwrap());
            if head.starts_with("GET /never ") {
                self.waiting.fetch_add(1, SeqCst);
                continue;
            }
            if head.starts_with("GET /socket ") {
                connection.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n").await;
                connection.send("upgrade: websocket\r\n\r\n").await;
                while let Some(bytes) = connection.some().await {
                    connection.send(bytes).await;
                }
                return;
            }
            if !connection.answer(before.as_bytes()).await {
                return;
            }
        }
    }
}

impl Guest {
    async fn start() -> Self {
        let memory = Arc::new(Memory::default());
        let inside = memory.clone();
        let backend = Backend::start(move |connection| {
            let memory = inside.clone();
            async move { memory.serve(connection).await }
        })
        .await;
        Self { backend, memory }
    }

    fn script(&self) -> Script {
        Script { resets: self.memory.resets.clone(), ..ready(self.backend.address) }
    }

    fn resets(&self) -> u32 {
        self.memory.resets.load(SeqCst)
    }
}

fn isolated(isolation: Isolation, vms: usize) -> Config {
    config_with(|pool| {
        pool.isolation = isolation;
        (pool.soft_limit, pool.hard_limit) = (1, 1);
        pool.scale.max = u32::try_from(vms).unwrap();
        pool.queue.max_pending = 1000;
    })
}

/// A pool of as many VMs as there are guests.
async fn site(isolation: Isolation, vms: usize) -> (Site, Vec<Guest>) {
    let mut guests = Vec::new();
    for _ in 0..vms {
        guests.push(Guest::start().await);
    }
    let site = Site::start(isolated(isolation, vms), guests[0].script()).await;
    guests.iter().for_each(|guest| site.launcher.script_next(guest.script()));
    (site, guests)
}

fn request(who: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a\r\nwho: {who}\r\n\r\n")
}

/// Requests of every kind that pingora handles differently: without a body, with a small one and with a large one.
fn request_with_body(who: &str, kind: usize) -> String {
    match kind % 3 {
        0 => request(who),
        1 => format!("POST / HTTP/1.1\r\nhost: a\r\nwho: {who}\r\ncontent-length: 5\r\n\r\nhello"),
        _ => {
            let body = "x".repeat(100_000);
            format!("POST / HTTP/1.1\r\nhost: a\r\nwho: {who}\r\ncontent-length: 100000\r\n\r\n{body}")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_survives_a_request_though_the_client_s_connection_does() {
    let (site, guests) = site(Isolation::Request, 3).await;
    let clients = (0..8).map(|number| {
        let address = site.address;
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for round in 0..20 {
                let kind = number + round;
                client.send(&request_with_body(&format!("{number}.{round}"), kind)).await;
                let response = client.response().await;
                assert_eq!((response.status(), response.text()), (200, ""), "{number}.{round}");
                assert_eq!(response.header("connection"), Some("keep-alive"));
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }
    until(|| guests.iter().map(Guest::resets).sum::<u32>() == 160).await;
    assert!(guests.iter().all(|guest| guest.memory.strays.load(SeqCst) == 0));
    assert_eq!(guests.iter().map(|guest| guest.backend.connections()).sum::<usize>(), 160);
    assert_eq!(site.launcher.started().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_get_a_clean_vm_each_and_their_own_bodies() {
    let (site, guests) = site(Isolation::Request, 1).await;
    let mut client = Client::connect(site.address).await;
    let requests: Vec<_> = (0..6).map(|round| request_with_body(&round.to_string(), round)).collect();
    client.send(&requests.concat()).await;
    for round in 0..6 {
        let response = client.response().await;
        assert_eq!((response.status(), response.text()), (200, ""), "{round}");
    }
    until(|| guests[0].resets() == 6).await;
    assert_eq!(site.launcher.started().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_finds_its_own_traces_and_nobody_else_s() {
    let (site, guests) = site(Isolation::Connection, 4).await;
    // In turns, so that every VM is used by connections one after the other.
    for turn in 0..3 {
        let clients = (0..4).map(|number| {
            let address = site.address;
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                let who = format!("{turn}.{number}");
                for round in 0..5 {
                    client.send(&request_with_body(&who, round)).await;
                    assert_eq!(client.response().await.text(), vec![who.as_str(); round].join(","));
                }
            })
        });
        for client in futures::future::join_all(clients).await {
            client.unwrap();
        }
        until(|| guests.iter().map(Guest::resets).sum::<u32>() == 4 * (turn + 1)).await;
    }
    assert!(guests.iter().all(|guest| guest.memory.strays.load(SeqCst) == 0));
    let connections: usize = guests.iter().map(|guest| guest.backend.connections()).sum();
    assert!(connections < 12 * 5, "none was used again: {connections}");
}

// More connections than VMs: those that are idle lose theirs again and again.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_share_too_few_vms_never_find_each_other() {
    let (site, guests) = site(Isolation::Connection, 2).await;
    let clients = (0..6).map(|number| {
        let address = site.address;
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let who = number.to_string();
            for round in 0..20 {
                client.send(&request_with_body(&who, number + round)).await;
                let response = client.response().await;
                assert_eq!(response.status(), 200);
                let others: BTreeSet<_> = response.text().split_terminator(',').collect();
                assert!(others.iter().all(|other| *other == who), "{who} found {others:?}");
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }
    assert!(guests.iter().all(|guest| guest.memory.strays.load(SeqCst) == 0));
    assert_eq!(site.launcher.started().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_makes_way_and_stays_connected() {
    let (site, _guests) = site(Isolation::Connection, 1).await;
    let (mut idle, mut other) = (Client::connect(site.address).await, Client::connect(site.address).await);
    for before in ["", "idle"] {
        idle.send(&request("idle")).await;
        assert_eq!(idle.response().await.text(), before);
    }
    other.send(&request("other")).await;
    assert_eq!(other.response().await.text(), "");
    idle.send(&request("idle")).await;
    assert_eq!(idle.response().await.text(), "", "a clean VM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_its_request_leaves_no_trace() {
    for isolation in [Isolation::Request, Isolation::Connection] {
        let (site, guests) = site(isolation, 1).await;
        let mut client = Client::connect(site.address).await;
        client.send("GET /never HTTP/1.1\r\nhost: a\r\nwho: quitter\r\n\r\n").await;
        until(|| guests[0].memory.waiting.load(SeqCst) == 1).await;
        drop(client);
        let mut next = Client::connect(site.address).await;
        next.send(&request("next")).await;
        assert_eq!(next.response().await.text(), "");
        // The second request may have had its reset, too.
        assert!(guests[0].resets() >= 1);
        assert_eq!(site.launcher.started().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_one_request_and_what_it_left_goes_with_it() {
    let (site, guests) = site(Isolation::Request, 1).await;
    let mut socket = Client::connect(site.address).await;
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\n";
    socket.send(&format!("GET /socket HTTP/1.1\r\nhost: a\r\nwho: tunnel\r\n{upgrade}\r\n")).await;
    assert_eq!(socket.response().await.status(), 101);
    for message in ["one", "two"] {
        socket.send(message).await;
        assert_eq!(socket.exactly(3).await.0, message.as_bytes());
    }
    let mut other = Client::connect(site.address).await;
    other.send(&request("other")).await;
    until(|| site.pool().queued() == 1).await;
    assert_eq!(guests[0].resets(), 0);
    drop(socket);
    assert_eq!(other.response().await.text(), "");
    assert_eq!(site.launcher.started().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_vm_dies_goes_on_with_another() {
    let (site, guests) = site(Isolation::Connection, 2).await;
    let mut client = Client::connect(site.address).await;
    client.send(&request("a")).await;
    assert_eq!(client.response().await.text(), "");
    client.send("GET /never HTTP/1.1\r\nhost: a\r\nwho: a\r\n\r\n").await;
    until(|| guests[0].memory.waiting.load(SeqCst) == 1).await;
    site.launcher.crash(site.first_vm().await, ExitReason::Died("signal 9 (SIGKILL)".into()));
    // The request is idempotent, so it is sent again: to the other guest, which does not answer it either.
    until(|| guests[1].memory.waiting.load(SeqCst) == 1).await;
    assert_eq!(guests[1].memory.asked.lock().1, ["a"]);
    drop(client);
    until(|| guests[1].resets() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_one_tenancy_per_pool() {
    let (one, two) = (Guest::start().await, Guest::start().await);
    let mut pools = ["p", "q"].map(weir_pool::fake::pool);
    for pool in &mut pools {
        pool.isolation = Isolation::Connection;
        (pool.soft_limit, pool.hard_limit, pool.scale.max) = (1, 1, 1);
    }
    let mut config = weir_pool::fake::config(pools);
    let any = weir_config::model::HostPattern::Any;
    config.routes =
        ["p", "q"].map(|pool| crate::site::route(pool, any.clone(), &format!("/{pool}"), pool)).into();
    let site = Site::start(config, one.script()).await;
    site.launcher.script_next(one.script());
    site.launcher.script_next(two.script());
    let mut client = Client::connect(site.address).await;
    for before in ["", "a", "a,a"] {
        for pool in ["p", "q"] {
            client.send(&format!("GET /{pool} HTTP/1.1\r\nhost: a\r\nwho: a\r\n\r\n")).await;
            assert_eq!(client.response().await.text(), before);
        }
    }
    drop(client);
    until(|| (one.resets(), two.resets()) == (1, 1)).await;
}

// Each connection to a VM ends with a reset on weir's side, so that none waits in TIME-WAIT for a port's worth of time.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_s_connection_to_its_vm_is_reset_with_it() {
    let ended = Arc::new(Mutex::new(Vec::new()));
    let tell = ended.clone();
    let backend = Backend::start(move |mut connection| {
        let tell = tell.clone();
        async move {
            connection.request().await;
            connection.answer(b"ok").await;
            let end = tokio::io::AsyncReadExt::read(&mut connection.stream, &mut [0; 16]).await;
            tell.lock().push(end.map_err(|error| error.kind()));
        }
    })
    .await;
    let site = Site::start(isolated(Isolation::Request, 1), ready(backend.address)).await;
    for _ in 0..3 {
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        assert_eq!(ask(site.address, request).await.text(), "ok");
    }
    until(|| ended.lock().len() == 3).await;
    assert_eq!(*ended.lock(), [Err(std::io::ErrorKind::ConnectionReset); 3]);
}
