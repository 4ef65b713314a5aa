//! Key paths as they are shown to people, and suggestions for misspelt names.

/// A key: its path from the root, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Path such as `pool.hello.args[1]`; empty for the whole text.
    pub(crate) key: String,
    /// Offset in the text, bytes.
    pub(crate) offset: usize,
}

impl Place {
    /// The whole text.
    pub(crate) fn root() -> Self {
        Self { key: String::new(), offset: 0 }
    }

    /// The key `name` in this table. Quoted as TOML would want it when it is no bare key.
    pub(crate) fn child(&self, name: &str, offset: usize) -> Self {
        let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let name = if bare { name.to_owned() } else { format!("{name:?}") };
        let key = if self.key.is_empty() { name } else { format!("{}.{name}", self.key) };
        Self { key, offset }
    }

    /// Element `index` of this array.
    pub(crate) fn element(&self, index: usize, offset: usize) -> Self {
        Self { key: format!("{}[{index}]", self.key), offset }
    }
}

/// A value and the key it was written for.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// Holds `name` against what names of tables may be; `what` has one, such as "a pool".
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), String> {
    let valid = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid { Ok(()) } else { Err(format!(r#"{what}'s name has 1 to 63 characters of a-z, 0-9 and "-""#)) }
}

/// Longest name that is compared with others, bytes: the comparison takes the product of both lengths.
const LONGEST_COMPARED: usize = 64;

/// `, did you mean "…"?` with the known name that is most like `name`, or nothing if none is near.
pub(crate) fn suggestion<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    if name.len() > LONGEST_COMPARED {
        return String::new();
    }
    let allowed = 1 + name.len() / 4;
    known
        .into_iter()
        .filter(|known| known.len().abs_diff(name.len()) <= allowed)
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| format!(", did you mean {known:?}?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_bare_are_quoted() {
        let pool = Place::root().child("pool", 0);
        assert_eq!(pool.child("a-b_C9", 0).key, "pool.a-b_C9");
        assert_eq!(pool.child("a b", 0).key, r#"pool."a b""#);
        assert_eq!(pool.child("", 0).key, r#"pool."""#);
        assert_eq!(pool.child("x\ny", 0).key, r#"pool."x\ny""#);
        assert_eq!(pool.element(3, 0).child("ö", 0).key, r#"pool[3]."ö""#);
    }

    #[test]
    fn near_names_are_suggested() {
        let known = ["address", "port", "path", "memory"];
        for (name, expected) in [
            ("adress", r#", did you mean "address"?"#),
            ("prot", r#", did you mean "port"?"#),
            ("pat", r#", did you mean "path"?"#),
            ("memroy", r#", did you mean "memory"?"#),
            ("tls", ""),
            ("", ""),
            ("class", ""),
            (&"address".repeat(10), ""),
        ] {
            assert_eq!(suggestion(name, known), expected, "{name}");
        }
    }
}
