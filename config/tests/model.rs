//! What valid texts mean: defaults, normal forms, derived names.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use weir_config::{
    Affinity, Breaker, Class, Destination, Filter, Health, HostPattern, Idle, Isolation, Kind, LoadError,
    Origins, Overflow, Piece, Quarantine, Queue, Retry, Rewrite, Schedule, ServerAddress, SessionCookie,
    Share, Thousandths, VmLimits, load, parse,
};

const MINIMAL: &str = "[[listener]]\naddress = '127.0.0.1:8080'\n[pool.hello]\nimage = 'hello'\n";

#[test]
fn defaults() {
    let config = parse(MINIMAL, "test").expect("valid");
    assert_eq!(config.admin, None);
    assert_eq!(config.routes, []);
    assert_eq!((config.host.memory, config.host.max_vms), (8 << 30, 512));
    assert_eq!(config.host.network.to_string(), "10.88.0.0/16");
    assert_eq!((config.host.snapshots, config.host.max_starts), (None, 16));
    assert_eq!(config.host.trusted_proxies, []);
    let pool = &config.pools["hello"];
    assert_eq!((pool.name.as_str(), &pool.kind, pool.image.as_str()), ("hello", &Kind::Unikernel, "hello"));
    assert_eq!((pool.port, pool.vcpus, pool.memory), (8080, 1, 16 << 20));
    assert!(pool.env.is_empty() && pool.args.is_empty());
    assert_eq!((pool.soft_limit, pool.hard_limit), (16, 64));
    assert_eq!(pool.start_timeout, Duration::from_secs(5));
    assert_eq!((pool.scale.min, pool.scale.max), (0, 64));
    assert_eq!([pool.scale.idle_timeout, pool.scale.keep_last], [Duration::from_secs(30); 2]);
    assert_eq!((pool.queue.max_pending, pool.queue.timeout), (1000, Duration::from_secs(10)));
    assert_eq!(pool.isolation, Isolation::Vm);
    let Health { path, timeout, interval, unhealthy_after } = &pool.health;
    assert_eq!((path, unhealthy_after), (&None, &3));
    assert_eq!((*timeout, *interval), (Duration::from_secs(1), Duration::from_secs(5)));
    let VmLimits { cpu_weight, cpu_quota, send_rate, receive_rate, send_packets, receive_packets, log_lines } =
        pool.limits;
    assert_eq!((cpu_weight, cpu_quota, log_lines), (100, None, 100));
    assert_eq!([send_rate, receive_rate, send_packets, receive_packets], [None; 4]);
}

#[test]
fn defaults_of_what_follows_the_load() {
    let config = parse(MINIMAL, "test").expect("valid");
    let default = Class { name: "default".to_owned(), weight: 1 };
    assert_eq!(config.classes.into_values().map(|class| (*class).clone()).collect::<Vec<_>>(), [default]);
    let pool = &config.pools["hello"];
    let scale = &pool.scale;
    assert_eq!((pool.weight, scale.idle, scale.schedule.as_slice()), (1, Idle::Parked, &[][..]));
    assert_eq!([scale.stable_window, scale.panic_window].map(|window| window.as_secs()), [30, 3]);
    let ratios = [scale.panic_threshold, scale.max_up_rate, scale.max_down_rate];
    assert_eq!(ratios, [2_000, 1_000_000, 2_000].map(Thousandths));
    assert_eq!((pool.queue.overflow, pool.queue.max_memory), (Overflow::Wait, 16 << 20));
    assert_eq!(pool.retry, Retry { budget: Thousandths(200), floor: 10 });
    assert_eq!(pool.quarantine, Quarantine { kills: 2, duration: Duration::from_secs(60) });
    assert_eq!(pool.signal, None);
}

