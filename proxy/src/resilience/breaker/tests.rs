use prometheus::{IntCounter, IntGauge};
use proptest::prelude::*;
use weir_config::model::Thousandths;

use super::*;

/// The same as [`Breaker`], but with lists of everything.
struct Naive {
    limits: Limits,
    open_until: Option<u64>,
    /// Requests let in while it is half open, with what became of them.
    probes: Option<Vec<(usize, Option<bool>)>>,
    /// When requests ended, and whether well.
    ended: Vec<(u64, bool)>,
    /// Which requests were let in since it last changed.
    of_now: Vec<usize>,
}

impl Naive {
    fn admit(&mut self, id: usize, now: u64) -> bool {
        if let Some(until) = self.open_until {
            if now < until {
                return false;
            }
            (self.open_until, self.probes, self.of_now) = (None, Some(Vec::new()), Vec::new());
        }
        if let Some(probes) = &mut self.probes {
            if probes.len() as u64 >= self.limits.half_open {
                return false;
            }
            probes.push((id, None));
        }
        self.of_now.push(id);
        true
    }

    fn end(&mut self, id: usize, success: Option<bool>, now: u64) {
        if !self.of_now.contains(&id) {
            return;
        }
        if let Some(probes) = &mut self.probes {
            match success {
                None => probes.retain(|(probe, _)| *probe != id),
                Some(false) => self.open(now),
                Some(true) => {
                    probes
                        .iter_mut()
                        .filter(|(probe, _)| *probe == id)
                        .for_each(|probe| probe.1 = Some(true));
                    let passed = probes.iter().filter(|(_, outcome)| *outcome == Some(true)).count();
                    if passed as u64 == self.limits.half_open {
                        (self.probes, self.ended, self.of_now) = (None, Vec::new(), Vec::new());
                    }
                }
            }
        } else if let Some(success) = success {
            self.ended.push((now, success));
            let window = |at: u64| at / self.limits.window;
            let counted: Vec<_> = self.ended.iter().filter(|(at, _)| window(*at) == window(now)).collect();
            let failed = counted.iter().filter(|(_, success)| !success).count() as u64;
            let enough = failed * 1000 >= counted.len() as u64 * self.limits.ratio;
            if !success && failed >= self.limits.failures && enough {
                self.open(now);
            }
        }
    }

