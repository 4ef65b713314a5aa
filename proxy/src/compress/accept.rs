//! Which coding a client wants (RFC 9110 §12.5.3).

use http::{HeaderMap, HeaderName, header};
use weir_config::model::Coding;

/// A weight in thousandths: 0 to 1000.
type Weight = u16;

/// What a client says of the codings, as far as weir knows them.
#[derive(Debug, Default)]
struct Wishes {
    zstd: Option<Weight>,
    brotli: Option<Weight>,
    gzip: Option<Weight>,
    identity: Option<Weight>,
    /// `*`: all that are not named.
    others: Option<Weight>,
}

/// The coding of `codings` that the client likes best, the first of several; `None`: it wants none, or says nothing.
pub(super) fn choose(headers: &HeaderMap, codings: &[Coding]) -> Option<Coding> {
    let wishes = Wishes::read(headers);
    // Not named, it is as good as any other coding's absence: the least.
    let identity = wishes.identity.unwrap_or(0);
    let wanted = |coding: &Coding| wishes.of(*coding) > 0 && wishes.of(*coding) >= identity;
    // The last of equals is what `max_by_key` finds.
    codings.iter().rev().filter(|coding| wanted(coding)).max_by_key(|coding| wishes.of(**coding)).copied()
}

/// The name of the coding that is chosen if weir offers all it has.
#[cfg(test)]
pub(crate) fn chosen(headers: &HeaderMap) -> Option<&'static str> {
    choose(headers, &[Coding::Zstd, Coding::Brotli, Coding::Gzip]).map(|coding| match coding {
        Coding::Zstd => "zstd",
        Coding::Brotli => "br",
        Coding::Gzip => "gzip",
    })
}

impl Wishes {
    /// An element that makes no sense says nothing.
    fn read(headers: &HeaderMap) -> Self {
        let mut wishes = Self::default();
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        for element in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
            let mut parts = element.split(|byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let (Some(weight), None) = (parts.next().map_or(Some(1000), weight), parts.next()) else {
                continue;
            };
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match name {
                _ if is("gzip") || is("x-gzip") => wishes.gzip = Some(weight),
                _ if is("br") => wishes.brotli = Some(weight),
                _ if is("zstd") => wishes.zstd = Some(weight),
                _ if is("identity") => wishes.identity = Some(weight),
                b"*" => wishes.others = Some(weight),
                _ => {}
            }
        }
        wishes
    }

    fn of(&self, coding: Coding) -> Weight {
        let named = match coding {
            Coding::Zstd => self.zstd,
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        };
        named.or(self.others).unwrap_or(0)
    }
}

/// `q=0.5`; at most three decimals (RFC 9110 §12.4.2).
fn weight(parameter: &[u8]) -> Option<Weight> {
    let (name, value) = std::str::from_utf8(parameter.trim_ascii()).ok()?.split_once('=')?;
    if !name.eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: Weight = format!("{decimals:0<3}").parse().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

/// Whether a list of tokens, over all fields of the name, has this one.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn chosen(values: &[&[u8]]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_bytes(value).unwrap());
        }
        choose(&headers, &ALL)
    }

    #[test]
    fn the_client_chooses_and_else_the_order() {
        for (values, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["identity"], None),
            (&["gzip, deflate, br, zstd"], Some(Coding::Zstd)),
            (&["gzip, deflate, br"], Some(Coding::Brotli)),
            (&["gzip", "br"], Some(Coding::Brotli)),
            (&["GZip;Q=1"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["gzip;q=1.0, br;q=0.9, zstd ; q=0.999"], Some(Coding::Gzip)),
            (&["*"], Some(Coding::Zstd)),
            (&["*;q=0.5, zstd;q=0, br;q=0"], Some(Coding::Gzip)),
            (&["*;q=0"], None),
            (&["*;q=0, gzip"], Some(Coding::Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000"], None),
            (&["gzip;q=0.001"], Some(Coding::Gzip)),
            (&["identity;q=0, gzip;q=0.1"], Some(Coding::Gzip)),
            (&["identity;q=0"], None),
            (&["identity;q=1, gzip;q=0.5"], None),
            (&["identity;q=0.5, gzip;q=0.5"], Some(Coding::Gzip)),
            (&["deflate, compress"], None),
            // No weights: the element says nothing.
            (&["gzip;q=2"], None),
            (&["gzip;q=1.001"], None),
            (&["gzip;q=0.0001"], None),
            (&["gzip;q="], None),
            (&["gzip;q=-0.5"], None),
            (&["gzip;q=+0.5"], None),
            (&["gzip;q=1;x=2"], None),
            (&["gzip;x=2"], None),
            (&[",, gzip ,"], Some(Coding::Gzip)),
        ] {
            let bytes: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            assert_eq!(chosen(&bytes), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            value in prop::collection::vec(
                prop::sample::select(&b"gzipbrstd*;,q=01. \t\xff-+"[..]),
                0..60,
            ),
        ) {
            let text = String::from_utf8_lossy(&value).to_lowercase();
            if let Some(coding) = chosen(&[&value]) {
                prop_assert!(text.contains(coding.name()) || text.contains('*'), "{text}");
            }
        }
    }
}
