//! gRPC as its own library speaks it (Python's), over TLS to weir and in plain text from there.

use std::net::TcpListener;
use std::process::Stdio;

use crate::running::{Running, python};
use crate::secure::certificate;
use crate::support::Weir;

/// The service and its client.
const CALLS: &str = include_str!("grpc/calls.py");

#[test]
fn calls_of_all_kinds_go_through_and_refusals_have_their_status() {
    let directory = tempfile::tempdir().expect("make a directory");
    let (server, port) = Running::server(CALLS, &["serve"]);
    let tls = certificate(directory.path(), "a.example");
    // Bound and not listening: whoever connects is refused, and nobody else can have the port.
    let gone = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("its address");
    let weir = Weir::start(&format!(
        "[[listener]]\naddress = '127.0.0.1:0'\n{tls}\
         [admin]\naddress = '127.0.0.1:0'\n\
         [pool.calls]\nkind = 'external'\nprotocol = 'h2c'\naddresses = ['127.0.0.1:{port}']\n\
         [pool.gone]\nkind = 'external'\nprotocol = 'h2c'\naddresses = ['{gone}']\nqueue.timeout = '100ms'\n\
         [[route]]\npath = '/test.Calls'\npool = 'calls'\n\
         [[route]]\npath = '/test.Gone'\npool = 'gone'\n"
    ));
    let root = directory.path().join("a.example.pem").display().to_string();
    let mut client = python(CALLS);
    client.args(["call", &weir.http.port().to_string(), &root, "a.example"]).stdin(Stdio::null());
    let output = client.output().expect("run the client");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = [
        "unary b'SOME'",
        "server yes [b'0', b'1', b'2']",
        "client True",
        "both [b'echo one', b'echo two', b'echo three']",
        r"application FAILED_PRECONDITION b'\x00\xff' True",
        "deadline DEADLINE_EXCEEDED None False",
        "unknown UNIMPLEMENTED None False",
        "gone UNAVAILABLE queue_timeout False",
        "nobody UNIMPLEMENTED no_route False",
    ];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines, expected, "{}", String::from_utf8_lossy(&output.stderr));
    // The one that was given up is over for the server, too.
    server.says("ended");
}