#[test]
fn written_values_replace_defaults() {
    let text = r#"
[[listener]]
address = "[::1]:80"
[admin]
address = "127.0.0.1:0"
[host]
memory = "1GB"
max_vms = 2
network = "192.168.7.0/30"
snapshots = "/var/lib/weir"
[pool.a]
kind = "unikernel"
image = "./a.elf"
port = 1
vcpus = 1
memory = "8MiB"
env = { A = "b" }
args = ["c", "d"]
soft_limit = 1
hard_limit = 2
start_timeout = "1m30s"
scale = { min = 1, max = 2, idle_timeout = "1h" }
queue = { max_pending = 1, timeout = "500ms" }
"#;
    let config = parse(text, "test").expect("valid");
    assert_eq!(config.listeners[0].address.to_string(), "[::1]:80");
    assert_eq!(config.admin.expect("written").address.to_string(), "127.0.0.1:0");
    assert_eq!((config.host.memory, config.host.max_vms), (1_000_000_000, 2));
    assert_eq!(config.host.network.to_string(), "192.168.7.0/30");
    let pool = &config.pools["a"];
    assert_eq!((pool.image.as_str(), pool.port, pool.memory), ("./a.elf", 1, 8 << 20));
    assert_eq!((pool.env["A"].as_str(), pool.args.join(" ").as_str()), ("b", "c d"));
    assert_eq!((pool.soft_limit, pool.hard_limit), (1, 2));
    assert_eq!(pool.start_timeout, Duration::from_secs(90));
    assert_eq!((pool.scale.min, pool.scale.max), (1, 2));
    // As long as any, unless it says otherwise.
    assert_eq!([pool.scale.idle_timeout, pool.scale.keep_last], [Duration::from_secs(3600); 2]);
    assert_eq!((pool.queue.max_pending, pool.queue.timeout), (1, Duration::from_millis(500)));
    assert_eq!(config.host.snapshots.as_deref(), Some(Path::new("/var/lib/weir")));
}

#[test]
fn written_health_and_limits_replace_defaults() {
    let keys = r#"
[pool.hello.health]
path = "/up?full=1"
timeout = "250ms"
interval = "1m"
unhealthy_after = 7
[pool.hello.limits]
cpu_weight = 10000
cpu_quota = 1.25
send_rate = "10MiB"
receive_rate = "1B"
send_packets = 1000
receive_packets = 1
log_lines = 5
"#;
    let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
    let pool = &config.pools["hello"];
    assert_eq!(
        pool.health,
        Health {
            path: Some("/up?full=1".to_owned()),
            timeout: Duration::from_millis(250),
            interval: Duration::from_secs(60),
            unhealthy_after: 7,
        }
    );
    assert_eq!(
        pool.limits,
        VmLimits {
            cpu_weight: 10_000,
            cpu_quota: Some(1250),
            send_rate: NonZeroU64::new(10 << 20),
            receive_rate: NonZeroU64::new(1),
            send_packets: NonZeroU64::new(1000),
            receive_packets: NonZeroU64::new(1),
            log_lines: 5,
        }
    );
}

#[test]
fn what_follows_the_load_replaces_defaults() {
    let keys = r#"
weight = 7
queue = { max_pending = 2, timeout = "1s", overflow = "reject", max_memory = "1MiB" }
retry = { budget = 0.05, floor = 0 }
quarantine = { kills = 5, duration = "5m" }
[pool.hello.scale]
stable_window = "2m"
panic_window = "6s"
keep_last = "5m"
panic_threshold = 1.25
max_up_rate = 4
max_down_rate = 1.5
idle = "unused"
[host]
max_starts = 3
"#;
    let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
    assert_eq!(config.host.max_starts, 3);
    let pool = &config.pools["hello"];
    let scale = &pool.scale;
    assert_eq!((pool.weight, scale.idle), (7, Idle::Unused));
    assert_eq!([scale.stable_window, scale.panic_window].map(|window| window.as_secs()), [120, 6]);
    assert_eq!(scale.keep_last, Duration::from_secs(300));
    let ratios = [scale.panic_threshold, scale.max_up_rate, scale.max_down_rate];
    assert_eq!(ratios, [1_250, 4_000, 1_500].map(Thousandths));
    let timeout = Duration::from_secs(1);
    assert_eq!(
        pool.queue,
        Queue { max_pending: 2, max_memory: 1 << 20, timeout, overflow: Overflow::Reject }
    );
    assert_eq!(pool.retry, Retry { budget: Thousandths(50), floor: 0 });
    assert_eq!(pool.quarantine, Quarantine { kills: 5, duration: Duration::from_secs(300) });
}

