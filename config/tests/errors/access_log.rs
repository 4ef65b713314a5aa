//! Mistakes in `[access_log]` and `route.server_timing`.

use crate::{LISTENER, POOL, check};

#[test]
fn access_log() {
    check(
        LISTENER,
        &[
            ["[access_log]", ""],
            ["[access_log]\nformat = 'combined'\nfile = '/var/log/weir.log'\nsample = 0.001", ""],
            [
                "[access_log]\nformat = 'clf'",
                r#"access_log.format: must be "json", "common" or "combined", is "clf""#,
            ],
            ["[access_log]\nfile = ''", "access_log.file: must not be empty"],
            ["[access_log]\nsample = 0", "access_log.sample: must be from 0.001 to 1, is 0"],
            ["[access_log]\nsample = 1.001", "access_log.sample: must be from 0.001 to 1, is 1.001"],
            ["[access_log]\nfiles = 'x'", r#"access_log.files: unknown key, did you mean "file"?"#],
            ["[[access_log]]", "access_log: expected a table, found an array"],
        ],
    );
}

#[test]
fn server_timing() {
    check(
        &format!("{LISTENER}{POOL}"),
        &[
            ["[[route]]\npool = 'hello'\nserver_timing = true", ""],
            [
                "[[route]]\npool = 'hello'\nserver_timing = 1",
                "route[0].server_timing: expected a boolean, found an integer",
            ],
            [
                "[[route]]\nrespond = {}\nserver_timing = true",
                "route[0].server_timing: a route with respond has no server_timing",
            ],
        ],
    );
}
