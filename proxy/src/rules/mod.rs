//! A route's rules: which requests it refuses, by conditions in CEL.
//!
//! Of rules in their order the first whose condition holds decides. To evaluate them one by one takes an interpreter half a
//! microsecond each, so that thousands of them would cost more than the rest of the proxy. But nearly every condition needs
//! something that can be looked up: that a path is this one, or begins so, that an address is in some network. So each rule
//! is filed under the rarest such test that its condition cannot do without ([`index`]), one look-up per string finds the
//! few rules whose test holds, and only these are evaluated:
//!
//! ```text
//!  request --> strings --look-ups--> candidates, in order --CEL--> the first that holds --> allowed, refused
//!              (facts)   (index)     and rules that could          (evaluate)
//!                                    not be filed
//! ```
//!
//! A condition that cannot be evaluated (see [`Rule`](weir_config::model::Rule)) is taken for the safer answer: a rule that
//! refuses does, one that allows does not.

mod evaluate;
mod facts;
mod index;
mod needs;
mod nested;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use cel::Env;
use http::StatusCode;
use prometheus::IntCounter;
use weir_config::model::{Rule, Then};

pub use facts::Facts;
use index::Index;

/// Rules, ready for use.
pub struct Rules {
    rules: Box<[Rule]>,
    index: Index,
    env: Arc<Env>,
    /// Conditions that could not be evaluated.
    errors: IntCounter,
}

impl Rules {
    /// Rules in the order in which they are asked. What cannot be evaluated is counted in `errors`.
    pub fn new(rules: &[Rule], errors: IntCounter) -> Self {
        Self { rules: rules.into(), index: Index::new(rules), env: Arc::new(Env::stdlib()), errors }
    }

    /// The status that a request is refused with, if it is.
    pub fn refuse(&self, facts: &Facts<'_>) -> Option<StatusCode> {
        self.first(self.index.candidates(facts).into_iter(), facts)
    }

    /// As [`Rules::refuse`], without the index.
    #[cfg(test)]
    pub(crate) fn refuse_one_by_one(&self, facts: &Facts<'_>) -> Option<StatusCode> {
        self.first((0..).take(self.rules.len()), facts)
    }

    fn first(&self, candidates: impl Iterator<Item = u32>, facts: &Facts<'_>) -> Option<StatusCode> {
        for candidate in candidates {
            let rule = &self.rules[candidate as usize];
            let holds = evaluate::holds(&rule.when, facts, &self.env);
            if holds.is_none() {
                self.errors.inc();
            }
            match (rule.then, holds) {
                (Then::Allow, Some(true)) => return None,
                (Then::Refuse(status), Some(true) | None) => return Some(status),
                _ => {}
            }
        }
        None
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rules").field(&self.rules).finish()
    }
}