#[test]
fn schedules_keep_their_order() {
    let keys = r#"
[[pool.hello.scale.schedule]]
days = ["fri", "mon"]
from = "22:30"
to = "06:05"
min = 4
[[pool.hello.scale.schedule]]
from = "00:00"
to = "24:00"
min = 0
"#;
    let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
    let days = [true, false, false, false, true, false, false];
    assert_eq!(
        config.pools["hello"].scale.schedule,
        [
            Schedule { days, from: 22 * 60 + 30, to: 6 * 60 + 5, min: 4 },
            Schedule { days: [true; 7], from: 0, to: 24 * 60, min: 0 },
        ]
    );
}

#[test]
fn a_signal_has_its_defaults_and_its_parsed_metric() {
    let keys = "[pool.hello.signal]\nscrape = '/metrics'\nmetric = 'jobs{kind=\"mail\"}'\ntarget = 2.5\n";
    let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
    let signal = config.pools["hello"].signal.as_ref().expect("written");
    assert_eq!(
        (signal.scrape.as_str(), signal.target, signal.weights),
        ("/metrics", Thousandths(2_500), false)
    );
    assert_eq!([signal.interval, signal.timeout].map(|time| time.as_millis()), [1000, 500]);
    assert_eq!((signal.metric.text.as_str(), signal.metric.name.as_str()), ("jobs{kind=\"mail\"}", "jobs"));
    assert_eq!(signal.metric.labels, [("kind".to_owned(), "mail".to_owned())].into());

    let more = "interval = '5s'\ntimeout = '2s'\nweights = true";
    let config = parse(&format!("{MINIMAL}{keys}{more}"), "test").expect("valid");
    let signal = config.pools["hello"].signal.as_ref().expect("written");
    assert_eq!([signal.interval, signal.timeout].map(|time| time.as_secs()), [5, 2]);
    assert!(signal.weights);
}

#[test]
fn routes_have_their_classes() {
    let keys = r#"
[class.interactive]
weight = 8
[class.default]
weight = 2
[[route]]
pool = "hello"
class = "interactive"
[[route]]
pool = "hello"
path = "/b"
"#;
    let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
    let class = |name: &str, weight| Class { name: name.to_owned(), weight };
    assert_eq!(*config.routes[0].class, class("interactive", 8));
    assert_eq!(*config.routes[1].class, class("default", 2));
    assert_eq!(config.classes.keys().collect::<Vec<_>>(), ["default", "interactive"]);
}

#[test]
fn a_vm_that_is_reset_has_one_tenant_at_a_time() {
    for (keys, isolation, limits) in [
        ("", Isolation::Vm, (16, 64)),
        ("isolation = 'vm'\nsoft_limit = 3", Isolation::Vm, (3, 64)),
        ("isolation = 'connection'", Isolation::Connection, (1, 1)),
        ("isolation = 'request'\nhard_limit = 1", Isolation::Request, (1, 1)),
    ] {
        let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
        let pool = &config.pools["hello"];
        assert_eq!((pool.isolation, (pool.soft_limit, pool.hard_limit)), (isolation, limits), "{keys}");
    }
}

#[test]
fn quotas_are_exact_thousandths() {
    for (text, milli) in [
        ("0.01", 10),
        ("0.5", 500),
        ("+0.5", 500),
        ("0.333", 333),
        ("0.2500000", 250),
        ("1", 1000),
        ("1.0", 1000),
        ("1_0.5", 10_500),
        ("1024", 1_024_000),
    ] {
        let config = parse(&format!("{MINIMAL}limits.cpu_quota = {text}"), "test").expect("valid");
        assert_eq!(config.pools["hello"].limits.cpu_quota, Some(milli), "{text}");
    }
}

