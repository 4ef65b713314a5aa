//! Which requests have their spans exported.
//!
//! Who comes first decides for a whole trace, so that it is exported whole or not at all. But whoever decides makes weir
//! work, so only proxies that are trusted with clients' addresses are believed; for all others chance decides, whatever
//! they say.

use weir_config::model::Thousandths;

use super::{Span, Spans};
use crate::trace::Parent;

impl Spans {
    /// The span of a request that begins, if it is to be exported. `parent`: what it says of its trace. `is_trusted`: whether
    /// whoever connected may decide.
    pub(super) fn begin(
        &self,
        parent: Option<Parent>,
        is_trusted: impl FnOnce() -> bool,
    ) -> Option<Box<Span>> {
        let decided = parent.as_ref().filter(|_| is_trusted()).map(Parent::is_sampled);
        let draw = || rand::random_range(0..1000);
        is_sampled(self.sample, decided, draw).then(|| Box::new(Span::new(parent)))
    }
}

/// `decided`: by whom one believes. `draw`: a number from 0 to 999, by chance.
fn is_sampled(share: Thousandths, decided: Option<bool>, draw: impl FnOnce() -> u64) -> bool {
    decided.unwrap_or_else(|| draw() < share.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_decides_where_nobody_else_does() {
        for share in [1, 10, 500, 1000] {
            let of_all = (0..1000).filter(|drawn| is_sampled(Thousandths(share), None, || *drawn)).count();
            assert_eq!(of_all as u64, share);
        }
        for decided in [true, false] {
            let drawn = || unreachable!("it is decided");
            assert_eq!(is_sampled(Thousandths(500), Some(decided), drawn), decided);
        }
    }
}
