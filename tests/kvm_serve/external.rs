//! Servers outside, in the host's network namespace, beside VMs in weir's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::support::{Weir, one_pool};

/// A server of this process's network; it ends with the test. Answers every GET with `old site`.
pub(crate) fn old_site() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nold site";
            if reader.get_mut().write_all(answer).is_err() {
                return;
            }
        }
        line.clear();
    }
}

/// A pool of VMs for everything, and one of `address` below `/old`.
pub(crate) fn config(address: &str) -> String {
    one_pool("hello", "", "min = 0\nmax = 1\nidle_timeout = \"60s\"")
        + &format!(
            "[pool.old]\nkind = \"external\"\naddresses = [\"{address}\"]\n\
             [[route]]\nname = \"old\"\npath = \"/old\"\npool = \"old\"\n"
        )
}

#[test]
fn a_server_of_the_host_s_network_is_served_beside_vms() {
    let server = old_site();
    for address in [server.to_string(), format!("localhost:{}", server.port())] {
        let mut weir = Weir::start(&config(&address));
        let old = weir.curl(&["/old"]);
        assert_eq!((old.status, old.body_text()), (200, "old site".to_owned()), "{address}: {old:?}");
        assert_eq!(weir.access_line()["pool"], "old");
        let new = weir.curl(&["/"]);
        assert_eq!(new.status, 200, "{new:?}");
        assert_eq!(weir.access_line()["pool"], "p");
        assert_eq!(weir.metric("weir_upstream_servers", "state=\"in_service\""), 1.0);
        assert_eq!(weir.metric("weir_vm_instances", "pool=\"p\",state=\"ready\""), 1.0);
    }
}