#[test]
fn routes_keep_their_order_and_get_normal_forms_and_names() {
    let routes = [
        ("", "*/", HostPattern::Any, "/"),
        ("path = '/a%62/'", "*/ab", HostPattern::Any, "/ab"),
        ("host = 'B.example'", "b.example/", HostPattern::Exact("b.example".to_owned()), "/"),
        (
            "host = '*.B.example'\npath = '/x'",
            "*.b.example/x",
            HostPattern::Suffix("b.example".to_owned()),
            "/x",
        ),
        ("name = 'named'\npath = '/n'", "named", HostPattern::Any, "/n"),
    ];
    let text: String =
        routes.iter().map(|(keys, ..)| format!("[[route]]\npool = 'hello'\n{keys}\n")).collect();
    let config = parse(&format!("{MINIMAL}{text}"), "test").expect("valid");
    assert_eq!(config.routes.len(), routes.len());
    for (route, (_, name, host, path)) in config.routes.iter().zip(routes) {
        assert_eq!((route.name.as_str(), &route.host, route.path.as_str()), (name, &host, path));
        assert!(route.pools().eq(["hello"]));
    }
}

#[test]
fn files_are_loaded() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("weir.toml");

    let error = load(&path).unwrap_err();
    assert!(matches!(&error, LoadError::Read { path: missing, .. } if *missing == path));
    assert_eq!(error.to_string(), format!("read {}", path.display()));

    std::fs::write(&path, b"a = '\xff'").expect("write");
    assert!(matches!(load(&path), Err(LoadError::Read { .. })));

    std::fs::write(&path, "").expect("write");
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}:1:1: listener: at least one [[listener]] is needed", path.display()));

    std::fs::write(&path, MINIMAL).expect("write");
    assert_eq!(load(&path).expect("valid"), parse(MINIMAL, "test").expect("valid"));
    assert!(matches!(load(Path::new("/")), Err(LoadError::Read { .. })));
}

