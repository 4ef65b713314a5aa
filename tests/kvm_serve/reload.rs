//! Configurations that change while weir serves.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::rollout::{under_load, vms};
use crate::support::{Weir, get, one_pool};

/// Has weir read `config`; what it says of it.
fn reload(weir: &Weir, config: &str) -> String {
    weir.configure(config);
    weir.signal("HUP");
    text(&weir.logged("configuration reloaded"), "change")
}

fn text(line: &Value, field: &str) -> String {
    line["fields"][field].as_str().expect("a text").to_owned()
}

fn reloads(weir: &Weir, result: &str) -> f64 {
    weir.metric("weir_config_reloads_total", &format!("result=\"{result}\""))
}

#[test]
fn pools_routes_and_listeners_come_and_go_under_load() {
    let pool = "[pool.p.health]\npath = \"/\"";
    let base = one_pool("hello", pool, "min = 1\nmax = 4");
    let more = format!(
        "{base}[[listener]]\naddress = \"127.0.0.1:0\"\n[pool.q]\nimage = \"hello\"\n\
         [[route]]\nname = \"q\"\npath = \"/q\"\npool = \"q\"\nrewrite.prefix = \"/\"\n"
    );
    let weir = Weir::start(&base);
    weir.logged("template ready");
    under_load(weir.http, || {
        weir.configure(&more);
        weir.signal("HUP");
        let line = weir.wait_for("another listener", |line| line["fields"]["key"] == "listener");
        let second: SocketAddr = text(&line, "address").parse().expect("an address");
        let change = text(&weir.logged("configuration reloaded"), "change");
        assert_eq!(change, "1 pools added, 1 listeners added, 2 routes read");
        assert_eq!((get(weir.http, "/q").status, get(second, "/").status), (200, 200));
        assert_eq!(weir.metric("weir_http_requests_total", "route=\"q\""), 1.0);
        let change = reload(&weir, &base);
        assert_eq!(change, "1 pools removed, 1 listeners removed, 1 routes read");
        weir.until("its listener is closed", || TcpStream::connect(second).is_err());
        weir.logged("pool removed");
        assert_eq!(get(weir.http, "/q").status, 404, "a VM of the other pool does not know it");
        assert_eq!(weir.metric("weir_http_requests_total", "route=\"q\""), 1.0, "it is the other route's");
    });
    assert_eq!((reloads(&weir, "ok"), reloads(&weir, "failed")), (2.0, 0.0));
}

#[test]
fn other_machines_take_over_under_load() {
    let config = |memory| one_pool("hello", &format!("memory = \"{memory}MiB\""), "min = 2\nmax = 4");
    let weir = Weir::start(&config(16));
    weir.until("they are ready", || weir.metric("weir_vm_instances", "state=\"ready\"") == 2.0);
    let before = vms(&weir);
    under_load(weir.http, || {
        assert_eq!(reload(&weir, &config(24)), "1 pools changed, 1 routes read");
        let ended = weir.logged("restart ended");
        assert_eq!(ended["fields"]["result"], "done");
    });
    weir.until("the earlier ones are gone", || vms(&weir).is_disjoint(&before));
    assert!(vms(&weir).iter().all(|(_, revision)| *revision == 2));
}

#[test]
fn a_file_that_is_replaced_is_read_and_a_broken_one_changes_nothing() {
    let base = one_pool("hello", "", "min = 0\nmax = 4");
    let weir = Weir::start(&base);
    let broken = format!("{base}[[route]]\npath = \"/x\"\npool = \"nobody\"\nextra = 1\n");
    let network = format!("{base}[host]\nnetwork = \"10.99.0.0/16\"\n");
    let image = base.replace("\"hello\"", "\"/no/such/image\"");
    for (config, by_itself, whys) in [
        (broken, true, &["no pool is named \"nobody\"", "extra: unknown key"][..]),
        (network, false, &["host.network changed, for which weir has to be started again"]),
        (image, false, &["/no/such/image"]),
        ("[[listener".to_owned(), false, &["weir.toml:1:"]),
    ] {
        weir.configure(&config);
        if !by_itself {
            weir.signal("HUP");
        }
        let error = text(&weir.logged("configuration not reloaded, the running one stays"), "error");
        assert!(whys.iter().all(|why| error.contains(why)), "{error}");
        assert_eq!(get(weir.http, "/").status, 200);
    }
    assert_eq!((reloads(&weir, "ok"), reloads(&weir, "failed")), (0.0, 4.0));
    weir.configure(&base);
    assert_eq!(text(&weir.logged("configuration reloaded"), "change"), "nothing changed");
}

#[test]
fn signals_that_mean_nothing_do_not_end_weir() {
    let base = one_pool("hello", "", "min = 0\nmax = 4");
    let mut weir = Weir::start(&base);
    weir.logged("ready");
    weir.signal("USR1");
    weir.signal("USR2");
    assert_eq!(reload(&weir, &base), "nothing changed");
    assert_eq!(get(weir.http, "/").status, 200);
    weir.signal("TERM");
    assert!(weir.wait().success());
}
