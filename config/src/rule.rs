//! `[[route.filter.rule]]`.
//!
//! A condition is parsed by the CEL crate and then held against what requests have (`lower`): its interpreter would find
//! an unknown name or a wrong type only when a request comes, and only if it looks there.

mod lower;

use cel::ParseErrors;
use cel::parser::Parser;
use http::StatusCode;
use toml::de::DeValue;

use crate::action::not_longer;
use crate::model::{Condition, Rule, Then};
use crate::reader::Reader;
use crate::values::{choice, integer, string};

/// Longest expression, bytes.
const LONGEST: usize = 4096;
/// Parentheses, calls and conditionals within each other.
const DEEPEST: u16 = 32;
/// Rules of one route.
const MOST: usize = 10_000;

/// The rules of a filter; `None`: some are wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Vec<Rule>> {
    let rules = table.tables("rule", |table| {
        let when = table.read("when", |value| condition(&string(value)?)).required();
        let then = table.read("then", then).required();
        Some(Rule { when: when?.value, then: then?.value })
    });
    let rules = rules?;
    if rules.len() > MOST {
        let place = table.place().child("rule", table.place().offset);
        table
            .sink()
            .report(&place, format!("a route has at most {MOST} rules, this one has {}", rules.len()));
        return None;
    }
    rules.into_iter().collect()
}

fn then(value: &DeValue<'_>) -> Result<Then, String> {
    if value.as_integer().is_some() {
        let status = integer(400_u16..=599)(value)?;
        return StatusCode::from_u16(status).map(Then::Refuse).map_err(|error| error.to_string());
    }
    choice(&[("deny", Then::Refuse(StatusCode::FORBIDDEN)), ("allow", Then::Allow)])(value)
}

/// A condition; the error is a message.
pub(crate) fn condition(text: &str) -> Result<Condition, String> {
    not_longer(text, LONGEST)?;
    let parsed = Parser::new().max_recursion_depth(DEEPEST).error_recovery_limit(1).parse(text);
    let (expression, variables) = lower::lower(parsed.map_err(|errors| syntax(text, &errors))?)?;
    Ok(Condition { text: text.to_owned(), expression, variables })
}

/// One line about the first of the errors.
fn syntax(text: &str, errors: &ParseErrors) -> String {
    let Some(first) = errors.errors.first() else { return format!("{text:?} is no CEL expression") };
    if first.msg.contains("Recursion limit") {
        return format!("is nested more than {DEEPEST} deep");
    }
    // What was expected is most of the language.
    let reason =
        first.msg.trim_start_matches("Syntax error: ").split(" expecting ").next().unwrap_or_default();
    let reason: Vec<_> = reason.split_whitespace().collect();
    let (line, column) = first.pos;
    let line = if text.contains('\n') { format!("line {line}, ") } else { String::new() };
    format!("is no CEL expression: {line}column {column}: {}", reason.join(" "))
}
