//! `route.headers`: which header fields make a request a route's.

use http::HeaderValue;
use toml::de::DeValue;

use crate::action::pattern;
use crate::fields::any_name;
use crate::model::{FieldMatch, FieldValue};
use crate::values::{found, string};

/// Conditions of one route.
const MOST: usize = 16;

/// All conditions, in the order of the fields' names; the error is a message.
pub(crate) fn read(value: &DeValue<'_>) -> Result<Vec<FieldMatch>, String> {
    let Some(table) = value.as_table() else {
        return Err(format!("expected a table of header fields, found {}", found(value)));
    };
    if !(1..=MOST).contains(&table.len()) {
        return Err(format!("must have 1 to {MOST} fields, has {}", table.len()));
    }
    let read = |(name, value): (&str, &DeValue<'_>)| {
        if name == "host" {
            return Err("host is a key of its own".to_owned());
        }
        let value = field_value(value).map_err(|message| format!("{name}: {message}"))?;
        Ok(FieldMatch { name: any_name(name)?, value })
    };
    let members = table.iter().map(|(name, value)| (name.get_ref().as_ref(), value.get_ref()));
    let mut matches = members.map(read).collect::<Result<Vec<_>, _>>()?;
    matches.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    Ok(matches)
}

fn field_value(value: &DeValue<'_>) -> Result<FieldValue, String> {
    if value.as_str().is_some() {
        let text = string(value)?;
        // One that no field has would match nothing.
        if HeaderValue::from_str(&text).is_err() || text.trim_ascii() != text {
            return Err(format!(
                "{text:?} is no value of a field: printable ASCII without blanks at its ends"
            ));
        }
        return Ok(FieldValue::Is(text));
    }
    let expected = || format!("expected a string or {{ regex = \"...\" }}, found {}", found(value));
    let table = value.as_table().ok_or_else(expected)?;
    match (table.get("regex"), table.len()) {
        (Some(regex), 1) => pattern(&string(regex.get_ref())?).map(FieldValue::Matches),
        _ => Err("its table has regex, and nothing else".to_owned()),
    }
}
