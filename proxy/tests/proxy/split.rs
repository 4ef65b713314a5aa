//! Routes that divide their requests among several pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_config::model::{Config, Destination, External, Kind, Route, ServerAddress};
use weir_pool::fake;

use crate::actions::routed;
use crate::backend::Backend;
use crate::client::{Client, get};
use crate::site::{Site, ready, until};

/// A site's configuration with these routes; each of the pools, which the routes have to be given as well, has the server
/// of its name.
pub(crate) fn with_servers(routes: &str, servers: &[(&str, &Backend)]) -> Config {
    let pools: String = servers.iter().map(|(name, _)| format!("[pool.{name}]\nimage = 'hello'\n")).collect();
    let mut config = routed(&format!("{pools}{routes}"));
    for (name, server) in servers {
        let mut pool = fake::pool(name);
        let addresses = vec![ServerAddress::Ip(server.address)];
        pool.kind = Kind::External(External { addresses, resolve: std::time::Duration::from_secs(30) });
        config.pools.insert((*name).to_owned(), Arc::new(pool));
    }
    config
}

fn nobody() -> weir_pool::fake::Script {
    ready(([127, 0, 0, 1], 9).into())
}

/// Who answered so many requests.
async fn names(site: &Site, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Client::connect(site.address).await;
    let mut names = BTreeMap::new();
    for _ in 0..requests {
        client.send("GET /name HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        *names.entry(client.response().await.text().to_owned()).or_default() += 1;
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_pools_by_their_weights_and_a_reload_changes_those() {
    let (old, new) = (Backend::echo("old").await, Backend::echo("new").await);
    let routes = "[[route]]\nname = 'r'\npools = [{ pool = 'a', weight = 1 }, { pool = 'b', weight = 1 }]\n";
    let site = Site::start(with_servers(routes, &[("a", &old), ("b", &new)]), nobody()).await;
    // 60 tosses of a coin come up all alike once in 2^59.
    let both = names(&site, 60).await;
    assert_eq!(both.len(), 2, "{both:?}");
    let count = |pool: &str| {
        site.metric(&format!(r#"weir_http_requests_total{{code="200",pool="{pool}",route="r"}}"#))
    };
    // A request is counted after its response.
    until(|| (count("a"), count("b")) == (Some(both["old"] as f64), Some(both["new"] as f64))).await;
    for (weights, name) in [([0, 7], "new"), ([1, 0], "old")] {
        site.reload(|config| {
            let route = Arc::make_mut(&mut config.routes[0]);
            let Destination::Split(shares) = &mut route.to else { panic!("it is divided") };
            for (share, weight) in shares.iter_mut().zip(weights) {
                share.weight = weight;
            }
        })
        .await;
        assert_eq!(names(&site, 20).await, BTreeMap::from([(name.to_owned(), 20)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_weight_is_not_woken_and_the_log_names_who_served() {
    let (old, new) = (Backend::echo("old").await, Backend::echo("new").await);
    let routes = "[pool.q]\nimage = 'hello'\n\
                  [[route]]\npools = [{ pool = 'q', weight = 0 }, { pool = 'b', weight = 3 }]\n";
    let mut config = with_servers(routes, &[("b", &new)]);
    config.pools.insert("q".to_owned(), Arc::new(fake::pool("q")));
    let site = Site::start(config, ready(old.address)).await;
    assert_eq!(get(site.address, "/name").await.text(), "new");
    assert!(site.launcher.started().is_empty());
    site.reload(|config| {
        let route: &mut Route = Arc::make_mut(&mut config.routes[0]);
        route.to = Destination::Pool("q".to_owned());
    })
    .await;
    assert_eq!(get(site.address, "/name?2").await.status(), 200);
    assert_eq!(site.launcher.started().len(), 1);
    let (_, log) = site.end().await;
    let pools: Vec<_> = log.iter().map(|line| line["pool"].as_str().unwrap()).collect();
    assert_eq!(pools, ["b", "q"]);
}
