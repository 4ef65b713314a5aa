//! The dependency direction of DESIGN: `config <- net, vmm <- pool <- proxy <- weir`, `guest/abi <- vmm`.

use std::collections::BTreeMap;
use std::process::Command;

/// What each crate of the workspace may depend on within it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("weir-config", &[]),
    ("weir-abi", &[]),
    ("weir-guest", &[]),
    ("weir-net", &["weir-config"]),
    ("weir-vmm", &["weir-config", "weir-abi"]),
    ("weir-pool", &["weir-config", "weir-net", "weir-vmm"]),
    ("weir-proxy", &["weir-config", "weir-pool"]),
    ("weir", &["weir-config", "weir-net", "weir-vmm", "weir-pool", "weir-proxy", "weir-guest"]),
];

/// Normal dependencies between crates of this repository, by crate.
fn edges() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().map(|package| (text(&package["name"]), internal_dependencies(package))).collect()
}

fn internal_dependencies(package: &serde_json::Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().expect("dependencies");
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| text(&dependency["name"]))
        .filter(|name| name == "weir" || name.starts_with("weir-"))
        .collect()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Edges that `allowed` does not hold, as "from -> to".
fn reversed(edges: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (from, targets) in edges {
        let Some(permitted) = allowed.get(from.as_str()) else {
            wrong.push(format!("{from} has no place in the design"));
            continue;
        };
        let extra = targets.iter().filter(|to| !permitted.contains(&to.as_str()));
        wrong.extend(extra.map(|to| format!("{from} -> {to}")));
    }
    wrong
}

#[test]
fn dependencies_run_one_way() {
    let edges = edges();
    assert!(edges.len() >= 7, "cargo metadata lists the workspace: {edges:?}");
    assert_eq!(reversed(&edges), Vec::<String>::new());
}

#[test]
fn a_reversed_edge_is_found() {
    let edges = BTreeMap::from([("weir-vmm".to_owned(), vec!["weir-net".to_owned()])]);
    assert_eq!(reversed(&edges), ["weir-vmm -> weir-net"]);
}

/// Whether the keyword may stand in this file: `sys.rs` files, the library OS, which is nothing but a machine's lowest
/// level, the guests that the VMM's tests assemble, and this file, which has it in strings.
fn may_be_unsafe(path: &str) -> bool {
    let here = ["vmm/tests/kvm_machine/guests/mod.rs", "tests/architecture.rs"];
    path.ends_with("/sys.rs") || path.starts_with("guest/libos/") || here.contains(&path)
}

/// Whether a line of code (not a comment, not an attribute) holds the keyword.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn unsafe_code_stands_where_the_design_allows_it() {
    let output = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run git ls-files");
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    assert!(list.lines().count() > 100, "git lists the sources");
    let mut wrong = Vec::new();
    for path in list.lines().filter(|path| !may_be_unsafe(path)) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().enumerate().filter(|(_, line)| is_unsafe(line));
        wrong.extend(lines.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_keyword_is_told_from_words_around_it() {
    assert!(is_unsafe("    let x = unsafe { y() };"));
    assert!(!is_unsafe("#![forbid(unsafe_code)] // unsafe"));
}
