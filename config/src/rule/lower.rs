//! From what was parsed to what is evaluated: names and types are checked, and whatever depends on literals alone is done.
//!
//! What is taken is the part of CEL whose cost a client cannot raise beyond the length of its request: no macro that goes
//! through a collection, no concatenation, regular expressions that are literals. Whatever passes can fail in three ways
//! only: a header field that is not there, an address that is none, a string too long to be matched.

use cel::IdedExpr;
use cel::common::ast::operators::{
    CONDITIONAL, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT,
    LOGICAL_OR, NOT_EQUALS,
};
use cel::common::ast::{CallExpr, Expr, ListExpr, LiteralValue, SelectExpr};
use http::HeaderName;

use crate::action::pattern_within;
use crate::fields;
use crate::key::suggestion;
use crate::model::{Fact, Variable};
use crate::values::parse_network;

/// Calls within each other, members of what members of … are included. The parser bounds only what stands in brackets.
const DEEPEST: usize = 64;
/// What a compiled regular expression may take, bytes: a route may have thousands.
const PATTERN_MEMORY: usize = 256 << 10;

const HEADERS: &str = "request.headers";
const NAMES: [&str; 8] = [
    "request.method",
    "request.path",
    "request.query",
    "request.host",
    "request.http_version",
    "request.tls",
    HEADERS,
    "client.ip",
];
const FUNCTIONS: [&str; 7] = ["startsWith", "endsWith", "contains", "matches", "size", "has", "ip_in"];

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Boolean,
    Integer,
    Text,
    /// A list of strings.
    Texts,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "a boolean",
            Self::Integer => "an integer",
            Self::Text => "a string",
            Self::Texts => "a list of strings",
        }
    }
}

type Lowered = Result<(Type, IdedExpr), String>;

/// A condition with numbers in place of variables, and the variables. The error is a message.
pub(super) fn lower(parsed: IdedExpr) -> Result<(IdedExpr, Vec<Variable>), String> {
    let mut lowering = Lowering { variables: Vec::new() };
    match lowering.any(parsed, 0)? {
        (Type::Boolean, expression) => Ok((expression, lowering.variables)),
        (other, _) => Err(format!("must be a boolean, is {}", other.name())),
    }
}

struct Lowering {
    variables: Vec<Variable>,
}

impl Lowering {
    fn any(&mut self, IdedExpr { id, expr }: IdedExpr, depth: usize) -> Lowered {
        if depth > DEEPEST {
            return Err(format!("is nested more than {DEEPEST} deep"));
        }
        match expr {
            Expr::Literal(literal) => {
                Ok((literal_type(&literal)?, IdedExpr { id, expr: Expr::Literal(literal) }))
            }
            Expr::List(list) => texts(id, list),
            Expr::Call(call) => self.call(id, call, depth + 1),
            Expr::Ident(_) | Expr::Select(_) => self.name(id, &expr),
            Expr::Comprehension(_) => {
                Err("all, exists, exists_one, map and filter are not for rules: what they cost would \
                                           be up to clients"
                    .to_owned())
            }
            Expr::Map(_) | Expr::Struct(_) => Err("maps and messages are not for rules".to_owned()),
            Expr::Unspecified => Err("is no CEL expression".to_owned()),
        }
    }

    fn name(&mut self, id: u64, expr: &Expr) -> Lowered {
        if let Expr::Select(SelectExpr { operand, field, test }) = expr
            && spelt(&operand.expr).as_deref() == Some(HEADERS)
        {
            let name = header_name(field)?;
            if *test {
                return Ok(self.variable(id, Type::Boolean, Variable::Present(name)));
            }
            return Ok(self.variable(id, Type::Text, Variable::Text(Fact::Header(name))));
        }
        let name = spelt(expr).ok_or("only request.headers has fields that has() can ask for".to_owned())?;
        let fact = match name.as_str() {
            "request.method" => Fact::Method,
            "request.path" => Fact::Path,
            "request.query" => Fact::Query,
            "request.host" => Fact::Host,
            "request.http_version" => Fact::HttpVersion,
            "client.ip" => Fact::ClientIp,
            "request.tls" => return Ok(self.variable(id, Type::Boolean, Variable::Tls)),
            HEADERS => {
                return Err(
                    r#"request.headers is asked for one field, such as request.headers["x-api"]"#.to_owned()
                );
            }
            other => {
                let near = suggestion(other, NAMES);
                return Err(format!("unknown name {other:?}{near}"));
            }
        };
        Ok(self.variable(id, Type::Text, Variable::Text(fact)))
    }

