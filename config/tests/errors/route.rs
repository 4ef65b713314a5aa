//! Mistakes in `[[route]]`.

use crate::{LISTENER, POOL, check};

#[test]
fn routes() {
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["[[route]]\npool = 'hello'", ""],
            ["[route]\npool = 'hello'", "route: expected tables [[route]], found a table"],
            ["[[route]]", "route[0].pool: required key is missing"],
            ["[[route]]\npool = 'helo'", r#"route[0].pool: no pool is named "helo", did you mean "hello"?"#],
            ["[[route]]\npool = 'other'", r#"route[0].pool: no pool is named "other""#],
            ["[[route]]\npool = 'hello'\npath = 'api'", r#"route[0].path: must start with "/", is "api""#],
            ["[[route]]\npool = 'hello'\npath = '/a/../b'", r#"route[0].path: "/a/../b" has a dot segment"#],
            [
                "[[route]]\npool = 'hello'\nname = ''",
                r#"route[0].name: a route's name has 1 to 63 characters of a-z, A-Z, 0-9, ".", "_" and "-""#,
            ],
            [
                "[[route]]\npool = 'hello'\nname = '*/'",
                r#"route[0].name: a route's name has 1 to 63 characters of a-z, A-Z, 0-9, ".", "_" and "-""#,
            ],
            [
                "[[route]]\npool = 'hello'\nname = 'a'\n[[route]]\npool = 'hello'\nname = 'a'\npath = '/x'",
                r#"route[1].name: route[0] has the name "a" already"#,
            ],
        ],
    );
}

#[test]
fn route_hosts() {
    let context = format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\nhost =");
    for valid in ["a", "1.2.3.4", "[::1]", "*.b", "a-b.c_d.e1", "*.example.org", "xn--mnchen-3ya.de"] {
        check(&context, &[[&format!("'{valid}'"), ""]]);
    }
    let long = format!("{}.de", "a".repeat(64));
    for text in
        ["a..b", ".a", "a.", "a:80", "*a.b", "a.*.b", "*.", "-a", "a-", "a b", "a/b", "[::1", "::1", &long]
    {
        let message = format!(
            r#"route[0].host: {text:?} is no host such as "example.org" or "*.example.org", without a port"#
        );
        check(&context, &[[&format!("'{text}'"), &message]]);
    }
    check(
        &context,
        &[
            ["''", "route[0].host: leave host out to match any host"],
            ["'*'", "route[0].host: leave host out to match any host"],
            ["'münchen.de'", r#"route[0].host: "münchen.de" is not ASCII; write its "xn--" form"#],
            ["'*.1.2.3.4'", r#"route[0].host: "*.1.2.3.4": an address has no names below it"#],
        ],
    );
}

#[test]
fn overlapping_routes() {
    let route = |keys: &str| format!("[[route]]\npool = 'hello'\n{keys}\n");
    let context = format!("{LISTENER}{POOL}");
    for (first, second, expected) in [
        ("", "path = '/a'", ""),
        ("", "host = 'a'", ""),
        ("host = 'a.b'", "host = '*.b'", ""),
        ("", "path = '/'", r#"route[1]: overlaps route[0]: both match host "*" and path "/""#),
        (
            "host = 'A.example'\npath = '/x'\nname = 'first'",
            "host = 'a.Example'\npath = '/%78/'",
            r#"route[1]: overlaps route[0] ("first"): both match host "a.example" and path "/x""#,
        ),
        (
            "host = '*.example'",
            "host = '*.EXAMPLE'",
            r#"route[1]: overlaps route[0]: both match host "*.example" and path "/""#,
        ),
        (
            "host = '[0:0::1]'",
            "host = '[::1]'",
            r#"route[1]: overlaps route[0]: both match host "[::1]" and path "/""#,
        ),
    ] {
        check(&context, &[[&format!("{}{}", route(first), route(second)), expected]]);
    }
}
