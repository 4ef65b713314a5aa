use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const MICROS: Duration = Duration::from_micros(1);

/// A guest on clocks of the test's own.
struct Guest {
    activity: Activity,
    now: Instant,
    cpu: Duration,
}

impl Guest {
    /// Parked for so long that nothing from before counts.
    fn parked() -> Self {
        let now = Instant::now();
        let mut guest = Self { activity: Activity::new(now), now, cpu: Duration::ZERO };
        guest.park();
        guest.pass(Duration::from_secs(100));
        guest
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Runs for `cpu`, all of it on the CPU, and parks.
    fn run(&mut self, asked: bool, cpu: Duration) {
        if asked {
            self.receive()
        } else {
            self.wake()
        }
        self.compute(cpu);
        self.park();
    }

    fn wake(&mut self) {
        self.activity.wakes_at(self.now, || self.cpu);
    }

    fn park(&mut self) {
        self.activity.parks_at(self.now, || self.cpu);
    }

    fn compute(&mut self, cpu: Duration) {
        self.cpu += cpu;
        self.now += cpu;
    }

    fn receive(&mut self) {
        let progress = Progress { rx_delivered: 1, ..Progress::default() };
        self.activity.moved(&progress, self.now);
        self.activity.served(&progress, self.now);
    }

    fn send(&mut self) {
        let progress = Progress { tx_completed: 1, ..Progress::default() };
        self.activity.moved(&progress, self.now);
    }

    fn quiet(&mut self) -> Duration {
        self.activity.quiet_at(self.now, || self.cpu)
    }
}

#[test]
fn a_guest_that_waits_is_quiet_since_it_began_to() {
    let mut guest = Guest::parked();
    assert_eq!(guest.quiet(), 100_000 * MS);
    guest.pass(MS);
    assert_eq!(guest.quiet(), 100_001 * MS, "to be asked is no work");
}

#[test]
fn answers_are_no_work_however_many() {
    let mut guest = Guest::parked();
    for _ in 0..1000 {
        guest.run(true, 20 * MS);
        guest.pass(10 * MS);
        guest.send();
        guest.pass(20 * MS);
    }
    assert_eq!(guest.quiet(), 150_000 * MS);
}

#[test]
fn the_return_of_an_answers_buffers_is_part_of_it() {
    let mut guest = Guest::parked();
    for _ in 0..100 {
        guest.run(true, MS);
        guest.send();
        guest.activity.served(&Progress { tx_completed: 1, ..Progress::default() }, guest.now);
        guest.park();
    }
    assert_eq!(guest.quiet(), 100_100 * MS);
}

#[test]
fn an_answer_that_does_not_end_is_work() {
    let mut guest = Guest::parked();
    guest.receive();
    guest.compute(LONG_RUN - MS);
    assert!(guest.quiet() > 100 * LONG_RUN);
    guest.compute(MS);
    assert_eq!(guest.quiet(), Duration::ZERO);
    guest.park();
    guest.pass(7 * MS);
    assert_eq!(guest.quiet(), 7 * MS, "as long as it lasted");
}

#[test]
fn a_guest_that_computes_works_while_it_runs_and_when_it_pauses() {
    let mut guest = Guest::parked();
    guest.wake();
    guest.compute(OWN_CPU);
    assert_eq!(guest.quiet(), Duration::ZERO);
    // Half of the time, in pieces each of which is nothing.
    let mut guest = Guest::parked();
    for _ in 0..20 {
        guest.run(false, MS);
        guest.pass(MS);
    }
    assert!(guest.quiet() < 30 * MS, "{:?}", guest.quiet());
}

#[test]
fn a_guest_that_polls_works_and_one_that_sleeps_long_does_not() {
    let wake_every = |pause: Duration| {
        let mut guest = Guest::parked();
        let begin = guest.now;
        while guest.now < begin + Duration::from_secs(60) {
            guest.run(false, 20 * MICROS);
            guest.pass(pause);
        }
        guest.quiet()
    };
    assert!(wake_every(10 * MS) < 2 * WINDOW);
    assert!(wake_every(50 * MS) < 2 * WINDOW);
    assert!(wake_every(250 * MS) >= Duration::from_secs(160));
    assert!(wake_every(Duration::from_secs(30)) >= Duration::from_secs(160));
}

#[test]
fn work_is_not_lost_between_windows_nor_when_nobody_lets_it_run() {
    let mut guest = Guest::parked();
    for piece in 0..3000 {
        guest.run(false, MS / 10);
        guest.pass(20 * MS);
        assert!(piece < 10 || guest.quiet() <= 20 * MS, "{piece}: {:?}", guest.quiet());
    }
    guest.wake();
    guest.pass(WINDOW / 2);
    assert_eq!(guest.quiet(), Duration::ZERO, "it wants to run");
    guest.park();
    guest.pass(2 * WINDOW);
    guest.run(false, MS / 10);
    guest.pass(2 * WINDOW);
    assert!(guest.quiet() >= 4 * WINDOW, "a wake long after that is none");
}

#[test]
fn what_it_sends_long_after_it_heard_anything_is_its_own() {
    let mut guest = Guest::parked();
    guest.send();
    assert_eq!(guest.quiet(), Duration::ZERO);

    let mut guest = Guest::parked();
    guest.run(true, MS);
    guest.pass(REPLY - 2 * MS);
    guest.send();
    assert!(guest.quiet() > REPLY, "a late acknowledgement");
    guest.pass(2 * MS);
    guest.send();
    assert_eq!(guest.quiet(), Duration::ZERO);
}

proptest! {
    #[test]
    fn time_never_runs_backwards_and_nothing_panics(
        steps in proptest::collection::vec((0..6u8, 0..3_000_000u64), 0..200),
    ) {
        let mut guest = Guest::parked();
        let begin = guest.now - Duration::from_secs(100);
        for (step, micros) in steps {
            let micros = Duration::from_micros(micros);
            match step {
                0 => guest.run(false, micros),
                1 => guest.run(true, micros),
                2 => guest.send(),
                3 => guest.receive(),
                4 => guest.wake(),
                _ => guest.pass(micros),
            }
            let quiet = guest.quiet();
            prop_assert!(quiet <= guest.now - begin);
            guest.pass(micros);
            let parked = matches!(guest.activity.state, State::Parked { .. });
            prop_assert!(!parked || guest.quiet() == quiet + micros);
        }
    }

    /// As much work as half of a CPU is seen however it is cut up, if no piece is an answer.
    #[test]
    fn work_is_seen_however_it_is_cut_up(pieces in proptest::collection::vec(1..20_000u64, 400..800)) {
        let mut guest = Guest::parked();
        for piece in pieces {
            guest.run(false, Duration::from_micros(piece));
            guest.pass(Duration::from_micros(piece));
        }
        prop_assert!(guest.quiet() < WINDOW);
    }
}
