//! Mistakes in `[pool.NAME.scale]`: in what the number of VMs follows.

use crate::{LISTENER, POOL, check};

#[test]
fn windows_and_rates() {
    check(
        &format!("{LISTENER}{POOL}[pool.hello.scale]\n"),
        &[
            ["stable_window = '3s'", ""],
            ["panic_window = '30s'", ""],
            [
                "stable_window = '2s'",
                "pool.hello.scale.panic_window: 3s is longer than stable_window, which is 2s",
            ],
            [
                "stable_window = '1m'\npanic_window = '1m1ms'",
                "pool.hello.scale.panic_window: 1m1ms is longer than stable_window, which is 1m",
            ],
            ["stable_window = '0s'", "pool.hello.scale.stable_window: must be longer than zero"],
            [
                "panic_window = 3",
                r#"pool.hello.scale.panic_window: expected a duration such as "30s", found an integer; units are ms, s, m, h"#,
            ],
            ["panic_threshold = 1\nmax_up_rate = 1.001\nmax_down_rate = 1000", ""],
            ["panic_threshold = 0.999", "pool.hello.scale.panic_threshold: must be from 1 to 1000, is 0.999"],
            [
                "panic_threshold = 1000.5",
                "pool.hello.scale.panic_threshold: must be from 1 to 1000, is 1000.5",
            ],
            ["panic_threshold = 0x2", "pool.hello.scale.panic_threshold: must be a decimal number"],
            ["max_up_rate = 1.0", "pool.hello.scale.max_up_rate: must be from 1.001 to 1000, is 1.0"],
            ["max_down_rate = 1", "pool.hello.scale.max_down_rate: must be from 1.001 to 1000, is 1"],
            ["idle = 'unused'", ""],
            [
                "idle = 'park'",
                r#"pool.hello.scale.idle: must be "parked" or "unused", is "park", did you mean "parked"?"#,
            ],
            ["idle = false", "pool.hello.scale.idle: expected a string, found a boolean"],
        ],
    );
}

#[test]
fn schedules() {
    let schedule = "pool.hello.scale.schedule";
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["scale.schedule = []", ""],
            ["scale.schedule = 3", &format!("{schedule}: expected tables [[schedule]], found an integer")],
            ["scale.schedule = [3]", &format!("{schedule}[0]: expected a table, found an integer")],
            [
                "[[pool.hello.scale.schedule]]",
                &format!(
                    "{schedule}[0].from: required key is missing\n\
                     {schedule}[0].to: required key is missing\n\
                     {schedule}[0].min: required key is missing"
                ),
            ],
        ],
    );
    let message = |message: &str| format!("{schedule}[0].{message}");
    let days = r#"must be "mon", "tue", "wed", "thu", "fri", "sat" or "sun", is"#;
    check(
        &format!("{LISTENER}{POOL}[[pool.hello.scale.schedule]]\nfrom = '08:00'\nto = '18:00'\n"),
        &[
            ["min = 64\ndays = ['sun', 'mon']", ""],
            ["min = 65", &message("min: 65 is more than scale.max, which is 64")],
            ["min = 3\n[pool.hello.scale]\nmax = 2", &message("min: 3 is more than scale.max, which is 2")],
            ["min = -1", &message("min: must be from 0 to 4294967295, is -1")],
            ["min = 1\ndays = []", &message("days: must name at least one day; leave it out for all")],
            ["min = 1\ndays = ['tue', 'mon', 'tue']", &message(r#"days: names "tue" more than once"#)],
            ["min = 1\ndays = 'mon'", &message("days: expected an array of strings, found a string")],
            [
                "min = 1\ndays = ['Mon', 1, 'sat']",
                &format!(
                    "{schedule}[0].days[0]: {days} \"Mon\", did you mean \"mon\"?\n\
                     {schedule}[0].days[1]: expected a string, found an integer"
                ),
            ],
        ],
    );
}

#[test]
fn times_of_schedules() {
    let context = |from: &str, to: &str| {
        format!("{LISTENER}{POOL}[[pool.hello.scale.schedule]]\nmin = 1\nfrom = '{from}'\nto = '{to}'")
    };
    let schedule = "pool.hello.scale.schedule[0]";
    for (from, to) in [("00:00", "24:00"), ("22:00", "06:00"), ("23:59", "00:00"), ("00:00", "00:01")] {
        check(&context(from, to), &[["", ""]]);
    }
    let equal = format!(r#"{schedule}.to: is the same as from; a whole day is from "00:00" to "24:00""#);
    check(&context("07:30", "07:30"), &[["", &equal]]);
    let late = format!(r#"{schedule}.from: must be from "00:00" to "23:59", is "24:00""#);
    check(&context("24:00", "07:30"), &[["", &late]]);
    for text in [
        "",
        ":",
        "8:00",
        "08:0",
        "08",
        "24:01",
        "25:00",
        "99:99",
        "08:60",
        "+8:00",
        "08:-1",
        "08:00:00",
        " 08:00",
        "०८:००",
    ] {
        let message = format!(r#"{schedule}.to: {text:?} is no time of day such as "08:30" or "24:00""#);
        check(&context("00:00", text), &[["", &message]]);
    }
}

#[test]
fn number_of_schedules() {
    let schedules =
        |count: usize| "[[pool.hello.scale.schedule]]\nfrom = '08:00'\nto = '09:00'\nmin = 1\n".repeat(count);
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            [&schedules(64), ""],
            [&schedules(65), "pool.hello.scale.schedule[64]: there are 65 schedules, must be at most 64"],
        ],
    );
}
