//! Changes of header fields.

use pingora::http::{RequestHeader, ResponseHeader};
use weir_config::model::Edits;

pub(super) fn edit_request(edits: &Edits, header: &mut RequestHeader) -> pingora::Result<()> {
    for name in &edits.remove {
        header.remove_header(name);
    }
    for (name, value) in &edits.set {
        header.insert_header(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        header.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

pub(super) fn edit_response(edits: &Edits, header: &mut ResponseHeader) -> pingora::Result<()> {
    for name in &edits.remove {
        header.remove_header(name);
    }
    for (name, value) in &edits.set {
        header.insert_header(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        header.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["x-a", "x-b", "accept", "via"];

    fn name() -> impl Strategy<Value = HeaderName> {
        prop::sample::select(&NAMES[..]).prop_map(HeaderName::from_static)
    }

    fn fields() -> impl Strategy<Value = Vec<(HeaderName, HeaderValue)>> {
        let value = "[a-z]{1,3}".prop_map(|text| text.parse().unwrap());
        prop::collection::vec((name(), value), 0..5)
    }

    fn values(headers: &HeaderMap, name: &str) -> Vec<HeaderValue> {
        headers.get_all(name).iter().cloned().collect()
    }

    proptest! {
        #[test]
        fn edits_do_as_their_model(
            before in fields(),
            remove in prop::collection::vec(name(), 0..3),
            set in fields(),
            add in fields(),
        ) {
            let edits = Edits { remove, set, add };
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            let mut response = ResponseHeader::build(200, None).unwrap();
            for (name, value) in &before {
                request.append_header(name.clone(), value.clone()).unwrap();
                response.append_header(name.clone(), value.clone()).unwrap();
            }
            edit_request(&edits, &mut request).unwrap();
            edit_response(&edits, &mut response).unwrap();
            for name in NAMES {
                let of = |fields: &[(HeaderName, HeaderValue)]| -> Vec<HeaderValue> {
                    fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone()).collect()
                };
                let kept = if edits.remove.iter().any(|other| other == name) { vec![] } else { of(&before) };
                let kept = of(&edits.set).pop().map_or(kept, |last| vec![last]);
                let expected = [kept, of(&edits.add)].concat();
                prop_assert_eq!(values(&request.headers, name), expected.clone());
                prop_assert_eq!(values(&response.headers, name), expected);
            }
        }
    }
}
