//! One condition, one request.

use std::sync::Arc;

use cel::common::types::{CelBool, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, Value};
use weir_config::model::{Condition, Variable};

use super::facts::Facts;

/// Longest string that regular expressions are held against, bytes. Their time is bounded by the product of its length and
/// their sizes.
pub(super) const LONGEST_MATCHED: usize = 4096;

/// Whether the condition holds; `None`: it cannot be evaluated.
pub(super) fn holds(condition: &Condition, facts: &Facts<'_>, env: &Arc<Env>) -> Option<bool> {
    let asked = Asked { condition, facts };
    let mut context = Context::with_env(Arc::clone(env));
    context.set_variable_resolver(&asked);
    let value = Value::resolve_val(condition.expression(), &context).ok()?;
    value.downcast_ref::<CelBool>().map(|value| *value.inner())
}

struct Asked<'a, 'r> {
    condition: &'a Condition,
    facts: &'a Facts<'r>,
}

impl VariableResolver for Asked<'_, '_> {
    /// To CEL a variable without a value is an error, as one that could not be computed has to be.
    fn resolve<'b>(&'b self, identifier: &str) -> Option<CowVal<'b, 'b>> {
        let truth = |value: bool| Some(CowVal::owned(CelBool::from(value)));
        match self.condition.variable(identifier)? {
            Variable::Text(fact) => Some(CowVal::owned(CelString::from(self.facts.text(fact)?))),
            Variable::Tls => truth(self.facts.tls()),
            Variable::Present(field) => truth(self.facts.has(field)),
            Variable::Within(fact, network) => truth(network.contains(self.facts.address(fact)?)),
            Variable::Matches(fact, pattern) => {
                let text = self.facts.text(fact).filter(|text| text.len() <= LONGEST_MATCHED)?;
                truth(pattern.regex().is_match(text.as_bytes()))
            }
        }
    }
}