    fn open(&mut self, now: u64) {
        (self.open_until, self.probes) = (Some(now + self.limits.open_for), None);
        (self.ended, self.of_now) = (Vec::new(), Vec::new());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Admit,
    /// What becomes of one of those that are there; `None`: nothing is heard of it.
    End(usize, Option<bool>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![3 => Just(Some(false)), 3 => Just(Some(true)), 1 => Just(None)];
    let step = prop_oneof![
        1 => (0..60u64).prop_map(Step::Wait),
        4 => Just(Step::Admit),
        4 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::End(which, outcome)),
    ];
    proptest::collection::vec(step, 0..300)
}

fn config() -> impl Strategy<Value = model::Breaker> {
    (1..6u32, 0..=1000u64, 1..100u64, 1..100u64, 1..4u32).prop_map(
        |(failures, ratio, window, open_for, half_open)| model::Breaker {
            failures,
            ratio: Thousandths(ratio),
            window: Duration::from_millis(window),
            open_for: Duration::from_millis(open_for),
            half_open,
            ..model::Breaker::default()
        },
    )
}

fn breaker(config: &model::Breaker) -> Arc<Breaker> {
    let state = IntGauge::new("s", "s").unwrap();
    let opened = IntCounter::new("o", "o").unwrap();
    Breaker::new(config, BreakerSeries { state, opened })
}

proptest! {
    #[test]
    fn it_does_as_its_model(config in config(), steps in steps()) {
        let breaker = breaker(&config);
        let limits = Limits::new(&config);
        let mut naive =
            Naive { limits, open_until: None, probes: None, ended: Vec::new(), of_now: Vec::new() };
        let (mut now, mut next, mut inside) = (0, 0, Vec::<(usize, Permit)>::new());
        for step in steps {
            let at = Duration::from_millis(now);
            match step {
                Step::Wait(time) => now += time,
                Step::Admit => {
                    next += 1;
                    let permit = breaker.admit(at);
                    prop_assert_eq!(permit.is_ok(), naive.admit(next, now));
                    inside.extend(permit.ok().map(|permit| (next, permit)));
                }
                Step::End(_, _) if inside.is_empty() => {}
                Step::End(which, outcome) => {
                    let (id, mut permit) = inside.swap_remove(which % inside.len());
                    if let Some(success) = outcome {
                        permit.settle(success, at);
                        // It has been said.
                        permit.settle(!success, at);
                    }
                    drop(permit);
                    naive.end(id, outcome, now);
                }
            }
            let shown = match (&naive.open_until, &naive.probes) {
                (None, None) => 0,
                (None, Some(_)) => 1,
                (Some(_), _) => 2,
            };
            prop_assert_eq!(breaker.series.state.get(), shown);
            prop_assert_eq!(breaker.in_flight.load(SeqCst) as usize, inside.len());
        }
    }

    #[test]
    fn a_word_holds_every_state(
        era in 0..1u16 << 14,
        counts in (0..1u64 << 14, 0..1u64 << 17, 0..1u64 << 17),
        until in 0..1u64 << 48,
        half in (0..1001u64, 0..1001u64),
    ) {
        let phases = [
            Phase::Closed { window: counts.0, ended: counts.1, failed: counts.2 },
            Phase::Open { until },
            Phase::HalfOpen { admitted: half.0, passed: half.1 },
        ];
        for phase in phases {
            let state = State { era, phase };
            prop_assert_eq!(State::unpack(state.pack()), state);
        }
    }
}

#[test]
fn it_counts_on_when_a_window_has_more_than_the_word_holds() {
    let config = model::Breaker { failures: 10_000, ..model::Breaker::default() };
    let breaker = breaker(&config);
    let end =
        |success| breaker.admit(Duration::ZERO).map(|mut permit| permit.settle(success, Duration::ZERO));
    for _ in 0..400_000 {
        end(true).unwrap();
    }
    for _ in 0..65_000 {
        end(false).unwrap();
    }
    assert_eq!(breaker.series.opened.get(), 0, "less than half of them failed");
    assert!((0..400_000).any(|_| end(false).is_err()));
    assert_eq!(breaker.series.opened.get(), 1);
}

#[test]
fn no_more_are_let_in_at_once_than_may_be_there() {
    let breaker = breaker(&model::Breaker { max_in_flight: Some(2), ..model::Breaker::default() });
    let first = breaker.admit(Duration::ZERO).unwrap();
    let _second = breaker.admit(Duration::ZERO).unwrap();
    assert_eq!(breaker.admit(Duration::ZERO).unwrap_err(), Refusal::PoolFull);
    drop(first);
    breaker.admit(Duration::ZERO).unwrap();
}

#[test]
fn many_at_once_lose_no_count() {
    let config = model::Breaker { failures: 1000, half_open: 1, ..model::Breaker::default() };
    let breaker = breaker(&config);
    let fail = || breaker.admit(Duration::ZERO).map(|mut permit| permit.settle(false, Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..249).for_each(|_| fail().unwrap()));
        }
    });
    (0..3).for_each(|_| fail().unwrap());
    assert_eq!(breaker.series.opened.get(), 0);
    fail().unwrap();
    assert_eq!((breaker.series.opened.get(), breaker.series.state.get()), (1, 2));
    assert_eq!(fail().unwrap_err(), Refusal::CircuitOpen(Duration::from_secs(5)));
    assert_eq!(breaker.in_flight.load(SeqCst), 0);
}
