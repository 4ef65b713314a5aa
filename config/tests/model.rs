//! What valid texts mean: defaults, normal forms, derived names.

use std::path::Path;
use std::time::Duration;

use weir_config::{HostPattern, Kind, LoadError, load, parse};

const MINIMAL: &str = "[[listener]]\naddress = '127.0.0.1:8080'\n[pool.hello]\nimage = 'hello'\n";

#[test]
fn defaults() {
    let config = parse(MINIMAL, "test").expect("valid");
    assert_eq!(config.admin, None);
    assert_eq!(config.routes, []);
    assert_eq!((config.host.memory, config.host.max_vms), (8 << 30, 512));
    assert_eq!(config.host.network.to_string(), "10.88.0.0/16");
    let pool = &config.pools["hello"];
    assert_eq!((pool.name.as_str(), pool.kind, pool.image.as_str()), ("hello", Kind::Unikernel, "hello"));
    assert_eq!((pool.port, pool.vcpus, pool.memory), (8080, 1, 16 << 20));
    assert!(pool.env.is_empty() && pool.args.is_empty());
    assert_eq!((pool.soft_limit, pool.hard_limit), (16, 64));
    assert_eq!(pool.start_timeout, Duration::from_secs(5));
    assert_eq!((pool.scale.min, pool.scale.max), (0, 64));
    assert_eq!(pool.scale.idle_timeout, Duration::from_secs(30));
    assert_eq!((pool.queue.max_pending, pool.queue.timeout), (1000, Duration::from_secs(10)));
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
