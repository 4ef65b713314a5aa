//! The command line where no VM is needed: errors and exit codes.

use std::path::Path;
use std::process::{Command, Output};

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().expect("run weir")
}

fn check(text: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("make a directory");
    let path = directory.path().join("weir.toml");
    std::fs::write(&path, text).expect("write the configuration");
    let output = weir(&["check", path.to_str().expect("UTF-8")]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn check_reports_every_error_at_once_with_its_key_path() {
    let (code, text) = check(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[host]\nmemory = \"8GB of it\"\nmax_vm = 3\n\
         [pool.hello]\nimage = \"no-such-image\"\nport = 70000\n[[route]]\npath = \"/\"\npool = \"helo\"\n",
    );
    assert_eq!(code, Some(2), "{text}");
    for key in ["host.memory", "host.max_vm", "pool.hello.image", "pool.hello.port", "route[0].pool"] {
        assert!(text.contains(key), "{key} is named:\n{text}");
    }
}

#[test]
fn check_names_an_address_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("an address");
    let (code, text) = check(&format!(
        "[[listener]]\naddress = \"{address}\"\n[pool.hello]\nimage = \"hello\"\n[[route]]\npool = \"hello\"\n"
    ));
    assert_eq!(code, Some(2));
    assert!(text.contains("listener[0].address") && text.contains("in use"), "{text}");
}

#[test]
fn check_accepts_the_examples() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut examined = 0;
    let traces = directory.join("traces");
    let entries =
        [directory, traces].map(|path| std::fs::read_dir(path).expect("list the examples").flatten());
    for entry in
        entries.into_iter().flatten().filter(|entry| entry.path().extension() == Some("toml".as_ref()))
    {
        let text = std::fs::read_to_string(entry.path()).expect("read an example");
        // The ports of an example may be taken on this machine.
        let text = text.replace(":8080\"", ":0\"").replace(":9180\"", ":0\"");
        let (code, errors) = check(&text);
        assert_eq!(code, Some(0), "{}: {errors}", entry.path().display());
        examined += 1;
    }
    assert!(examined > 0, "there is an example");
}

#[test]
fn an_image_that_is_none_is_refused_before_anything_starts() {
    let directory = tempfile::tempdir().expect("make a directory");
    let path = directory.path().join("image");
    std::fs::write(&path, "#!/bin/sh\n").expect("write");
    let (code, text) = check(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[pool.x]\nimage = \"{}\"\n[[route]]\npool = \"x\"\n",
        path.display()
    ));
    assert_eq!(code, Some(2));
    assert!(text.contains("pool.x.image") && text.contains("ELF"), "{text}");
}

#[test]
fn usage_errors_exit_with_2() {
    assert_eq!(weir(&["fly"]).status.code(), Some(2));
    let output = weir(&["serve", "-c", "/nonexistent/weir.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/weir.toml"));
}

#[test]
fn simulate_prints_a_comparison_and_writes_its_series() {
    let directory = tempfile::tempdir().expect("make a directory");
    let (trace, csv) = (directory.path().join("trace.csv"), directory.path().join("out.csv"));
    std::fs::write(&trace, "arrival_s,pool,service_ms\n0,hello,5\n1,hello,5\n").expect("write the trace");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello.toml");
    let [trace, csv, config] = [&trace, &csv, &config].map(|path| path.to_str().expect("UTF-8"));
    let output = weir(&["simulate", trace, "-c", config, "--start", "0.5ms", "--step", "1s", "--csv", csv]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("2 requests, 1 pools") && text.contains("clairvoyant"), "{text}");
    let series = std::fs::read_to_string(csv).expect("read the series");
    // The last request, 5 ms, 10 s of queue.timeout and 2 minutes are 131.005 s.
    assert_eq!(series.lines().count(), 1 + 132, "{series}");
}

#[test]
fn simulate_names_what_is_wrong_with_a_trace() {
    let directory = tempfile::tempdir().expect("make a directory");
    let trace = directory.path().join("trace.csv");
    std::fs::write(&trace, "arrival_s,pool,service_ms\n0,hello,5\n1,helo,5\n").expect("write the trace");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello.toml");
    let [trace, config] = [&trace, &config].map(|path| path.to_str().expect("UTF-8"));
    let output = weir(&["simulate", trace, "-c", config]);
    let expected = format!("{trace}:3:3: pool: there is no pool \"helo\"\n");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(2), expected.into()));
    let output = weir(&["simulate", "/nonexistent/trace.csv", "-c", config]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/trace.csv"));
    for wrong in [["--start", "soon"], ["--slow-vms", "2x4"]] {
        let options = [["simulate", trace, "-c", config].as_slice(), &wrong].concat();
        assert_eq!(weir(&options).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_weir_that_is_not_there_cannot_be_asked() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("an address");
    let output = weir(&["ps", "--admin", &nobody.to_string()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&nobody.to_string()), "{text}");
}

#[test]
fn orders_need_an_address_and_the_name_of_a_pool() {
    let directory = tempfile::tempdir().expect("make a directory");
    let path = directory.path().join("weir.toml");
    let config = "[[listener]]\naddress = \"127.0.0.1:0\"\n[pool.hello]\nimage = \"hello\"\n[[route]]\npool = \"hello\"\n";
    std::fs::write(&path, config).expect("write the configuration");
    let path = path.to_str().expect("UTF-8");
    for (arguments, why) in [
        (&["ps", "-c", path][..], "admin.address"),
        (&["ps", "-c", "/nonexistent/weir.toml"], "/nonexistent/weir.toml"),
        (&["restart", "a/../b", "--admin", "127.0.0.1:1"], "name of a pool"),
        (&["drain"], "POOL"),
        (&["ps", "--admin", "somewhere"], "somewhere"),
    ] {
        let output = weir(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(why), "{arguments:?}: {text}");
    }
}
