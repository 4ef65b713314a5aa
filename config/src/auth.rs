//! `[route.auth]`: how clients say who they are.

use crate::fields;
use crate::file;
use crate::jwt;
use crate::model::{Auth, BasicAuth};
use crate::reader::Reader;
use crate::values::{boolean, string};

/// Longest realm, bytes.
const LONGEST_REALM: usize = 128;

/// `Some(None)`: the route asks nobody. `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Option<Auth>> {
    table.optional_table("auth", |table| {
        // Both first: one must not hide the other's mistakes.
        let (basic, jwt) = (table.optional_table("basic", basic), table.optional_table("jwt", jwt::read));
        match (basic?, jwt?) {
            (Some(basic), None) => Some(Auth::Basic(basic)),
            (None, Some(jwt)) => Some(Auth::Jwt(jwt)),
            _ => {
                table.sink().report(table.place(), "needs either basic or jwt");
                None
            }
        }
    })
}

fn basic(table: &mut Reader<'_>) -> Option<BasicAuth> {
    let file = table.read("file", file::read).required();
    let realm = table.read("realm", string).check(|realm| check_realm(realm)).or("weir".to_owned());
    let default = http::HeaderName::from_static("x-forwarded-user");
    let user_header = table.read("user_header", |value| fields::name(&string(value)?)).or(default);
    let forward = table.read("forward", boolean).or(false);
    Some(BasicAuth {
        file: file?.value,
        realm: realm?.value,
        user_header: user_header?.value,
        forward: forward?.value,
    })
}

/// What a quoted string can have in it without escapes (RFC 9110 §5.6.4).
pub(crate) fn check_realm(realm: &str) -> Result<(), String> {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if realm.len() <= LONGEST_REALM && realm.bytes().all(is_plain) {
        return Ok(());
    }
    Err(format!(r#"has at most {LONGEST_REALM} characters of printable ASCII, and neither " nor \"#))
}
