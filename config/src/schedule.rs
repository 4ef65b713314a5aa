//! `[[pool.NAME.scale.schedule]]`: minimums for times of the week.

use toml::de::DeValue;

use crate::error::Sink;
use crate::key::{Located, Place};
use crate::model::Schedule;
use crate::reader::Reader;
use crate::values::{choice, integer, string};

/// Days by their index in [`Schedule::days`].
const DAYS: &[(&str, usize)] =
    &[("mon", 0), ("tue", 1), ("wed", 2), ("thu", 3), ("fri", 4), ("sat", 5), ("sun", 6)];
/// Minutes.
const DAY: u16 = 24 * 60;

/// Most schedules of a pool: each is looked at whenever the pool decides how many VMs it wants.
const MOST: usize = 64;

/// One `[[pool.NAME.scale.schedule]]` as far as it is valid.
pub(crate) struct ScheduleSection {
    place: Place,
    days: Option<Located<Vec<usize>>>,
    from: Option<Located<u16>>,
    to: Option<Located<u16>>,
    pub(crate) min: Option<Located<u32>>,
}

impl ScheduleSection {
    pub(crate) fn read(table: &mut Reader<'_>) -> Self {
        let every_day = DAYS.iter().map(|(_, index)| *index).collect();
        let section = Self {
            place: table.place().clone(),
            days: table.strings("days", choice(DAYS)).check(|days| distinct(days)).or(every_day),
            from: table.read("from", time).check(begins_within_a_day).required(),
            to: table.read("to", time).required(),
            min: table.read("min", integer(0..=u32::MAX)).required(),
        };
        if let (Some(from), Some(to)) = (&section.from, &section.to)
            && from.value == to.value
        {
            let message = r#"is the same as from; a whole day is from "00:00" to "24:00""#;
            table.sink().report(&to.place, message);
        }
        section
    }

    pub(crate) fn into_schedule(self) -> Option<Schedule> {
        let mut days = [false; 7];
        for day in self.days?.value {
            days[day] = true;
        }
        Some(Schedule { days, from: self.from?.value, to: self.to?.value, min: self.min?.value })
    }
}

/// There are not too many.
pub(crate) fn check_number(schedules: &[ScheduleSection], sink: &Sink) {
    if let Some(first) = schedules.get(MOST) {
        let message = format!("there are {} schedules, must be at most {MOST}", schedules.len());
        sink.report(&first.place, message);
    }
}

fn distinct(days: &[usize]) -> Result<(), String> {
    if days.is_empty() {
        return Err("must name at least one day; leave it out for all".to_owned());
    }
    for (index, (name, _)) in DAYS.iter().enumerate() {
        if days.iter().filter(|day| **day == index).count() > 1 {
            return Err(format!("names {name:?} more than once"));
        }
    }
    Ok(())
}

fn begins_within_a_day(from: &u16) -> Result<(), String> {
    if *from < DAY { Ok(()) } else { Err(r#"must be from "00:00" to "23:59", is "24:00""#.to_owned()) }
}

/// A time of day, minutes since midnight: `HH:MM`, to 24:00.
fn time(value: &DeValue<'_>) -> Result<u16, String> {
    let text = string(value)?;
    minutes(&text).ok_or_else(|| format!(r#"{text:?} is no time of day such as "08:30" or "24:00""#))
}

fn minutes(text: &str) -> Option<u16> {
    let number = |digits: &str| {
        let two = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY).then_some(total)
}
