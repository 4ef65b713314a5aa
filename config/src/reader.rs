//! Walks one TOML table: hands out its keys one by one, reports what is wrong with them, and at the end every key
//! that nobody asked for. serde's derive would stop at the first mistake.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::error::Sink;
use crate::field::Field;
use crate::key::{Located, Place, suggestion};
use crate::values::{found, string};

/// A table being read. Made only by this module, which also reports the unknown keys when its visitor returns: no
/// section can forget to.
pub(crate) struct Reader<'d> {
    /// `None`: the table is absent, every key in it has its default.
    table: Option<&'d DeTable<'d>>,
    place: Place,
    sink: &'d Sink,
    /// Keys that were asked for.
    known: Vec<&'static str>,
}

/// Reads a whole document with `visit`.
pub(crate) fn read_document<T>(
    document: &DeTable<'_>,
    sink: &Sink,
    visit: impl FnOnce(&mut Reader<'_>) -> T,
) -> T {
    Reader::visit(Some(document), Place::root(), sink, visit)
}

impl<'d> Reader<'d> {
    fn visit<T>(
        table: Option<&'d DeTable<'d>>,
        place: Place,
        sink: &'d Sink,
        visit: impl FnOnce(&mut Reader<'d>) -> T,
    ) -> T {
        let mut reader = Reader { table, place, sink, known: Vec::new() };
        let result = visit(&mut reader);
        reader.report_unknown();
        result
    }

    fn report_unknown(&self) {
        for (name, _) in self.table.into_iter().flatten() {
            let key = name.get_ref();
            if !self.known.contains(&key.as_ref()) {
                let message = format!("unknown key{}", suggestion(key, self.known.iter().copied()));
                self.sink.report(&self.place.child(key, name.span().start), message);
            }
        }
    }

    /// Where mistakes go.
    pub(crate) fn sink(&self) -> &'d Sink {
        self.sink
    }

    /// This table's own place.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn look_up(&mut self, key: &'static str) -> (Place, Option<&'d DeValue<'d>>) {
        self.known.push(key);
        match self.table.and_then(|table| table.get(key)) {
            Some(value) => (self.place.child(key, value.span().start), Some(value.get_ref())),
            None => (self.place.child(key, self.place.offset), None),
        }
    }

    /// The key's value, read by `parse`; its error is the message.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<'d, T> {
        match self.look_up(key) {
            (place, Some(value)) => Field::present(place, parse(value), self.sink),
            (place, None) => Field::absent(place, self.sink),
        }
    }

    /// Reports those of `keys` that are there, with `message`: known, but not in this table.
    pub(crate) fn refuse(&mut self, keys: &'static [&'static str], message: &str) {
        for key in keys {
            if let (place, Some(_)) = self.look_up(key) {
                self.sink.report(&place, message);
            }
        }
    }

    /// The key's strings, each read by `parse`; its error is the message for that element.
    pub(crate) fn strings<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Field<'d, Vec<T>> {
        let (place, value) = self.look_up(key);
        let Some(value) = value else { return Field::absent(place, self.sink) };
        let Some(array) = value.as_array() else {
            let message = format!("expected an array of strings, found {}", found(value));
            return Field::present(place, Err(message), self.sink);
        };
        let read = |(index, value): (usize, &Spanned<DeValue<'_>>)| {
            let place = place.element(index, value.span().start);
            Some(Field::present(place, parse(value.get_ref()), self.sink).required()?.value)
        };
        // Collected first: one wrong element must not hide the mistakes of the next.
        let elements: Vec<_> = array.iter().enumerate().map(read).collect();
        match elements.into_iter().collect() {
            Some(elements) => Field::present(place, Ok(elements), self.sink),
            None => Field::reported(place, self.sink),
        }
    }

    /// The key's named strings, name and value held against `rule`; none if absent. `None`: something there is
    /// no such string.
    pub(crate) fn named_strings(
        &mut self,
        key: &'static str,
        rule: impl Fn(&str, &str) -> Result<(), String>,
    ) -> Option<BTreeMap<String, String>> {
        let (place, value) = self.look_up(key);
        let Some(value) = value else { return Some(BTreeMap::new()) };
        let Some(table) = value.as_table() else {
            self.sink.report(&place, format!("expected a table of strings, found {}", found(value)));
            return None;
        };
        let read = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
            let name = name.get_ref().as_ref();
            let field =
                Field::present(place.child(name, value.span().start), string(value.get_ref()), self.sink);
            Some((name.to_owned(), field.check(|text| rule(name, text)).required()?.value))
        };
        let strings: Vec<_> = table.iter().map(read).collect();
        strings.into_iter().collect()
    }

    /// What the key says that may be a boolean instead of a table; `None`: it is absent, or has to be read as a table.
    pub(crate) fn boolean_instead_of_table(&mut self, key: &'static str) -> Option<bool> {
        let (_, value) = self.look_up(key);
        value.and_then(DeValue::as_bool)
    }

    /// The table `[key]`, if there is one. `None`: it is no table, or `visit` answered `None`.
    pub(crate) fn optional_table<T>(
        &mut self,
        key: &'static str,
        visit: impl FnOnce(&mut Reader<'d>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.look_up(key) {
            (_, None) => Some(None),
            (place, Some(value)) => self.visit_value(value, place, visit)?.map(Some),
        }
    }

    /// The table `[key]`, or `true` for one that has none of its keys; `Some(None)`: absent or `false`. `None`: it is
    /// neither, or `visit` answered `None`.
    pub(crate) fn switch_or_table<T>(
        &mut self,
        key: &'static str,
        visit: impl FnOnce(&mut Reader<'d>) -> Option<T>,
    ) -> Option<Option<Located<T>>> {
        let (place, value) = self.look_up(key);
        let table = match value {
            None | Some(DeValue::Boolean(false)) => return Some(None),
            Some(DeValue::Boolean(true)) => None,
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                self.sink.report(&place, format!("expected a boolean or a table, found {}", found(other)));
                return None;
            }
        };
        let value = Self::visit(table, place.clone(), self.sink, visit)?;
        Some(Some(Located { value, place }))
    }

    /// The table `[key]`; if absent, `visit` finds all of its keys absent. `None`: it is no table.
    pub(crate) fn table<T>(
        &mut self,
        key: &'static str,
        visit: impl FnOnce(&mut Reader<'d>) -> T,
    ) -> Option<T> {
        match self.look_up(key) {
            (place, None) => Some(Self::visit(None, place, self.sink, visit)),
            (place, Some(value)) => self.visit_value(value, place, visit),
        }
    }

    /// The tables `[[key]]`, none if absent. `None`: something there is no table.
    pub(crate) fn tables<T>(
        &mut self,
        key: &'static str,
        mut visit: impl FnMut(&mut Reader<'d>) -> T,
    ) -> Option<Vec<T>> {
        let (place, value) = self.look_up(key);
        let Some(value) = value else { return Some(Vec::new()) };
        let Some(array) = value.as_array() else {
            self.sink.report(&place, format!("expected tables [[{key}]], found {}", found(value)));
            return None;
        };
        let read = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| {
            self.visit_value(value.get_ref(), place.element(index, value.span().start), &mut visit)
        };
        // Collected first: one wrong element must not hide the mistakes of the next.
        let tables: Vec<_> = array.iter().enumerate().map(read).collect();
        tables.into_iter().collect()
    }

    /// The table `[key]`, or the tables `[[key]]`; none if absent. `None`: something there is no table.
    pub(crate) fn one_or_more_tables<T>(
        &mut self,
        key: &'static str,
        mut visit: impl FnMut(&mut Reader<'d>) -> T,
    ) -> Option<Vec<T>> {
        match self.table.and_then(|table| table.get(key)) {
            Some(value) if value.get_ref().is_table() => Some(vec![self.table(key, visit)?]),
            _ => self.tables(key, &mut visit),
        }
    }

    /// The tables `[key.NAME]`, none if absent. `None`: something there is no table.
    pub(crate) fn named_tables<T>(
        &mut self,
        key: &'static str,
        mut visit: impl FnMut(&str, &mut Reader<'d>) -> T,
    ) -> Option<Vec<T>> {
        let (place, value) = self.look_up(key);
        let Some(value) = value else { return Some(Vec::new()) };
        let Some(table) = value.as_table() else {
            self.sink.report(&place, format!("expected tables [{key}.NAME], found {}", found(value)));
            return None;
        };
        let read = |(name, value): (&'d Spanned<DeString<'d>>, &'d Spanned<DeValue<'d>>)| {
            let place = place.child(name.get_ref(), name.span().start);
            self.visit_value(value.get_ref(), place, |reader| visit(name.get_ref(), reader))
        };
        let tables: Vec<_> = table.iter().map(read).collect();
        tables.into_iter().collect()
    }

    fn visit_value<T>(
        &self,
        value: &'d DeValue<'d>,
        place: Place,
        visit: impl FnOnce(&mut Reader<'d>) -> T,
    ) -> Option<T> {
        let Some(table) = value.as_table() else {
            self.sink.report(&place, format!("expected a table, found {}", found(value)));
            return None;
        };
        Some(Self::visit(Some(table), place, self.sink, visit))
    }
}
