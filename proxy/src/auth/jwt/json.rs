//! Objects in JSON in which no member is there twice.
//!
//! Of two members with one name some readers take the first and some the last (RFC 8259 §4), so that weir and an
//! application could see two users in one token. RFC 7515 §4 and RFC 7519 §4 let such tokens be refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

/// An object's members by their names.
#[derive(Debug, PartialEq)]
pub(super) struct Object(BTreeMap<String, Value>);

impl Object {
    /// `None`: it is no object, or one with a member twice.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The string of this name; `None`: there is none, or something else.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_and_nothing_else() {
        let object = Object::parse(br#" {"a": "x", "b": 1} "#).unwrap();
        assert_eq!((object.text("a"), object.text("b"), object.text("c")), (Some("x"), None, None));
        let deep = [b"{\"a\":".to_vec(), vec![b'['; 8000]].concat();
        for bytes in [
            &b""[..],
            b"[]",
            b"\"a\"",
            b"{",
            b"{} {}",
            b"{\"a\": 1, \"a\": 1}",
            // The same name in another spelling.
            b"{\"a\": 1, \"\\u0061\": 1}",
            b"{\"a\": \"\xff\"}",
            b"{\"a\": \"\\ud800\"}",
            &deep,
        ] {
            assert_eq!(Object::parse(bytes), None, "{bytes:?}");
        }
    }
}
