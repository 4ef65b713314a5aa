//! Mistakes in `route.headers`.

use crate::{LISTENER, POOL, check};

#[test]
fn headers() {
    let at = "route[0].headers";
    let many: Vec<_> = (0..17).map(|n| format!("x-{n} = ''")).collect();
    check(
        &format!("{LISTENER}{POOL}[[route]]\nname = 'a'\npool = 'hello'\n"),
        &[
            ["headers = { x-api = 'v2', user-agent = { regex = '^curl/' } }", ""],
            ["headers = 'x-api'", &format!("{at}: expected a table of header fields, found a string")],
            ["headers = {}", &format!("{at}: must have 1 to 16 fields, has 0")],
            [
                &format!("headers = {{ {} }}", many.join(", ")),
                &format!("{at}: must have 1 to 16 fields, has 17"),
            ],
            ["headers = { host = 'a' }", &format!("{at}: host is a key of its own")],
            ["headers = { X-Api = 'a' }", &format!("{at}: names of header fields are written in lower case")],
            [
                "headers = { x-api = 2 }",
                &format!("{at}: x-api: expected a string or {{ regex = \"...\" }}, found an integer"),
            ],
            [
                "headers = { x-api = { regex = 'a', prefix = 'b' } }",
                &format!("{at}: x-api: its table has regex, and nothing else"),
            ],
            [
                "headers = { x-api = { regex = '(' } }",
                &format!("{at}: x-api: \"(\" is no regular expression: unclosed group"),
            ],
            [
                "headers = { x-api = ' v2' }",
                &format!(
                    "{at}: x-api: \" v2\" is no value of a field: printable ASCII without blanks at its ends"
                ),
            ],
        ],
    );
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[[route]]\npool = 'hello'\n"),
        &[
            ["headers = { x-api = 'v2' }", "route[1].headers: a route with headers needs a name"],
            [
                "name = 'b'\nheaders = { x-a = '1', x-b = '2' }\n[[route]]\nname = 'c'\npool = 'hello'\n\
                 headers = { x-b = '2', x-a = '1' }",
                "route[2]: overlaps route[1] (\"b\"): both match host \"*\" and path \"/\", and the same headers",
            ],
            [
                "name = 'b'\nheaders = { x-a = '1' }\n[[route]]\nname = 'c'\npool = 'hello'\nheaders = { x-a = '2' }",
                "",
            ],
        ],
    );
}