#[test]
fn what_is_no_configuration_file_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let sparse = directory.path().join("sparse");
    let file = std::fs::File::create(&sparse).expect("create");
    file.set_len(1 << 40).expect("make it large");
    for path in [sparse.as_path(), directory.path(), std::path::Path::new("/dev/zero")] {
        let error = weir_config::load(path).expect_err("no configuration");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn an_external_pool_has_servers() {
    let text = r#"
[[listener]]
address = "127.0.0.1:80"
[pool.old]
kind = "external"
addresses = ["127.0.0.1:3000", "Legacy.Internal:80", "[::1]:3000"]
resolve = "5s"
hard_limit = 2000
health = { path = "/up" }
[[route]]
pool = "old"
"#;
    let config = parse(text, "test").expect("valid");
    let pool = &config.pools["old"];
    let external = pool.external().expect("it is one");
    let addresses: Vec<_> = external.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:3000", "legacy.internal:80", "[::1]:3000"]);
    assert!(
        matches!(&external.addresses[1], ServerAddress::Name { name, port: 80 } if name == "legacy.internal")
    );
    assert_eq!(external.resolve, Duration::from_secs(5));
    assert_eq!((pool.soft_limit, pool.hard_limit, pool.isolation), (1024, 2000, Isolation::Vm));
    assert_eq!((pool.scale.min, pool.scale.max), (0, 0), "it takes no room of the host's");
    assert_eq!(pool.health.path.as_deref(), Some("/up"));
    let default = parse(&text.replace("resolve = \"5s\"\n", ""), "test").expect("valid");
    assert_eq!(default.pools["old"].external().expect("it is one").resolve, Duration::from_secs(30));
}

#[test]
fn routes_answer_redirect_and_rewrite() {
    let routes = r#"
[[route]]
path = "/up"
methods = ["GET", "HEAD"]
respond = { body = "fine", headers = { x-a = "b" } }
[[route]]
path = "/old"
redirect = { to = "https://{host}/new{path}?a{query}" }
[[route]]
pool = "hello"
rewrite = { prefix = "/%61/" }
[[route]]
path = "/x"
pool = "hello"
rewrite = { regex = "^/x(.*)", to = "/$1" }
"#;
    let config = parse(&format!("{MINIMAL}{routes}"), "test").expect("valid");
    let [up, old, prefix, pattern] = &config.routes[..] else { panic!("four routes") };
    let Destination::Respond(respond) = &up.to else { panic!("{up:?}") };
    assert_eq!((respond.status.as_u16(), respond.body.as_str()), (200, "fine"));
    assert_eq!(respond.headers, [("x-a".parse().unwrap(), "b".parse().unwrap())]);
    assert_eq!(up.methods.as_deref(), Some(&["GET", "HEAD"].map(|name| name.parse().unwrap())[..]));
    assert_eq!((up.pools().count(), &prefix.methods), (0, &None));
    assert!(prefix.pools().eq(["hello"]));
    let text = |text: &str| Piece::Text(text.to_owned());
    let to = [text("https://"), Piece::Host, text("/new"), Piece::Path, text("?a"), Piece::Query];
    let Destination::Redirect(redirect) = &old.to else { panic!("{old:?}") };
    assert_eq!((redirect.status.as_u16(), &redirect.to[..]), (308, &to[..]));
    assert_eq!(prefix.rewrite, Some(Rewrite::Prefix("/a".to_owned())));
    let Some(Rewrite::Pattern { pattern, to }) = &pattern.rewrite else { panic!("{pattern:?}") };
    assert_eq!((pattern.regex().as_str(), to.as_str()), ("^/x(.*)", "/$1"));
}

#[test]
fn filters_are_read() {
    let keys = r#"
[[route]]
pool = "hello"
[route.filter]
allow = ["10.0.0.0/8", "::1"]
deny = ["10.1.0.0/16"]
max_body = "1MiB"
max_header = "8KiB"
max_in_flight_per_client = 3
remove_request_headers = ["x-a"]
set_response_headers = { x-b = "c" }
[route.cors]
origins = ["*"]
[[route]]
path = "/x"
pool = "hello"
"#;
    let config = parse(&format!("{MINIMAL}{keys}"), "test").expect("valid");
    let [route, plain] = &config.routes[..] else { panic!("two routes") };
    let filter = &route.filter;
    let text = |networks: &[ipnetwork::IpNetwork]| -> Vec<String> {
        networks.iter().map(ToString::to_string).collect()
    };
    assert_eq!(text(filter.allow.as_deref().expect("written")), ["10.0.0.0/8", "::1/128"]);
    assert_eq!(text(&filter.deny), ["10.1.0.0/16"]);
    let limits = (filter.max_body, filter.max_header, filter.max_in_flight_per_client);
    assert_eq!(limits, (Some(1 << 20), Some(8 << 10), Some(3)));
    assert_eq!(filter.request.remove, ["x-a"]);
    assert_eq!(filter.response.set, [("x-b".parse().unwrap(), "c".parse().unwrap())]);
    let cors = route.cors.as_ref().expect("written");
    assert_eq!(
        (&cors.origins, cors.credentials, cors.max_age),
        (&Origins::Any, false, Duration::from_secs(5))
    );
    assert_eq!(cors.methods, ["GET", "HEAD", "POST"]);
    assert_eq!((&plain.filter, &plain.cors), (&Filter::default(), &None));
}

#[test]
fn what_helps_against_pools_that_do_not_serve_is_read() {
    let more = r#"
[pool.other]
image = "hello"
[pool.other.breaker]
failures = 7
ratio = 0.25
max_in_flight = 9
[[route]]
path = "/split"
pools = [{ pool = "hello", weight = 95 }, { pool = "third", weight = 0 }]
fallback = "other"
affinity = { cookie = "w", max_age = "1h" }
maintenance = { status = 500, retry_after = "1m" }
[pool.third]
image = "hello"
"#;
    let config = parse(&format!("{MINIMAL}{more}"), "test").expect("valid");
    let expected =
        Breaker { failures: 7, ratio: Thousandths(250), max_in_flight: Some(9), ..Breaker::default() };
    assert_eq!(config.pools["other"].breaker, Some(expected));
    assert_eq!(config.pools["hello"].breaker, None);
    let route = config.routes.last().expect("it is there");
    let share = |pool: &str, weight| Share { pool: pool.to_owned(), weight };
    assert_eq!(route.to, Destination::Split(vec![share("hello", 95), share("third", 0)]));
    let max_age = Some(Duration::from_secs(3600));
    assert_eq!(route.affinity, Some(Affinity::Session(SessionCookie { name: "w".to_owned(), max_age })));
    assert!(route.pools().eq(["hello", "third", "other"]));
    let maintenance = route.instead.maintenance.as_ref().expect("written");
    assert_eq!((maintenance.status.as_u16(), maintenance.retry_after), (500, Some(Duration::from_secs(60))));
    assert_eq!((&maintenance.page, maintenance.allow.len()), (&None, 0));
}
