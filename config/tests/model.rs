//! What valid texts mean: defaults, normal forms, derived names.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use weir_config::{Health, HostPattern, Isolation, Kind, LoadError, VmLimits, load, parse};

const MINIMAL: &str = "[[listener]]\naddress = '127.0.0.1:8080'\n[pool.hello]\nimage = 'hello'\n";

#[test]
fn defaults() {
    let config = parse(MINIMAL, "test").expect("valid");
    assert_eq!(config.admin, None);
    assert_eq!(config.routes, []);
    assert_eq!((config.host.memory, config.host.max_vms), (8 << 30, 512));
    assert_eq!(config.host.network.to_string(), "10.88.0.0/16");
    assert_eq!(config.host.snapshots, None);
    let pool = &config.pools["hello"];
    assert_eq!((pool.name.as_str(), pool.kind, pool.image.as_str()), ("hello", Kind::Unikernel, "hello"));
    assert_eq!((pool.port, pool.vcpus, pool.memory), (8080, 1, 16 << 20));
    assert!(pool.env.is_empty() && pool.args.is_empty());
    assert_eq!((pool.soft_limit, pool.hard_limit), (16, 64));
    assert_eq!(pool.start_timeout, Duration::from_secs(5));
    assert_eq!((pool.scale.min, pool.scale.max), (0, 64));
    assert_eq!(pool.scale.idle_timeout, Duration::from_secs(30));
    assert_eq!((pool.queue.max_pending, pool.queue.timeout), (1000, Duration::from_secs(10)));
    assert_eq!(pool.isolation, Isolation::Vm);
    assert_eq!(pool.health, Health { path: None, timeout: Duration::from_secs(1) });
    let VmLimits { cpu_weight, cpu_quota, send_rate, receive_rate, send_packets, receive_packets, log_lines } =
        pool.limits;
    assert_eq!((cpu_weight, cpu_quota, log_lines), (100, None, 100));
    assert_eq!([send_rate, receive_rate, send_packets, receive_packets], [None; 4]);
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
    assert_eq!(pool.scale.idle_timeout, Duration::from_secs(3600));
    assert_eq!((pool.queue.max_pending, pool.queue.timeout), (1, Duration::from_millis(500)));
    assert_eq!(config.host.snapshots.as_deref(), Some(Path::new("/var/lib/weir")));
}

#[test]
fn written_health_and_limits_replace_defaults() {
    let keys = r#"
[pool.hello.health]
path = "/up?full=1"
timeout = "250ms"
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
        Health { path: Some("/up?full=1".to_owned()), timeout: Duration::from_millis(250) }
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
        assert_eq!(route.pool, "hello");
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