    fn call(&mut self, id: u64, call: CallExpr, depth: usize) -> Lowered {
        let CallExpr { func_name, target, args } = call;
        let is_member = target.is_some();
        let operands: Vec<IdedExpr> = target.map(|target| *target).into_iter().chain(args).collect();
        match (func_name.as_str(), &operands[..]) {
            (INDEX, [headers, field]) => return self.header(id, headers, field),
            (IN, [field, headers]) if spelt(&headers.expr).as_deref() == Some(HEADERS) => {
                let name = header_name(text(field).ok_or("the name of a header field must be a literal")?)?;
                return Ok(self.variable(id, Type::Boolean, Variable::Present(name)));
            }
            ("matches", [of, expression]) => return self.matches(id, of, expression),
            ("ip_in", [of, network]) if !is_member => return self.within(id, of, network),
            _ => {}
        }
        let mut types = Vec::with_capacity(operands.len());
        let mut lowered = Vec::with_capacity(operands.len());
        for operand in operands {
            let (kind, expression) = self.any(operand, depth)?;
            types.push(kind);
            lowered.push(expression);
        }
        let result = result_type(&func_name, &types, is_member)?;
        let target = if is_member { Some(Box::new(lowered.remove(0))) } else { None };
        Ok((result, IdedExpr { id, expr: Expr::Call(CallExpr { func_name, target, args: lowered }) }))
    }

    /// `request.headers["x"]`.
    fn header(&mut self, id: u64, headers: &IdedExpr, field: &IdedExpr) -> Lowered {
        if spelt(&headers.expr).as_deref() != Some(HEADERS) {
            return Err("only request.headers has fields in brackets".to_owned());
        }
        let name = header_name(text(field).ok_or("the name of a header field must be a literal")?)?;
        Ok(self.variable(id, Type::Text, Variable::Text(Fact::Header(name))))
    }

    fn matches(&mut self, id: u64, of: &IdedExpr, expression: &IdedExpr) -> Lowered {
        let expression =
            text(expression).ok_or("the expression that matches() is given must be a literal")?;
        let pattern = pattern_within(expression, PATTERN_MEMORY)?;
        let fact = self.fact("matches", of)?;
        Ok(self.variable(id, Type::Boolean, Variable::Matches(fact, pattern)))
    }

    fn within(&mut self, id: u64, of: &IdedExpr, network: &IdedExpr) -> Lowered {
        let network =
            parse_network(text(network).ok_or("the network that ip_in() is given must be a literal")?)?;
        let fact = self.fact("ip_in", of)?;
        Ok(self.variable(id, Type::Boolean, Variable::Within(fact, network)))
    }

    /// A string of the request's, which is what `function` is asked of.
    fn fact(&mut self, function: &str, of: &IdedExpr) -> Result<Fact, String> {
        let found = match &of.expr {
            Expr::Ident(_) | Expr::Select(_) => self.name(of.id, &of.expr)?,
            Expr::Call(CallExpr { func_name, args, .. }) if func_name == INDEX && args.len() == 2 => {
                self.header(of.id, &args[0], &args[1])?
            }
            _ => return Err(format!("{function}() is for strings of a request, such as client.ip")),
        };
        // It is a part of what `function` becomes.
        match (found, self.variables.pop()) {
            ((Type::Text, _), Some(Variable::Text(fact))) => Ok(fact),
            _ => Err(format!("{function}() is for strings of a request, such as client.ip")),
        }
    }

