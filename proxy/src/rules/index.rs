//! Finds the rules that a request may meet.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use regex::{RegexSet, RegexSetBuilder};
use weir_config::model::{Fact, Rule, Then};

use super::evaluate::LONGEST_MATCHED;
use super::facts::Facts;
use super::needs::{Frequencies, Is, Test, count, guards, needed};
use super::nested::Nested;

/// What all expressions for one string may take together, bytes, compiled, and their cache of states.
const PATTERNS_MEMORY: usize = 32 << 20;

/// Rules by tests that they need.
pub(super) struct Index {
    strings: Box<[(Fact, Tests)]>,
    /// Rules that need none that can be looked up.
    always: Box<[u32]>,
}

/// Rules by tests of one string.
struct Tests {
    equal: HashMap<Box<str>, Vec<u32>>,
    prefixes: Nested<Box<str>>,
    networks: Nested<IpNetwork>,
    patterns: RegexSet,
    /// By the expression's place in the set.
    matched: Vec<Vec<u32>>,
    unless_there: Unless,
}

/// Rules that refuse where a test cannot be made.
#[derive(Default)]
struct Unless {
    /// Where the field is missing.
    missing: Vec<u32>,
    /// Where it is no address.
    no_address: Vec<u32>,
    /// Where it is too long to be matched.
    too_long: Vec<u32>,
}

/// Tests of one string and their rules, in no order.
#[derive(Default)]
struct Unsorted {
    equal: HashMap<Box<str>, Vec<u32>>,
    prefixes: Vec<(Box<str>, u32)>,
    networks: Vec<(IpNetwork, u32)>,
    patterns: HashMap<String, Vec<u32>>,
    unless_there: Unless,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut frequencies = Frequencies::new();
        for rule in rules {
            count(&rule.when, &mut frequencies);
        }
        let (mut strings, mut always) = (HashMap::<Fact, Unsorted>::new(), Vec::new());
        for (number, rule) in (0..).zip(rules) {
            match needed(&rule.when, rule.when.expression(), &frequencies) {
                Some(needed) => {
                    let mut guarded = Vec::new();
                    guards(&rule.when, rule.when.expression(), &mut guarded);
                    for test in needed.tests {
                        let may_miss = !matches!(&test.fact, Fact::Header(name) if guarded.contains(&name));
                        let unless = rule.then != Then::Allow;
                        strings.entry(test.fact.clone()).or_default().add(test, number, unless, may_miss);
                    }
                }
                None => always.push(number),
            }
        }
        let mut indexed = Vec::new();
        for (fact, tests) in strings {
            indexed.push((fact, tests.sorted(&mut always)));
        }
        always.sort_unstable();
        always.dedup();
        Self { strings: indexed.into(), always: always.into() }
    }

    /// The rules that may hold for a request, in order: all that do are among them, and of those that refuse all that cannot
    /// be evaluated.
    pub(super) fn candidates(&self, facts: &Facts<'_>) -> Vec<u32> {
        let mut candidates = self.always.to_vec();
        for (fact, tests) in &self.strings {
            tests.find(fact, facts, |rules| candidates.extend_from_slice(rules));
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }
}

impl Unsorted {
    fn add(&mut self, test: Test, rule: u32, refuses: bool, may_miss: bool) {
        let unless = &mut self.unless_there;
        if refuses && may_miss {
            unless.missing.push(rule);
        }
        match test.is {
            Is::Equal(text) => self.equal.entry(text.into()).or_default().push(rule),
            Is::Prefixed(text) => self.prefixes.push((text.into(), rule)),
            Is::Within(network) => {
                self.networks.push((network, rule));
                unless.no_address.extend(refuses.then_some(rule));
            }
            Is::Matched(pattern) => {
                self.patterns.entry(pattern).or_default().push(rule);
                unless.too_long.extend(refuses.then_some(rule));
            }
        }
    }

    /// What cannot be looked up goes into `always`.
    fn sorted(self, always: &mut Vec<u32>) -> Tests {
        let (patterns, mut matched): (Vec<_>, Vec<_>) = self.patterns.into_iter().unzip();
        let built = RegexSetBuilder::new(&patterns)
            .size_limit(PATTERNS_MEMORY)
            .dfa_size_limit(PATTERNS_MEMORY)
            .build();
        let patterns = built.unwrap_or_else(|error| {
            tracing::warn!(%error, "a route's regular expressions are too large to be matched together: each rule is asked");
            always.extend(matched.drain(..).flatten());
            RegexSet::empty()
        });
        Tests {
            equal: self.equal,
            prefixes: Nested::new(self.prefixes, |inner, outer| inner.starts_with(&**outer)),
            networks: Nested::new(self.networks, |inner, outer| {
                outer.contains(inner.network()) && outer.prefix() <= inner.prefix()
            }),
            patterns,
            matched,
            unless_there: self.unless_there,
        }
    }
}

impl Tests {
    fn find(&self, fact: &Fact, facts: &Facts<'_>, mut found: impl FnMut(&[u32])) {
        self.find_address(fact, facts, &mut found);
        if self.equal.is_empty() && self.prefixes.is_empty() && self.matched.is_empty() {
            return;
        }
        let Some(text) = facts.text(fact) else { return found(&self.unless_there.missing) };
        if let Some(rules) = self.equal.get(&*text) {
            found(rules);
        }
        self.prefixes.find(|prefix| **prefix <= *text, |prefix| text.starts_with(&**prefix), &mut found);
        self.find_matched(text, found);
    }

    fn find_address(&self, fact: &Fact, facts: &Facts<'_>, mut found: impl FnMut(&[u32])) {
        if self.networks.is_empty() {
            return;
        }
        match facts.address(fact) {
            Some(address) => {
                let end = |address: IpAddr| (address, u8::MAX);
                self.networks.find(
                    |network| (network.network(), network.prefix()) <= end(address),
                    |network| network.contains(address),
                    found,
                );
            }
            None if facts.text(fact).is_some() => found(&self.unless_there.no_address),
            None => found(&self.unless_there.missing),
        }
    }

    fn find_matched(&self, text: Cow<'_, str>, mut found: impl FnMut(&[u32])) {
        if self.matched.is_empty() {
            return;
        }
        if text.len() > LONGEST_MATCHED {
            return found(&self.unless_there.too_long);
        }
        for pattern in &self.patterns.matches(&text) {
            found(&self.matched[pattern]);
        }
    }
}
