//! The configurations that users are shown are valid, and the reference tells the truth about defaults.

use std::fs;
use std::path::Path;

use weir_config::{load, parse};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_example_is_valid() {
    let files = fs::read_dir(root().join("examples")).expect("examples/");
    let paths = files.map(|file| file.expect("entry of examples/").path());
    let examples: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert!(!examples.is_empty());
    for example in examples {
        if let Err(error) = load(&example) {
            panic!("{error}");
        }
    }
}

/// The reference's TOML blocks, in order.
fn blocks() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/CONFIG.md")).expect("docs/CONFIG.md");
    let blocks = text.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_reference_writes_out_the_defaults() {
    let [minimal, defaults, ..] = &blocks()[..] else { panic!("the reference has its two whole files") };
    let minimal_config = parse(minimal, "minimal").unwrap_or_else(|errors| panic!("{errors}"));
    let defaults_config = parse(defaults, "defaults").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(minimal_config, defaults_config);
}

#[test]
fn the_references_further_examples_are_valid() {
    // Files are named from there.
    std::env::set_current_dir(root()).expect("the repository's root");
    let [minimal, _, further @ ..] = &blocks()[..] else { panic!("the reference has its two whole files") };
    assert!(!further.is_empty());
    for block in further {
        parse(&format!("{minimal}{block}"), "example").unwrap_or_else(|errors| panic!("{errors}"));
    }
}

#[test]
fn the_reference_knows_every_key() {
    let text = fs::read_to_string(root().join("docs/CONFIG.md")).expect("docs/CONFIG.md");
    let mut keys = Vec::new();
    for block in blocks() {
        collect(&toml::Value::Table(block.parse().expect("TOML")), &mut keys);
    }
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| {
            // Statuses and their classes have a row together.
            let is_status = key.len() == 3 && key.starts_with(['4', '5']);
            !is_status && !text.contains(&format!("| `{key}` |"))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?} have no row in docs/CONFIG.md");
}

/// Names of all keys that hold no table. Names of header fields are no keys of weir's.
fn collect(value: &toml::Value, keys: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                if !value.is_table() && !value.as_array().is_some_and(|a| a.iter().any(toml::Value::is_table))
                {
                    keys.push(key.clone());
                }
                if !key.ends_with("headers") {
                    collect(value, keys);
                }
            }
        }
        toml::Value::Array(array) => array.iter().for_each(|value| collect(value, keys)),
        _ => {}
    }
}
