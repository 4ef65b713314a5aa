//! Mistakes in `[class.NAME]`, and in what routes say of classes.

use crate::{LISTENER, POOL, check};

#[test]
fn classes() {
    let name = r#"a class's name has 1 to 63 characters of a-z, 0-9 and "-""#;
    check(
        LISTENER,
        &[
            ["[class.interactive]\nweight = 1000\n[class.batch]", ""],
            ["[class.default]\nweight = 5", ""],
            ["[[class]]\nweight = 1", "class: expected tables [class.NAME], found an array"],
            ["[class]\nbatch = 3", "class.batch: expected a table, found an integer"],
            ["[class.Batch]", &format!("class.Batch: {name}")],
            ["[class.'']", &format!(r#"class."": {name}"#)],
            ["[class.a]\nweight = 0", "class.a.weight: must be from 1 to 1000, is 0"],
            ["[class.a]\nweight = 1001", "class.a.weight: must be from 1 to 1000, is 1001"],
            ["[class.a]\nweight = 0.5", "class.a.weight: expected an integer, found a float"],
        ],
    );
}

#[test]
fn number_of_classes() {
    let classes = |names: std::ops::Range<usize>| -> String {
        names.rev().map(|index| format!("[class.c{index}]\n")).collect()
    };
    let with_default = format!("{}[class.default]\n", classes(0..63));
    check(
        LISTENER,
        &[
            [&classes(0..63), ""],
            [&with_default, ""],
            [&classes(0..64), r#"class.c0: there are 65 classes, "default" included, must be at most 64"#],
        ],
    );
}

#[test]
fn classes_of_routes() {
    check(
        &format!("{LISTENER}{POOL}[class.interactive]\n[[route]]\npool = 'hello'\n"),
        &[
            ["class = 'interactive'", ""],
            ["class = 'default'", ""],
            [
                "class = 'interactiv'",
                r#"route[0].class: no class is named "interactiv", did you mean "interactive"?"#,
            ],
            ["class = 'defualt'", r#"route[0].class: no class is named "defualt", did you mean "default"?"#],
            ["class = 'batch'", r#"route[0].class: no class is named "batch""#],
            ["class = 1", "route[0].class: expected a string, found an integer"],
            // A class that is wrong is there all the same.
            ["class = 'b'\n[class.b]\nweight = 0", "class.b.weight: must be from 1 to 1000, is 0"],
        ],
    );
}
