//! The traces that weir ships: what they are made by, and how weir does on them.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_config::Config;
use weir_pool::simulate::{Comparison, Measures, Options, Trace, simulate};

/// Each trace with its configuration.
const TRACES: [(&str, &str); 5] = [
    ("step.csv", "weir.toml"),
    ("diurnal.csv", "weir.toml"),
    ("spiky.csv", "weir.toml"),
    ("bursty.csv", "weir.toml"),
    ("many-idle.csv", "many-idle.toml"),
];
/// Bytes of a trace at most.
const LARGEST: u64 = 300 << 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn traces() -> PathBuf {
    root().join("examples/traces")
}

fn compare(trace: &str, config: &str) -> Comparison {
    let config: Config = weir_config::load(&traces().join(config)).expect("the configuration is valid");
    let file = BufReader::new(File::open(traces().join(trace)).expect("open the trace"));
    let trace = Trace::read(file, trace, &config).expect("the trace is valid");
    simulate(&trace, &config, Options::default()).expect("it can be simulated")
}

fn totals(comparison: &Comparison) -> Vec<(&'static str, Measures)> {
    comparison.outcomes.iter().map(|outcome| (outcome.policy, outcome.total())).collect()
}

#[test]
fn the_script_writes_what_is_checked_in() {
    let fresh = tempfile::tempdir().expect("make a directory");
    let status = Command::new("python3").arg(root().join("scripts/traces.py")).arg(fresh.path()).status();
    assert!(status.expect("run python3").success());
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).expect("list the traces").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        names
    };
    let (written, kept) = (names(fresh.path()), names(&traces()));
    assert_eq!(written, kept);
    for name in written {
        let (written, kept) = (fresh.path().join(&name), traces().join(&name));
        assert!(fs::metadata(&kept).expect("it is there").len() <= LARGEST, "{name:?} is too large");
        assert!(fs::read(written).expect("read") == fs::read(kept).expect("read"), "{name:?} differs");
    }
}

#[test]
fn weir_takes_less_than_knative_and_nobody_waits_longer() {
    for (trace, config) in TRACES {
        let comparison = compare(trace, config);
        let totals = totals(&comparison);
        let (_, weir) = &totals[0];
        assert_eq!((totals[0].0, weir.arrivals), ("weir", weir.served), "{trace}: all are served");
        for (policy, other) in totals[1..].iter().filter(|(policy, _)| policy.starts_with("kpa")) {
            assert!(weir.vm_time < other.vm_time, "{trace}, {policy}:\n{comparison}");
            let p99 = |total: &Measures| total.wait(99, 100);
            // Where under both one in a hundred waits for a start, the percentile is one of start times.
            let start = comparison.options.starts.p99;
            let no_longer = if p99(other).is_zero() { Duration::ZERO } else { p99(other).max(start) };
            assert!(p99(weir) <= no_longer, "{trace}, {policy}:\n{comparison}");
        }
    }
}

#[test]
fn nobody_takes_less_than_the_bound_and_weirs_waits_are_those_of_starts() {
    for (trace, config) in TRACES {
        let comparison = compare(trace, config);
        let totals = totals(&comparison);
        let (last, bound) = &totals[3];
        assert_eq!(*last, "clairvoyant");
        assert!(totals.iter().all(|(_, total)| bound.vm_time <= total.vm_time), "{trace}:\n{comparison}");
        // As long as a start takes at most, or two after each other.
        assert!(totals[0].1.wait(1, 1) < Duration::from_millis(6), "{trace}:\n{comparison}");
    }
}
