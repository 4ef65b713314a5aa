//! `[route.filter]`: which requests a route lets through, and how it changes headers.

use ipnetwork::IpNetwork;

use crate::fields;
use crate::file;
use crate::model::{Edits, Filter};
use crate::patience;
use crate::reader::Reader;
use crate::rule;
use crate::values::{integer, network, size, size_within, string};

/// What may be added to a header, bytes: with that and what clients send, it still fits a connection's buffer.
const LONGEST_EDITS: usize = 4096;

/// `None`: some of it is wrong.
pub(crate) fn read(table: &mut Reader<'_>) -> Option<Filter> {
    let allow = table.strings("allow", network).check(|list| some(list)).optional();
    let deny = table.strings("deny", network).or(Vec::new());
    let block_list = table.read("block_list", file::read).optional();
    let rules = rule::read(table);
    let max_body = table.read("max_body", size).optional();
    let max_header = table.read("max_header", size_within(1 << 10..=32 << 10)).optional();
    let in_flight = table.read("max_in_flight_per_client", integer(1..=1_000_000)).optional();
    let patience = patience::read(table);
    let request = edits(table, ["remove_request_headers", "set_request_headers", "add_request_headers"]);
    let response = edits(table, ["remove_response_headers", "set_response_headers", "add_response_headers"]);
    Some(Filter {
        allow: allow?.map(|list| list.value),
        deny: deny?.value,
        block_list: block_list?.map(|list| list.value),
        rules: rules?,
        max_body: max_body?.map(|bytes| bytes.value),
        max_header: max_header?.map(|bytes| bytes.value),
        max_in_flight_per_client: in_flight?.map(|number| number.value),
        patience: patience?,
        request: request?,
        response: response?,
    })
}

/// The keys for what is removed, set and added.
fn edits(table: &mut Reader<'_>, [remove, set, add]: [&'static str; 3]) -> Option<Edits> {
    let removed = table.strings(remove, |value| fields::name(&string(value)?)).or(Vec::new());
    let (set, add) = (fields::read(table, set), fields::read(table, add));
    let (removed, set, add) = (removed?, set?, add?);
    let written = || set.iter().chain(&add);
    if let Some((name, _)) = written().find(|(name, _)| removed.value.contains(name)) {
        table.sink().report(&removed.place, format!("{:?} is set or added, too", name.as_str()));
        return None;
    }
    let bytes: usize =
        written().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    if bytes > LONGEST_EDITS {
        let message = format!("sets and adds {bytes} bytes of header, must be at most {LONGEST_EDITS}");
        table.sink().report(table.place(), message);
        return None;
    }
    Some(Edits { remove: removed.value, set, add })
}

fn some(list: &[IpNetwork]) -> Result<(), String> {
    if list.is_empty() {
        return Err("must name at least one network; leave it out for all".to_owned());
    }
    Ok(())
}
