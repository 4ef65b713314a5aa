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
            ["auth = {}", "route[0].auth: needs either basic or jwt"],
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

#[test]
fn jwt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    std::fs::write(&path, format!(r#"{{"keys":[{{"kty":"oct","k":"{}"}}]}}"#, "A".repeat(43))).unwrap();
    let bad = directory.path().join("bad");
    std::fs::write(&bad, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#).unwrap();
    let jwks = format!("jwks = '{}'\n", path.display());
    let file = format!("{jwks}algorithms = ['HS256', 'EdDSA']\n");
    let jwt = "route[0].auth.jwt";
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.auth.jwt]\n"),
        &[
            [&file, ""],
            [
                &format!(
                    "{file}issuer = 'i'\naudience = ['a']\nleeway = '10m'\nheader = 'x-token'\nrealm = 'r'\n\
                     claims_to_headers = {{ sub = 'x-user' }}\nforward = true"
                ),
                "",
            ],
            [&jwks, &format!("{jwt}.algorithms: required key is missing")],
            [
                &format!("{jwks}algorithms = []"),
                &format!("{jwt}.algorithms: must name at least one algorithm"),
            ],
            [
                &format!("{jwks}algorithms = ['none']"),
                &format!(
                    "{jwt}.algorithms[0]: must be \"HS256\", \"HS384\", \"HS512\", \"RS256\", \"RS384\", \"RS512\", \
                     \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\" or \"EdDSA\", is \"none\""
                ),
            ],
            [
                &format!("{jwks}algorithms = ['RS256']"),
                &format!("{jwt}.jwks: none of its keys is for one of the algorithms"),
            ],
            [
                &format!("jwks = '{}'\nalgorithms = ['HS256']", bad.display()),
                &format!("{jwt}.jwks: {bad:?}: key 1: k has 3 bytes, HS256 needs 32"),
            ],
        ],
    );
    let users = directory.path().join("users");
    std::fs::write(&users, USERS).unwrap();
    let basic = format!("[route.auth.basic]\nfile = '{}'\n", users.display());
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n{basic}"),
        &[[&format!("[route.auth.jwt]\n{file}"), "route[0].auth: needs either basic or jwt"]],
    );
}

#[test]
fn where_tokens_are_and_what_is_told_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    std::fs::write(&path, format!(r#"{{"keys":[{{"kty":"oct","k":"{}"}}]}}"#, "A".repeat(43))).unwrap();
    let file = format!("jwks = '{}'\nalgorithms = ['HS256']\n", path.display());
    let jwt = "route[0].auth.jwt";
    check(
        &format!("{LISTENER}{POOL}[[route]]\npool = 'hello'\n[route.auth.jwt]\n"),
        &[
            [
                &format!("{file}leeway = '601s'"),
                &format!("{jwt}.leeway: must not be longer than 10m: tokens would outlive what they say"),
            ],
            [
                &format!("{file}header = 'x-token'\ncookie = 'token'"),
                &format!("{jwt}.cookie: tokens are in either a header or a cookie"),
            ],
            [
                &format!("{file}claims_to_headers = {{ sub = 'host' }}"),
                &format!(
                    "{jwt}.claims_to_headers.sub: frames messages or is for one hop only, and is weir's to set"
                ),
            ],
            [
                &format!("{file}claims_to_headers = {{ sub = 'x-a', name = 'x-a' }}"),
                &format!("{jwt}: claims_to_headers has the field \"x-a\" for several claims"),
            ],
        ],
    );
}
