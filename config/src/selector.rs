//! A metric as Prometheus' text format names it: `NAME`, or `NAME{LABEL="VALUE",…}`.
//!
//! Names and the escapes in values are those of the text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), so that a line of a guest's answer can be copied
//! into a configuration. Matchers other than `=` are PromQL and no part of it.

use std::collections::BTreeMap;

use crate::model::MetricSelector;

/// Longest selector, bytes.
const LONGEST: usize = 1024;

/// Reads a selector; the error is a message.
pub(crate) fn parse(text: &str) -> Result<MetricSelector, String> {
    if text.len() > LONGEST {
        return Err(format!("must not be longer than {LONGEST} bytes, is {}", text.len()));
    }
    let malformed = || format!(r#"{text:?} is no metric such as 'queue_depth' or 'jobs{{kind="mail"}}'"#);
    let (name, rest) = take_name(text, ":").ok_or_else(malformed)?;
    let mut labels = BTreeMap::new();
    if !rest.is_empty() {
        let braced = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let mut rest = skip_blanks(braced.ok_or_else(malformed)?);
        while !rest.is_empty() {
            let (label, value, behind) = take_label(rest).ok_or_else(malformed)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("{text:?} has the label {label:?} twice"));
            }
            rest = behind;
        }
    }
    Ok(MetricSelector { text: text.to_owned(), name: name.to_owned(), labels })
}

/// A name at the start of `text`, which may have the characters `also` besides those of every name, and what follows.
fn take_name<'t>(text: &'t str, also: &str) -> Option<(&'t str, &'t str)> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || also.contains(c));
    let (name, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    let valid = name.starts_with(|c: char| !c.is_ascii_digit());
    valid.then_some((name, rest))
}

/// `LABEL="VALUE"` at the start of `text` with the comma behind it, and what follows. As in the text format, the last
/// label may have a comma, too.
fn take_label(text: &str) -> Option<(&str, String, &str)> {
    let (label, rest) = take_name(text, "")?;
    let rest = skip_blanks(skip_blanks(rest).strip_prefix('=')?);
    let (value, rest) = take_value(rest.strip_prefix('"')?)?;
    let rest = skip_blanks(rest);
    match rest.strip_prefix(',') {
        Some(rest) => Some((label, value, skip_blanks(rest))),
        None => rest.is_empty().then_some((label, value, rest)),
    }
}

/// The value that ends with the next quotation mark, and what follows that. A line ends no value.
fn take_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        value.push(match rest.next()? {
            '"' => return Some((value, rest.as_str())),
            '\n' => return None,
            '\\' => match rest.next()? {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            },
            other => other,
        });
    }
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selectors_are_read() {
        for (text, name, labels) in [
            ("queue_depth", "queue_depth", &[][..]),
            ("_", "_", &[]),
            ("job:depth:sum5", "job:depth:sum5", &[]),
            ("q{}", "q", &[]),
            (r#"q{a="1"}"#, "q", &[("a", "1")]),
            (r#"q{ a = "1" , _b2="" , }"#, "q", &[("a", "1"), ("_b2", "")]),
            (r#"q{a="}, {=\"\\\nö"}"#, "q", &[("a", "}, {=\"\\\nö")]),
        ] {
            let labels = labels.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect();
            let expected = MetricSelector { text: text.to_owned(), name: name.to_owned(), labels };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "",
            " q",
            "q ",
            "5q",
            "q-depth",
            "ö",
            "q{",
            "q}",
            "{}",
            r#"{a="1"}"#,
            "q{a}",
            "q{a=1}",
            "q{,}",
            r#"q{a="1}"#,
            r#"q{a="1",,}"#,
            r#"q{a="1"b="2"}"#,
            r#"q{a:b="1"}"#,
            r#"q{5="1"}"#,
            r#"q{a=~"1"}"#,
            r#"q{a!="1"}"#,
            r#"q{a="\t"}"#,
            "q{a=\"\n\"}",
            r#"q{a="1"} 5"#,
            r#"q{a="1"}{b="2"}"#,
        ] {
            let expected = format!(r#"{text:?} is no metric such as 'queue_depth' or 'jobs{{kind="mail"}}'"#);
            assert_eq!(parse(text), Err(expected));
        }
        let twice = parse(r#"q{a="1",a="2"}"#);
        assert_eq!(twice, Err(r#""q{a=\"1\",a=\"2\"}" has the label "a" twice"#.to_owned()));
        let long = parse(&"q".repeat(1025));
        assert_eq!(long, Err("must not be longer than 1024 bytes, is 1025".to_owned()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", value in "\\PC{0,8}") {
            let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
            let selector = parse(&format!("{name}{{a=\"{escaped}\"}}")).map_err(TestCaseError::fail)?;
            prop_assert_eq!((selector.name, &selector.labels["a"]), (name, &value));
        }

        #[test]
        fn no_text_panics(text in r#"q?[a-c{}=",\\ \n]{0,16}|\PC*"#) {
            if let Ok(selector) = parse(&text) {
                prop_assert!(text.starts_with(&selector.name) && !selector.name.is_empty());
            }
        }
    }
}
