//! Pools on a host that has room for one VM.

use crate::client::Client;
use crate::support::Weir;

const CONFIG: &str = r#"
[[listener]]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[host]
max_vms = 1
[pool.a]
image = "hello"
scale.idle_timeout = "10m"
[pool.b]
image = "hello"
scale.idle_timeout = "10m"
[[route]]
host = "a.test"
pool = "a"
[[route]]
host = "b.test"
pool = "b"
"#;

#[test]
fn an_idle_vm_of_one_pool_makes_way_for_another_s() {
    let weir = Weir::start(CONFIG);
    weir.until_templates(2);
    for host in ["a.test", "b.test", "a.test", "b.test"] {
        Client::connect_to(weir.http, host).body("/");
    }
    assert_eq!(weir.metric("weir_vm_exits_total", "reason=\"stopped\""), 3.0);
    assert_eq!(weir.metric("weir_vm_instances", "state=\"ready\""), 1.0);
}
