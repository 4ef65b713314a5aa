//! A running proxy.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_config::change::Change;
use weir_config::model::{Config, HostPattern, Listener, Route};
use weir_pool::fake::{self, Boot, FakeLauncher, Script};
use weir_pool::{OwnNetwork, Pool, PoolMetrics, Pools};
use weir_proxy::acme::Challenges;
use weir_proxy::otlp::{Otlp, OtlpMetrics};
use weir_proxy::{
    AccessLog, AccessLogWriter, Drained, ListenerChange, Metrics, Reloader, ServeError, Server, Timeouts,
    bind, bind_listener, listeners_to_bind, reloader, serve_reloadable,
};
use weir_vmm::VmId;

/// A hang is a failure, in time for the other tests.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(9), what).await.expect("the test hangs")
}

/// Looks until it is so.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What was written, for the test to read.
#[derive(Clone, Debug, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) launcher: Arc<FakeLauncher>,
    pub(crate) pools: Pools,
    registry: Registry,
    page: Page,
    writer: Option<AccessLogWriter>,
    otlp: Option<Otlp>,
    shutdown: watch::Sender<bool>,
    pub(crate) reloader: Reloader,
    config: Mutex<Arc<Config>>,
    pub(crate) serving: JoinHandle<Result<Drained, ServeError>>,
}

pub(crate) fn route(name: &str, host: HostPattern, path: &str, pool: &str) -> Arc<Route> {
    Arc::new(Route::to_pool(name, host, path, pool))
}

/// One pool `p` with a route for everything.
pub(crate) fn config() -> Config {
    config_with(|_| {})
}

/// As [`config`], with changes to the pool.
pub(crate) fn config_with(change: impl FnOnce(&mut weir_config::model::Pool)) -> Config {
    let mut pool = fake::pool("p");
    change(&mut pool);
    let mut config = fake::config([pool]);
    config.routes = vec![route("all", HostPattern::Any, "/", "p")];
    config
}

pub(crate) fn ready(address: SocketAddr) -> Script {
    Script::ready_after(Duration::ZERO, address)
}

pub(crate) fn silent(address: SocketAddr) -> Script {
    Script { address, ..Script::boot(Boot::Silent) }
}

impl Site {
    pub(crate) async fn start(config: Config, usual: Script) -> Self {
        Self::start_with(config, usual, Timeouts::default()).await
    }

    pub(crate) async fn start_with(mut config: Config, usual: Script, timeouts: Timeouts) -> Self {
        if config.listeners.is_empty() {
            config.listeners = vec![Listener::at("127.0.0.1:0".parse().unwrap())];
        }
        let listeners = bind(&config).unwrap();
        let address = listeners.addresses().unwrap()[0].ip().unwrap_or(([127, 0, 0, 1], 0).into());
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let launcher = FakeLauncher::new(usual);
        let pools =
            Pools::start(&config, launcher.clone(), PoolMetrics::register(&registry).unwrap()).unwrap();
        let page = Page::default();
        let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
        let (access_log, writer) = AccessLog::start(page.clone(), dropped).unwrap();
        let access_log =
            access_log.with_format(config.access_log.format).with_sample(config.access_log.sample);
        let otlp = OtlpMetrics::register(&registry).unwrap();
        let otlp = Otlp::start(&config, Arc::new(OwnNetwork), otlp).unwrap();
        let spans = otlp.as_ref().map(Otlp::spans);
        let (shutdown, watched) = watch::channel(false);
        let config = Arc::new(config);
        let (pools_too, challenges) = (pools.clone(), Challenges::default());
        let server = Server {
            config: config.clone(),
            listeners,
            pools: pools_too,
            metrics,
            access_log,
            spans,
            challenges,
            timeouts,
        };
        let (reloader, orders) = reloader();
        let serving = tokio::spawn(serve_reloadable(server, orders, watched));
        let (writer, config) = (Some(writer), Mutex::new(config));
        Self { address, launcher, pools, registry, page, writer, otlp, shutdown, reloader, config, serving }
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.pools.get("p").unwrap()
    }

    /// Waits until the first VM was started, which it is because a request waits.
    pub(crate) async fn first_vm(&self) -> VmId {
        until(|| !self.launcher.started().is_empty()).await;
        self.launcher.started()[0].id
    }

    /// The first line of the metrics that begins with `series`, its value.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Has the site become what `change` makes of its configuration, as weir does it.
    pub(crate) async fn reload(&self, change: impl FnOnce(&mut Config)) {
        let old = self.config.lock().unwrap().clone();
        let mut new = Config::clone(&old);
        change(&mut new);
        let (new, change) = (Arc::new(new.clone()), Change::between(&old, &new).unwrap());
        within(self.pools.stage(&change)).await.unwrap().commit().await;
        let sockets = listeners_to_bind(&change).map(|listener| bind_listener(listener).unwrap()).collect();
        let listeners = ListenerChange::new(&change, sockets).unwrap();
        within(self.reloader.reload(new.clone(), listeners)).await.unwrap();
        let gone = old.pools.keys().filter(|name| !new.pools.contains_key(*name));
        self.pools.retire(gone.map(String::as_str));
        *self.config.lock().unwrap() = new;
    }

    pub(crate) fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// Shuts down; how it ended, and the access log. A line is written after its response, so that the order of
    /// requests on different connections is open.
    pub(crate) async fn end(self) -> (Drained, Vec<serde_json::Value>) {
        let (drained, text) = self.end_with_text().await;
        (drained, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// As [`Self::end`], the access log as it is.
    pub(crate) async fn end_with_text(mut self) -> (Drained, String) {
        self.shut_down();
        let drained = within(&mut self.serving).await.unwrap().unwrap();
        // The connections' tasks hold the log until they have ended.
        let writer = self.writer.take().unwrap();
        within(tokio::task::spawn_blocking(move || writer.join())).await.unwrap().unwrap();
        if let Some(otlp) = self.otlp.take() {
            within(tokio::task::spawn_blocking(move || otlp.finish())).await.unwrap();
        }
        (drained, String::from_utf8(self.page.0.lock().unwrap().clone()).unwrap())
    }
}

/// The line of the request for this path.
pub(crate) fn line<'a>(log: &'a [serde_json::Value], path: &str) -> &'a serde_json::Value {
    log.iter().find(|line| line["path"] == path).unwrap()
}
