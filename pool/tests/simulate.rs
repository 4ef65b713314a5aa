//! The traces that weir ships: what they are made by, and how weir does on them.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use weir_config::Config;
use weir_pool::simulate::{Comparison, Measures, Options, SlowVms, Trace, simulate};

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

/// All of them, each with its name; compared once.
fn comparisons() -> &'static [(&'static str, Comparison)] {
    static COMPARISONS: LazyLock<Vec<(&str, Comparison)>> = LazyLock::new(|| {
        TRACES.map(|(trace, config)| (trace, compare(trace, config, Options::default()))).into()
    });
    &COMPARISONS
}

fn compare(trace: &str, config: &str, options: Options) -> Comparison {
    let config: Config = weir_config::load(&traces().join(config)).expect("the configuration is valid");
    let file = BufReader::new(File::open(traces().join(trace)).expect("open the trace"));
    let trace = Trace::read(file, trace, &config).expect("the trace is valid");
    simulate(&trace, &config, options).expect("it can be simulated")
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

fn named<'a>(totals: &'a [(&str, Measures)], policy: &str) -> &'a Measures {
    let named = totals.iter().find(|(name, _)| *name == policy);
    &named.expect("every policy has its outcome").1
}

fn p99(total: &Measures) -> Duration {
    total.wait(99, 100)
}

/// There are two ways to have fewer requests meet a cold pool: to keep VMs for longer, or not to. Whichever Knative goes,
/// by its defaults or tuned, one of weir's two takes less, and nobody waits longer.
#[test]
fn weir_takes_less_than_knative_and_nobody_waits_longer() {
    for (trace, comparison) in comparisons() {
        let totals = totals(comparison);
        let weirs = ["weir", "weir-kept"].map(|policy| named(&totals, policy));
        assert!(weirs.iter().all(|weir| weir.arrivals == weir.served), "{trace}: all are served");
        for policy in ["kpa", "kpa-tuned"] {
            let other = named(&totals, policy);
            let is_better = |weir: &Measures| weir.vm_time < other.vm_time && p99(weir) <= p99(other);
            assert!(weirs.into_iter().any(is_better), "{trace}, {policy}:\n{comparison}");
        }
    }
}

#[test]
fn as_configured_it_takes_less_than_knative_and_nobody_waits_longer_than_for_a_start() {
    for (trace, comparison) in comparisons() {
        let totals = totals(comparison);
        let weir = named(&totals, "weir");
        let tuned = named(&totals, "kpa-tuned");
        // Both keep VMs equally long.
        assert!(p99(weir) <= p99(tuned), "{trace}:\n{comparison}");
        for other in [tuned, named(&totals, "kpa")] {
            assert!(weir.vm_time < other.vm_time, "{trace}:\n{comparison}");
            // Where more requests meet a cold pool, the percentile is a higher one of start times.
            let start = comparison.options.starts.p99;
            let no_longer = if p99(other).is_zero() { Duration::ZERO } else { p99(other).max(start) };
            assert!(p99(weir) <= no_longer, "{trace}:\n{comparison}");
        }
    }
}

#[test]
fn nobody_takes_less_than_the_bound_and_weirs_waits_are_those_of_starts() {
    for (trace, comparison) in comparisons() {
        let totals = totals(comparison);
        let bound = named(&totals, "clairvoyant");
        assert!(totals.iter().all(|(_, total)| bound.vm_time <= total.vm_time), "{trace}:\n{comparison}");
        // As long as a start takes at most, or two after each other.
        assert!(named(&totals, "weir").wait(1, 1) < Duration::from_millis(6), "{trace}:\n{comparison}");
    }
}

/// Not `many-idle`, whose pools hardly ever have two VMs to choose from.
#[test]
fn where_some_vms_are_slow_to_look_at_latency_gives_earlier_answers_with_fewer_vms() {
    let slow = Some(SlowVms { share: 0.25, factor: 4.0 });
    for (trace, config) in TRACES.iter().filter(|(trace, _)| *trace != "many-idle.csv") {
        let comparison = compare(trace, config, Options { slow, ..Options::default() });
        let totals = totals(&comparison);
        let (weir, blind) = (named(&totals, "weir"), named(&totals, "weir-blind"));
        assert_eq!(weir.answers.len() as u64, weir.arrivals, "{trace}: all are served");
        assert!(weir.vm_time < blind.vm_time, "{trace}:\n{comparison}");
        assert!(weir.answer(1, 2) < blind.answer(1, 2), "{trace}:\n{comparison}");
        assert!(weir.answer(99, 100) < blind.answer(99, 100).mul_f64(0.9), "{trace}:\n{comparison}");
    }
}
