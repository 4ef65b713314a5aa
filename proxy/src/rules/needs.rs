//! Tests of a request that conditions are made of, and what a condition cannot do without.

use std::collections::HashMap;

use cel::IdedExpr;
use cel::common::ast::operators::{EQUALS, IN, LOGICAL_AND, LOGICAL_OR};
use cel::common::ast::{CallExpr, Expr, LiteralValue};
use http::HeaderName;
use ipnetwork::IpNetwork;
use weir_config::model::{Condition, Fact, Variable};

/// A test of one string of a request's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Test {
    pub(super) fact: Fact,
    pub(super) is: Is,
}

/// What a string has to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Is {
    Equal(String),
    Prefixed(String),
    /// An address of this network.
    Within(IpNetwork),
    /// Matched by this expression.
    Matched(String),
}

/// Tests one of which holds, or cannot be made, wherever a condition holds or cannot be evaluated.
#[derive(Clone, Debug)]
pub(super) struct Needed {
    pub(super) tests: Vec<Test>,
    /// How many rules share the tests, and what a look-up costs; less is better.
    cost: usize,
}

/// How many rules have each test.
pub(super) type Frequencies = HashMap<Test, usize>;

/// Adds the tests of a condition to `frequencies`.
pub(super) fn count(condition: &Condition, frequencies: &mut Frequencies) {
    let mut open = vec![condition.expression()];
    while let Some(expression) = open.pop() {
        match operands(expression) {
            Some((_, left, right)) => open.extend([left, right]),
            None => {
                for test in tests(condition, expression).unwrap_or_default() {
                    *frequencies.entry(test).or_default() += 1;
                }
            }
        }
    }
}

/// The rarest tests that the condition cannot do without, if there are some. In CEL `false && error` is false, and
/// `false || error` an error: so what a part needs, a conjunction needs, and a disjunction needs what both of its sides do.
pub(super) fn needed(
    condition: &Condition,
    expression: &IdedExpr,
    frequencies: &Frequencies,
) -> Option<Needed> {
    match operands(expression) {
        Some((Operator::And, left, right)) => {
            let both = [left, right].map(|side| needed(condition, side, frequencies));
            both.into_iter().flatten().min_by_key(|needed| needed.cost)
        }
        Some((Operator::Or, left, right)) => {
            let mut left = needed(condition, left, frequencies)?;
            let right = needed(condition, right, frequencies)?;
            left.tests.extend(right.tests);
            Some(Needed { tests: left.tests, cost: left.cost + right.cost })
        }
        None => {
            let tests = tests(condition, expression)?;
            let cost = |test: &Test| frequencies.get(test).copied().unwrap_or(1) * EFFORTS + effort(test);
            Some(Needed { cost: tests.iter().map(cost).sum(), tests })
        }
    }
}

/// Fields that have to be there for the condition to hold or fail: it asks for them with `has` or `in`.
pub(super) fn guards<'c>(
    condition: &'c Condition,
    expression: &'c IdedExpr,
    found: &mut Vec<&'c HeaderName>,
) {
    match (operands(expression), &expression.expr) {
        (Some((Operator::And, left, right)), _) => {
            guards(condition, left, found);
            guards(condition, right, found);
        }
        (None, Expr::Ident(name)) => {
            if let Some(Variable::Present(field)) = condition.variable(name) {
                found.push(field);
            }
        }
        _ => {}
    }
}

/// Ranks among tests that equally many rules have.
const EFFORTS: usize = 8;

/// Regular expressions are the dearest look-ups, and a header field that is left out lets a look-up say nothing.
fn effort(test: &Test) -> usize {
    let of_field = usize::from(matches!(test.fact, Fact::Header(_)));
    of_field
        + match test.is {
            Is::Equal(_) => 0,
            Is::Prefixed(_) | Is::Within(_) => 2,
            Is::Matched(_) => 4,
        }
}

enum Operator {
    And,
    Or,
}

fn operands(expression: &IdedExpr) -> Option<(Operator, &IdedExpr, &IdedExpr)> {
    let Expr::Call(CallExpr { func_name, args, .. }) = &expression.expr else { return None };
    match (func_name.as_str(), &args[..]) {
        (LOGICAL_AND, [left, right]) => Some((Operator::And, left, right)),
        (LOGICAL_OR, [left, right]) => Some((Operator::Or, left, right)),
        _ => None,
    }
}

/// The tests, one of which the expression is; `None`: it is none that can be looked up.
fn tests(condition: &Condition, expression: &IdedExpr) -> Option<Vec<Test>> {
    let fact = |expression: &IdedExpr| match &expression.expr {
        Expr::Ident(name) => match condition.variable(name)? {
            Variable::Text(fact) => Some(fact.clone()),
            _ => None,
        },
        _ => None,
    };
    match &expression.expr {
        Expr::Ident(name) => match condition.variable(name)? {
            Variable::Within(fact, network) => {
                Some(vec![Test { fact: fact.clone(), is: Is::Within(*network) }])
            }
            Variable::Matches(fact, pattern) => {
                let is = Is::Matched(pattern.regex().as_str().to_owned());
                Some(vec![Test { fact: fact.clone(), is }])
            }
            Variable::Text(_) | Variable::Tls | Variable::Present(_) => None,
        },
        Expr::Call(CallExpr { func_name, target, args }) => match (func_name.as_str(), target, &args[..]) {
            (EQUALS, None, [left, right]) => {
                let (fact, text) = match fact(left) {
                    Some(fact) => (fact, text(right)?),
                    None => (fact(right)?, text(left)?),
                };
                Some(vec![Test { fact, is: Is::Equal(text) }])
            }
            (IN, None, [one, IdedExpr { expr: Expr::List(list), .. }]) => {
                let fact = fact(one)?;
                let equal = |element| Some(Test { fact: fact.clone(), is: Is::Equal(text(element)?) });
                list.elements.iter().map(equal).collect()
            }
            ("startsWith", Some(whole), [start]) => {
                Some(vec![Test { fact: fact(whole)?, is: Is::Prefixed(text(start)?) }])
            }
            _ => None,
        },
        _ => None,
    }
}

fn text(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}
