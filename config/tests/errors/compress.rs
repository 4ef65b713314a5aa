//! Mistakes in `route.compress`.

use crate::{LISTENER, POOL, check};

#[test]
fn compression() {
    let compress = "route[0].compress";
    let no_type = |text: &str| {
        format!(r#"{compress}.types[0]: {text:?} is no media type such as "text/html", without parameters"#)
    };
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n"),
        &[
            ["compress = true", ""],
            ["compress = false", ""],
            ["compress = {}", ""],
            ["compress = { algorithms = ['gzip', 'br'], level = 6, types = ['Text/HTML'] }", ""],
            ["compress = { min_length = '0B' }", ""],
            ["compress = 'gzip'", &format!("{compress}: expected a boolean or a table, found a string")],
            ["compress.algorithms = []", &format!("{compress}.algorithms: must name at least one algorithm")],
            [
                "compress.algorithms = ['br', 'br']",
                &format!(r#"{compress}.algorithms: names "br" more than once"#),
            ],
            [
                "compress.algorithms = ['deflate']",
                &format!(r#"{compress}.algorithms[0]: must be "zstd", "br" or "gzip", is "deflate""#),
            ],
            ["compress.level = 0", &format!("{compress}.level: must be from 1 to 6, is 0")],
            ["compress.level = 7", &format!("{compress}.level: must be from 1 to 6, is 7")],
            ["compress.types = ['text']", &no_type("text")],
            ["compress.types = ['text/*']", &no_type("text/*")],
            ["compress.types = ['text/html; charset=utf-8']", &no_type("text/html; charset=utf-8")],
            [
                "compress.types = []",
                &format!(
                    "{compress}.types: must name at least one media type; leave it out for the usual ones"
                ),
            ],
            [
                "compress.types = ['image/png']",
                &format!(r#"{compress}.types[0]: "image/png" is compressed in itself"#),
            ],
            [
                "compress.types = ['application/grpc+proto']",
                &format!("{compress}.types[0]: gRPC compresses its messages itself"),
            ],
            ["compress.levle = 1", &format!(r#"{compress}.levle: unknown key, did you mean "level"?"#)],
        ],
    );
    check(
        LISTENER,
        &[[
            "[[route]]\nrespond = {}\ncompress = true",
            &format!("{compress}: a route with respond has no compress"),
        ]],
    );
}
