//! Mistakes in how a route copes with pools that do not serve it.

use crate::{LISTENER, POOL, check};

/// A second pool.
const OTHER: &str = "[pool.other]\nimage = 'hello'\n";

#[test]
fn shares() {
    let zero = "at least one pool needs a weight that is not 0";
    check(
        &format!("{LISTENER}{POOL}{OTHER}[[route]]\n"),
        &[
            ["pools = [{ pool = 'hello', weight = 95 }, { pool = 'other', weight = 0 }]", ""],
            ["pools = []", "route[0].pool: required key is missing"],
            ["pools = 'hello'", "route[0].pools: expected tables [[pools]], found a string"],
            ["pools = ['hello']", "route[0].pools[0]: expected a table, found a string"],
            ["pools = [{ pool = 'hello' }]", "route[0].pools[0].weight: required key is missing"],
            ["pools = [{ weight = 1 }]", "route[0].pools[0].pool: required key is missing"],
            ["pools = [{ pool = 'hello', weight = 0 }]", &format!("route[0].pools[0]: {zero}")],
            [
                "pools = [{ pool = 'hello', weight = 10001 }]",
                "route[0].pools[0].weight: must be from 0 to 10000, is 10001",
            ],
            [
                "pools = [{ pool = 'hello', weight = -1 }]",
                "route[0].pools[0].weight: must be from 0 to 10000, is -1",
            ],
            [
                "pools = [{ pool = 'helo', weight = 1 }]",
                r#"route[0].pools[0].pool: no pool is named "helo", did you mean "hello"?"#,
            ],
            [
                "pools = [{ pool = 'hello', weight = 1 }, { pool = 'hello', weight = 2 }]",
                r#"route[0].pools[1].pool: names "hello" again"#,
            ],
            [
                "pool = 'hello'\npools = [{ pool = 'other', weight = 1 }]",
                "route[0].pools[0]: a route has one of pool, pools, respond and redirect, this one has pool and pools",
            ],
        ],
    );
}
