//! Who a route lets in, by what clients say of themselves.

use http::HeaderName;

use super::{FileOf, JwtAuth, Passwords};

/// `[route.auth]`: how clients say who they are. Whoever does not is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// By a name and a password.
    Basic(BasicAuth),
    /// By a token that somebody else has signed.
    Jwt(JwtAuth),
}

/// `[route.auth.basic]` (RFC 7617).
#[derive(Clone, Debug, PartialEq)]
pub struct BasicAuth {
    /// Whom it lets in.
    pub file: FileOf<Passwords>,
    /// What browsers show; printable ASCII without quotation marks and backslashes.
    pub realm: String,
    /// Names the user to a VM, which gets no other field of this name.
    pub user_header: HeaderName,
    /// A VM gets the password, too.
    pub forward: bool,
}
