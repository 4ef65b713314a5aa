//! Mistakes in what a route does with requests: methods, fixed answers, redirects, rewrites.

use crate::{LISTENER, POOL, check};

#[test]
fn destinations() {
    let several = "a route has one of pool, pools, respond and redirect, this one has";
    check(
        &format!("{LISTENER}{POOL}[[route]]\n"),
        &[
            ["respond = {}", ""],
            ["redirect = { to = '/x' }", ""],
            ["pool = 'hello'\nrespond = {}", &format!("route[0].respond: {several} pool and respond")],
            [
                "respond = {}\nredirect = { to = '/x' }",
                &format!("route[0].redirect: {several} respond and redirect"),
            ],
            ["respond = {}\nclass = 'default'", "route[0].class: a route with respond has no class"],
            [
                "redirect = { to = '/x' }\nrewrite = { prefix = '/' }",
                "route[0].rewrite: a route with redirect has no rewrite",
            ],
        ],
    );
}

#[test]
fn methods() {
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\nmethods ="),
        &[
            ["['GET', 'HEAD', 'M-SEARCH']", ""],
            ["'GET'", "route[0].methods: expected an array of strings, found a string"],
            ["[]", "route[0].methods: must name at least one method; leave it out for all"],
            ["['GET', 'PUT', 'GET']", "route[0].methods: names GET more than once"],
            ["['get']", r#"route[0].methods[0]: "get" is no method such as "GET""#],
            ["['']", r#"route[0].methods[0]: "" is no method such as "GET""#],
            ["['A B']", r#"route[0].methods[0]: "A B" is no method such as "GET""#],
            ["['CONNECT']", "route[0].methods[0]: CONNECT is never served"],
            ["[1]", "route[0].methods[0]: expected a string, found an integer"],
        ],
    );
}

#[test]
fn answers() {
    let long = format!("body = '{}'", "x".repeat(65537));
    let framing = "frames messages or is for one hop only, and is weir's to set";
    check(
        &format!("{LISTENER}[[route]]\n[route.respond]\n"),
        &[
            ["status = 599\nbody = 'x'\nheaders = { x-a = 'b' }", ""],
            ["status = 199", "route[0].respond.status: must be from 200 to 599, is 199"],
            ["status = 204\nbody = 'x'", "route[0].respond.body: an answer with status 204 has no body"],
            [&long, "route[0].respond.body: must not be longer than 65536 bytes, is 65537"],
            ["text = 'x'", "route[0].respond.text: unknown key"],
            ["headers = 1", "route[0].respond.headers: expected a table of strings, found an integer"],
            ["headers.content-length = '5'", &format!("route[0].respond.headers.content-length: {framing}")],
            ["headers.connection = 'x'", &format!("route[0].respond.headers.connection: {framing}")],
            [
                "headers.X-A = 'b'",
                "route[0].respond.headers.X-A: names of header fields are written in lower case",
            ],
            ["headers.'x a' = 'b'", r#"route[0].respond.headers."x a": "x a" is no name of a header field"#],
            [
                "headers.x-a = \"b\\r\\nc: d\"",
                "route[0].respond.headers.x-a: has a character that no header field has, only printable ASCII and tabs",
            ],
        ],
    );
}

#[test]
fn redirects() {
    let context = format!("{LISTENER}[[route]]\nredirect = {{ to =");
    for valid in ["https://{host}{path}{query}", "http://a.example:8080", "/x{path}", "/", "https://a/{host}"]
    {
        check(&context, &[[&format!("'{valid}' }}"), ""]]);
    }
    // An authority must never come from a request's path.
    for text in [
        "",
        "x",
        "{path}",
        "//a.example",
        "/{path}",
        "/\\a",
        "https://",
        "https:///a",
        "https://{path}",
        "ftp://a",
    ] {
        let message = format!(
            r#"route[0].redirect.to: {text:?} must begin with "https://" or "http://" and a host or {{host}}, or with a slash and a literal path"#
        );
        check(&context, &[[&format!("'{text}' }}"), &message]]);
    }
    check(
        &context,
        &[
            ["'/x', status = 303 }", ""],
            ["'/x', status = 300 }", "route[0].redirect.status: must be 301, 302, 303, 307 or 308, is 300"],
            ["'/x', status = 200 }", "route[0].redirect.status: must be from 300 to 399, is 200"],
            ["'/a{uri}' }", "route[0].redirect.to: {uri} is unknown, there are {host}, {path} and {query}"],
            ["'/a{path' }", r#"route[0].redirect.to: "/a{path" has an open {"#],
            [
                "'/a b' }",
                "route[0].redirect.to: has a character that no location has, only printable ASCII without blanks",
            ],
        ],
    );
}

#[test]
fn rewrites() {
    let either = "route[0].rewrite: needs either prefix, or regex and to";
    let huge = "regex = '(\\w{100}){100}', to = '/' }";
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\nrewrite = {{"),
        &[
            ["prefix = '/' }", ""],
            ["regex = '^/(?<a>.)(.)', to = '/$a${2}x$$' }", ""],
            ["}", either],
            ["regex = 'a' }", either],
            ["to = '/a' }", either],
            ["prefix = '/', regex = 'a', to = '/' }", either],
            ["prefix = 'x' }", r#"route[0].rewrite.prefix: must start with "/", is "x""#],
            ["prefix = '/../x' }", r#"route[0].rewrite.prefix: "/../x" has a dot segment"#],
            [
                "regex = '^/(', to = '/' }",
                r#"route[0].rewrite.regex: "^/(" is no regular expression: unclosed group"#,
            ],
            [
                huge,
                r#"route[0].rewrite.regex: "(\\w{100}){100}" takes more than 1048576 bytes when compiled"#,
            ],
            [
                "regex = 'a', to = 'b' }",
                r#"route[0].rewrite.to: "b" is no path of printable ASCII such as "/v2/$1""#,
            ],
            [
                "regex = 'a', to = '/b?c' }",
                r#"route[0].rewrite.to: "/b?c" is no path of printable ASCII such as "/v2/$1""#,
            ],
            ["regex = '(a)', to = '/$2' }", r#"route[0].rewrite.to: the expression has no group "2""#],
            ["regex = '(a)', to = '/$1x' }", r#"route[0].rewrite.to: the expression has no group "1x""#],
            ["regex = '(a)', to = '/$' }", r#"route[0].rewrite.to: the expression has no group """#],
            [
                "regex = '(a)', to = '/$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1' }",
                "route[0].rewrite.to: must have at most 16 references to groups, has 17",
            ],
        ],
    );
}
