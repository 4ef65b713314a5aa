use proptest::prelude::*;

use super::*;
use crate::fake;

const SECOND: u64 = 1_000_000_000;

fn windows() -> Windows {
    // 30 s and 3 s: buckets of 1 s and 0.1 s.
    Windows::new(&Limits::of(&fake::pool("p")))
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn demand_weighs_by_how_long_it_lasts() {
    let (mut windows, begin) = (windows(), Instant::now());
    assert_eq!(
        windows.observe(6, 1, begin),
        Averages { peak_demand: 6, peak_live: 1, ..Averages::default() }
    );
    let after = windows.observe(0, 2, begin + seconds(1.5));
    assert_eq!((after.stable, after.panic), (Thousandths(300), Thousandths(3000)));
    assert_eq!((after.peak_demand, after.peak_live), (6, 2));
    let later = windows.observe(0, 2, begin + seconds(10.0));
    assert_eq!((later.stable, later.panic, later.peak_demand), (Thousandths(300), Thousandths(0), 0));
    let gone = windows.observe(0, 0, begin + seconds(32.0));
    assert_eq!((gone.stable, gone.peak_live), (Thousandths(0), 2));
    assert_eq!(windows.observe(7, 0, begin + seconds(1e6)).stable, Thousandths(0));
    assert_eq!(windows.observe(7, 0, begin + seconds(2e6)).stable, Thousandths(7000));
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let (mut windows, begin) = (windows(), Instant::now() + seconds(100.0));
    windows.observe(4, 0, begin);
    windows.observe(4, 0, begin + seconds(3.0));
    assert_eq!(windows.observe(4, 0, begin - seconds(50.0)).panic, Thousandths(4000));
}

proptest! {
    #[test]
    fn averages_are_those_of_a_full_record(
        steps in proptest::collection::vec((0..50u64, 0..3 * SECOND), 1..60),
    ) {
        let (mut windows, begin) = (windows(), Instant::now());
        let (mut record, mut at) = (Vec::new(), 0);
        for (demand, lasts) in steps {
            let averages = windows.observe(demand, 0, begin + Duration::from_nanos(at));
            // The bucket that the window's beginning cuts is taken as level: that much is unknown, no more.
            for (average, window) in [(averages.stable, 30 * SECOND), (averages.panic, 3 * SECOND)] {
                let exact = |from: u64| {
                    let parts = record.iter().map(|&(begin, end, demand): &(u64, u64, u64)| {
                        u128::from(end.saturating_sub(begin.max(from))) * u128::from(demand)
                    });
                    parts.sum::<u128>() * 1000 / u128::from(window)
                };
                let cut = (at / (window / 30)).saturating_sub(30) * (window / 30);
                let (most, least) = (exact(cut), exact(cut + window / 30));
                prop_assert!((least..=most + 1).contains(&u128::from(average.0)), "{} {least} {most}", average.0);
            }
            let since = at.saturating_sub(3 * SECOND);
            let peak = record.iter().filter(|(_, end, _)| *end > since).map(|step| step.2).max().unwrap_or(0);
            prop_assert!(averages.peak_demand >= peak.max(demand));
            record.push((at, at + lasts, demand));
            at += lasts;
        }
    }

    #[test]
    fn garbage_is_averaged_too(
        steps in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 1..20),
        (stable, panic) in (any::<u64>(), any::<u64>()),
    ) {
        let mut limits = Limits::of(&fake::pool("p"));
        limits.stable_window = Duration::from_nanos(stable);
        limits.panic_window = Duration::from_nanos(panic);
        let (mut windows, mut at) = (Windows::new(&limits), Instant::now());
        for (demand, live, lasts) in steps {
            let averages = windows.observe(demand, live, at);
            prop_assert!(averages.peak_demand >= demand && averages.peak_live >= live);
            at += Duration::from_millis(lasts.into());
        }
    }
}
