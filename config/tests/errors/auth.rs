//! Mistakes in `[route.auth]`.

use crate::{LISTENER, POOL, check};

const USERS: &str = "ada:$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234\n";

#[test]
fn basic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users");
    std::fs::write(&path, USERS).unwrap();
    let file = format!("file = '{}'", path.display());
    let bad = directory.path().join("bad");
    std::fs::write(&bad, "# plain\nada:secret\n").unwrap();
    let plain = r#"line 2: user "ada": its password is neither bcrypt nor SHA-crypt; make it bcrypt with "htpasswd -B""#;
    let basic = "route[0].auth.basic";
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n"),
        &[
            ["auth = {}", "route[0].auth: needs basic"],
            ["auth = 'basic'", "route[0].auth: expected a table, found a string"],
            ["auth.basic = {}", &format!("{basic}.file: required key is missing")],
        ],
    );
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.auth.basic]\n"),
        &[
            [&file, ""],
            [&format!("{file}\nrealm = ''\nuser_header = 'x-user'\nforward = true"), ""],
            [&format!("file = '{}'", bad.display()), &format!("{basic}.file: {bad:?}: {plain}")],
            [
                &format!("{file}\nrealm = 'a\"b'"),
                &format!(
                    r#"{basic}.realm: has at most 128 characters of printable ASCII, and neither " nor \"#
                ),
            ],
            [
                &format!("{file}\nuser_header = 'Remote-User'"),
                &format!("{basic}.user_header: names of header fields are written in lower case"),
            ],
            [
                &format!("{file}\nuser_header = 'host'"),
                &format!("{basic}.user_header: frames messages or is for one hop only, and is weir's to set"),
            ],
        ],
    );
    check(&format!("{LISTENER}[[route]]\nrespond = {{}}\n[route.auth.basic]\n"), &[[&file, ""]]);
}
