//! Times of the week, and the minimums that hold then.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_config::model::Schedule;

use super::Limits;

const MINUTE: Duration = Duration::from_secs(60);
/// Minutes.
const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
/// 1970-01-01 was a Thursday.
const EPOCH: u64 = 3 * DAY as u64;

/// A time of the week, in UTC. The default is the beginning of Monday.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeekTime {
    /// Since Monday began, less than [`WEEK`].
    minutes: u16,
    /// Since the minute began.
    within: Duration,
}

impl WeekTime {
    /// `time`'s. What is before 1970 counts as its beginning.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let minutes = since.as_secs() / 60;
        let within = since - Duration::from_secs(minutes * 60);
        let minutes = u16::try_from((minutes + EPOCH) % u64::from(WEEK));
        Self { minutes: minutes.expect("a week has fewer minutes than 2^16"), within }
    }

    fn is_in(self, schedule: &Schedule) -> bool {
        let (day, minute) = (self.minutes / DAY, self.minutes % DAY);
        let begins = |day: u16| schedule.days[usize::from(day % 7)];
        if schedule.from < schedule.to {
            begins(day) && (schedule.from..schedule.to).contains(&minute)
        } else {
            begins(day) && minute >= schedule.from || begins(day + 6) && minute < schedule.to
        }
    }

    /// Time until the clock shows `minute` the next time, today or tomorrow; not nothing.
    fn until(self, minute: u16) -> Duration {
        let minutes = (minute % DAY + DAY - self.minutes % DAY - 1) % DAY + 1;
        MINUTE * u32::from(minutes) - self.within
    }
}

impl Limits {
    /// The minimum that holds at `time`, never above `max`, and how long to rely on that. A clock can be set: nobody
    /// relies on it for more than a minute.
    pub(super) fn minimum(&self, time: WeekTime) -> (u32, Option<Duration>) {
        let holding =
            self.schedule.iter().filter(|schedule| time.is_in(schedule)).map(|schedule| schedule.min);
        let min = holding.fold(self.min, u32::max).min(self.max);
        let changes = self.schedule.iter().flat_map(|schedule| [schedule.from, schedule.to]);
        (min, changes.map(|minute| time.until(minute).min(MINUTE)).min())
    }
}

#[cfg(test)]
mod tests {
    use weir_config::model::Scale;

    use super::*;
    use crate::fake;

    const MONDAY: u64 = 4 * 24 * 3600;

    fn at(day: u64, hour: u64, minute: u64) -> WeekTime {
        let seconds = MONDAY + ((day * 24 + hour) * 60 + minute) * 60;
        WeekTime::of(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn limits(schedule: &[(&[usize], u16, u16, u32)]) -> Limits {
        let schedule = schedule.iter().map(|(days, from, to, min)| {
            let days = std::array::from_fn(|day| days.contains(&day));
            Schedule { days, from: *from, to: *to, min: *min }
        });
        let scale = Scale { min: 1, max: 8, schedule: schedule.collect(), ..Scale::default() };
        Limits::of(&weir_config::model::Pool { scale, ..fake::pool("p") })
    }

    #[test]
    fn the_epoch_was_a_thursday_and_a_clock_before_it_does_no_harm() {
        assert_eq!(WeekTime::of(UNIX_EPOCH).minutes, 3 * DAY);
        assert_eq!(WeekTime::of(UNIX_EPOCH - Duration::from_secs(1)).minutes, 3 * DAY);
        assert_eq!(at(0, 0, 0), WeekTime::default());
        assert_eq!(at(6, 23, 59).minutes, WEEK - 1);
    }

    #[test]
    fn the_highest_of_those_that_hold_counts() {
        let limits =
            limits(&[(&[0, 1, 2, 3, 4], 480, 1080, 4), (&[5], 1320, 360, 2), (&[4], 1020, 1440, 99)]);
        let min = |day, hour, minute| limits.minimum(at(day, hour, minute)).0;
        assert_eq!([min(0, 7, 59), min(0, 8, 0), min(0, 17, 59), min(0, 18, 0)], [1, 4, 4, 1]);
        assert_eq!([min(4, 16, 59), min(4, 17, 0), min(4, 23, 59), min(5, 0, 0)], [4, 8, 8, 1], "max holds");
        assert_eq!([min(5, 21, 59), min(5, 22, 0), min(6, 5, 59), min(6, 6, 0)], [1, 2, 2, 1]);
        assert_eq!([min(5, 0, 0), min(6, 22, 0)], [1, 1], "only the night that Saturday begins");
    }

    #[test]
    fn a_night_from_sunday_ends_on_monday() {
        let limits = limits(&[(&[6], 1380, 60, 5)]);
        let min = |day, hour| limits.minimum(at(day, hour, 0)).0;
        assert_eq!([min(6, 22), min(6, 23), min(0, 0), min(0, 1)], [1, 5, 5, 1]);
    }

    #[test]
    fn the_next_change_is_looked_for_and_the_clock_once_a_minute() {
        let limits = limits(&[(&[0], 480, 1440, 4)]);
        let look = |time: WeekTime| limits.minimum(time).1.unwrap();
        assert_eq!(look(at(0, 3, 0)), MINUTE);
        assert_eq!(look(at(0, 8, 0)), MINUTE, "not at once again");
        let late = WeekTime { within: Duration::from_millis(59_750), ..at(0, 7, 59) };
        assert_eq!((limits.minimum(late).0, look(late)), (1, Duration::from_millis(250)));
        let midnight = WeekTime { within: Duration::from_secs(58), ..at(6, 23, 59) };
        assert_eq!(look(midnight), Duration::from_secs(2));
        assert_eq!(Limits { schedule: vec![], ..limits.clone() }.minimum(late).1, None);
    }
}