    fn variable(&mut self, id: u64, kind: Type, variable: Variable) -> (Type, IdedExpr) {
        let name = self.variables.len().to_string();
        self.variables.push(variable);
        (kind, IdedExpr { id, expr: Expr::Ident(name) })
    }
}

fn result_type(function: &str, types: &[Type], is_member: bool) -> Result<Type, String> {
    use Type::{Boolean, Integer, Text, Texts};
    let result = match (function, types) {
        (LOGICAL_AND | LOGICAL_OR, [Boolean, Boolean]) | (LOGICAL_NOT, [Boolean]) => Boolean,
        (EQUALS | NOT_EQUALS, [a, b]) if a == b && *a != Texts => Boolean,
        (LESS | LESS_EQUALS | GREATER | GREATER_EQUALS, [Integer, Integer] | [Text, Text]) => Boolean,
        (IN, [Text, Texts]) => Boolean,
        (CONDITIONAL, [Boolean, a, b]) if a == b => *a,
        ("startsWith" | "endsWith" | "contains", [Text, Text]) if is_member => Boolean,
        ("size", [Text]) => Integer,
        _ => return Err(no_such_call(function, types)),
    };
    Ok(result)
}

fn no_such_call(function: &str, types: &[Type]) -> String {
    let types: Vec<_> = types.iter().map(|kind| kind.name()).collect();
    let types = types.join(" and ");
    if let Some(operator) = OPERATORS.iter().find(|operator| **operator == function) {
        let operator = operator.trim_matches(['_', '@']);
        return format!("{operator} is not for {types}");
    }
    if !FUNCTIONS.contains(&function) {
        let known = FUNCTIONS.join(", ");
        return match function.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !function.starts_with('_')
        {
            true => {
                format!("unknown function {function}(){}; there are {known}", suggestion(function, FUNCTIONS))
            }
            false => format!("the operator {} is not for rules", function.trim_matches(['_', '@'])),
        };
    }
    format!("{function}() is not called so with {}", if types.is_empty() { "nothing" } else { &types })
}

/// Those that rules have, by CEL's names for them.
const OPERATORS: [&str; 11] = [
    LOGICAL_AND,
    LOGICAL_OR,
    LOGICAL_NOT,
    EQUALS,
    NOT_EQUALS,
    LESS,
    LESS_EQUALS,
    GREATER,
    GREATER_EQUALS,
    IN,
    CONDITIONAL,
];

fn literal_type(literal: &LiteralValue) -> Result<Type, String> {
    match literal {
        LiteralValue::Boolean(_) => Ok(Type::Boolean),
        LiteralValue::Int(_) => Ok(Type::Integer),
        LiteralValue::String(_) => Ok(Type::Text),
        LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::Null | LiteralValue::UInt(_) => {
            Err("bytes, null and numbers other than plain integers are not for rules".to_owned())
        }
    }
}

/// A list of literal strings.
fn texts(id: u64, list: ListExpr) -> Lowered {
    if !list.optional_indices.is_empty() || list.elements.iter().any(|element| text(element).is_none()) {
        return Err("a list must be of literal strings".to_owned());
    }
    Ok((Type::Texts, IdedExpr { id, expr: Expr::List(list) }))
}

fn text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    fields::any_name(name)
}

/// The dotted name that an expression is, if it is one of at most as many parts as there are.
fn spelt(mut expr: &Expr) -> Option<String> {
    let mut name = String::new();
    loop {
        match expr {
            Expr::Ident(first) => return Some(format!("{first}{name}")),
            Expr::Select(SelectExpr { operand, field, test: false }) => {
                name.insert_str(0, field);
                name.insert(0, '.');
                expr = &operand.expr;
            }
            _ => return None,
        }
    }
}
