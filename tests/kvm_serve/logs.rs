//! The access log's file.

use std::fs;
use std::path::Path;

use crate::support::{Weir, get, one_pool};

#[test]
fn a_file_is_left_to_whoever_rotates_it() {
    let log = "[access_log]\nformat = \"combined\"\nfile = \"access.log\"\n";
    let mut weir = Weir::start(&format!("{}{log}", one_pool("hello", "", "min = 0\nmax = 4")));
    let (current, former) = (weir.path("access.log"), weir.path("access.log.1"));
    let read = |path: &Path| fs::read_to_string(path).expect("a log");
    assert_eq!(get(weir.http, "/?before").status, 200);
    weir.until("it is written down", || read(&current).contains("\"GET /?before HTTP/1.1\" 200 "));
    fs::rename(&current, &former).expect("rename the log");
    weir.signal("USR1");
    weir.logged("access log opened again");
    assert_eq!(get(weir.http, "/?after").status, 200);
    weir.signal("TERM");
    assert!(weir.wait().success());
    let lines = |path: &Path| read(path).lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(&former), lines(&current));
    assert!(before.len() == 1 && before[0].contains("/?before"), "{before:?}");
    assert!(after.len() == 1 && after[0].contains("/?after"), "{after:?}");
}
