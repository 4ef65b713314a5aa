//! Mistakes in `[[route.filter.rule]]`.

use std::iter;

use weir_config::parse;

use crate::{LISTENER, POOL, check, messages};

fn context() -> String {
    format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[[route.filter.rule]]\n")
}

/// The message about this condition; empty if there is none.
fn about(condition: &str) -> String {
    let found = messages(&format!("{}then = 'deny'\nwhen = '''{condition}'''", context()));
    let found = found.join("\n");
    found.strip_prefix("route[0].filter.rule[0].when: ").unwrap_or(&found).to_owned()
}

#[test]
fn keys() {
    let needs_word = r#"route[0].filter.rule[0].then: must be "deny" or "allow", is "#;
    check(
        &context(),
        &[
            ["when = 'true'\nthen = 'deny'", ""],
            ["when = 'true'\nthen = 'allow'", ""],
            ["when = 'true'\nthen = 451", ""],
            [
                "",
                "route[0].filter.rule[0].when: required key is missing\n\
                 route[0].filter.rule[0].then: required key is missing",
            ],
            ["when = 'true'\nthen = 'denny'", &format!(r#"{needs_word}"denny", did you mean "deny"?"#)],
            ["when = 'true'\nthen = 200", "route[0].filter.rule[0].then: must be from 400 to 599, is 200"],
            ["when = 1\nthen = 'deny'", "route[0].filter.rule[0].when: expected a string, found an integer"],
            ["when = 'true'\nthen = 'deny'\nif = ''", "route[0].filter.rule[0].if: unknown key"],
        ],
    );
    let rule = "[[route.filter.rule]]\nwhen = 'true'\nthen = 'deny'\n";
    let many: String = iter::repeat_n(rule, 10_001).collect();
    let found = messages(&format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n{many}"));
    assert_eq!(found, ["route[0].filter.rule: a route has at most 10000 rules, this one has 10001"]);
}

#[test]
fn valid_conditions() {
    for condition in [
        "request.method == 'POST' && !request.path.startsWith('/api') || request.tls",
        "request.query.contains('union select') || size(request.path) > 100 || request.host.size() == 3",
        r"request.headers['user-agent'].matches('(?i)bot|spider')",
        "request.headers.accept == '*/*'",
        "'x-api' in request.headers && has(request.headers.origin)",
        "request.path in ['/a', '/b'] ? request.http_version == '2' : false",
        "ip_in(client.ip, '10.0.0.0/8') || ip_in(request.headers['x-real-ip'], '2001:db8::/32')",
        "matches(request.path, '^/a') == true && request.path.endsWith(request.host) && 'a' < request.host",
        "request.headers.connection == 'close'",
    ] {
        assert_eq!(about(condition), "", "{condition}");
    }
}

#[test]
fn unknown_names_and_types() {
    for (condition, message) in [
        ("request.pth == '/'", r#"unknown name "request.pth", did you mean "request.path"?"#),
        ("path == '/'", r#"unknown name "path""#),
        ("request", r#"unknown name "request""#),
        ("request.path", "must be a boolean, is a string"),
        ("size(request.path)", "must be a boolean, is an integer"),
        ("request.path == 1", "== is not for a string and an integer"),
        ("request.tls && request.path", "&& is not for a boolean and a string"),
        ("!request.path", "! is not for a string"),
        ("request.path > 1", "> is not for a string and an integer"),
        ("request.tls ? 1 : 'a'", "?_: is not for a boolean and an integer and a string"),
        ("1 in ['a']", "in is not for an integer and a list of strings"),
        ("request.path + 'x' == '/x'", "the operator + is not for rules"),
        (
            "request.path.startWith('/')",
            "unknown function startWith(), did you mean \"startsWith\"?; there are startsWith, endsWith, contains, matches, \
             size, has, ip_in",
        ),
        ("startsWith(request.path, '/')", "startsWith() is not called so with a string and a string"),
        ("request.path.startsWith(1)", "startsWith() is not called so with a string and an integer"),
        ("size()", "size() is not called so with nothing"),
        ("request.headers['X-A'] == 'b'", "names of header fields are written in lower case"),
        ("request.headers['x a'] == 'b'", r#""x a" is no name of a header field"#),
        ("request.headers[request.path] == 'b'", "the name of a header field must be a literal"),
        ("request.path in request.headers", "the name of a header field must be a literal"),
        (
            "request.headers == 'b'",
            r#"request.headers is asked for one field, such as request.headers["x-api"]"#,
        ),
        ("request.path['a'] == 'b'", "only request.headers has fields in brackets"),
        ("has(request.path)", "only request.headers has fields that has() can ask for"),
        (
            "ip_in(client.ip, '10.0.0.1/8')",
            "10.0.0.1/8 is an address within a network, did you mean \"10.0.0.0/8\"?",
        ),
        ("ip_in(client.ip, request.path)", "the network that ip_in() is given must be a literal"),
        ("ip_in(request.tls, '::/0')", "ip_in() is for strings of a request, such as client.ip"),
        ("'a'.matches('a')", "matches() is for strings of a request, such as client.ip"),
        ("request.path.matches('(')", r#""(" is no regular expression: unclosed group"#),
        ("request.path.matches(request.host)", "the expression that matches() is given must be a literal"),
        ("request.path in [request.host]", "a list must be of literal strings"),
        ("1.5 == 1.5", "bytes, null and numbers other than plain integers are not for rules"),
        ("{'a': 1} == {'a': 1}", "maps and messages are not for rules"),
    ] {
        assert_eq!(about(condition), message, "{condition}");
    }
    let loops = about("request.headers.all(name, name != 'x')");
    assert!(loops.starts_with("all, exists, exists_one, map and filter are not for rules"), "{loops}");
}

#[test]
fn what_is_no_cel() {
    for (condition, message) in [
        ("", "is no CEL expression: column 1: mismatched input '<EOF>'"),
        ("request.path ==", "is no CEL expression: column 16: mismatched input '<EOF>'"),
        ("true\n&& )", "is no CEL expression: line 2, column 4: mismatched input ')'"),
        ("'a", "is no CEL expression: column 1: token recognition error at: ''a'"),
    ] {
        assert_eq!(about(condition), message, "{condition}");
    }
}

/// None of these overflows a stack, or takes long.
#[test]
fn deep_and_long_conditions() {
    let nested =
        |open: &str, close: &str, times: usize| format!("{}true{}", open.repeat(times), close.repeat(times));
    assert_eq!(about(&nested("(", ")", 20)), "");
    for condition in [
        nested("(", ")", 2000),
        nested("true ? ", " : false", 200),
        nested("[", "]", 2000),
        format!("request.path{}", ".size()".repeat(500)),
        format!("1{} == 2", " + 1".repeat(500)),
        format!("request{}", ".a".repeat(2000)),
    ] {
        assert_ne!(about(&condition), "", "{condition}");
    }
    assert_eq!(about(&nested("(", ")", 200)), "is nested more than 32 deep");
    assert_eq!(about(&format!("true{}", " && true".repeat(400))), "", "a long conjunction is not deep");
    assert_eq!(about(&" ".repeat(4097)), "must not be longer than 4096 bytes, is 4097");
    let huge = about(r"request.path.matches('(\\w{50}){20}')");
    assert!(huge.ends_with("takes more than 262144 bytes when compiled"), "{huge}");
}

#[test]
fn rules_are_equal_if_they_are_written_so() {
    let config = |when: &str| {
        parse(&format!("{}when = \"{when}\"\nthen = 404", context()), "t").unwrap().routes[0].filter.clone()
    };
    assert_eq!(config("request.tls"), config("request.tls"));
    assert_ne!(config("request.tls"), config("!request.tls"));
}
