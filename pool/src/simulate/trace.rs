//! Traces: which requests come when, for which pool, and how long a VM takes to answer them.
//!
//! A trace is a CSV file with the header `arrival_s,pool,service_ms`, `class` and `client` behind it if it has them, in
//! the order of the arrivals. It may come from anywhere, so every field is checked, and the first that is wrong ends
//! the reading with its line and column. A line has at most [`LONGEST_LINE`] bytes, a trace at most [`MOST_ARRIVALS`]
//! arrivals of 40 bytes each: 200 MB, whatever the file.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use weir_config::model::Config;

/// Bytes, the end of the line included.
pub const LONGEST_LINE: usize = 4096;
/// Arrivals in one trace.
pub const MOST_ARRIVALS: usize = 5_000_000;
/// The latest arrival: 31 days.
const LATEST: Duration = Duration::from_secs(31 * 86_400);
/// The longest time to answer: a day.
const LONGEST_SERVICE: Duration = Duration::from_secs(86_400);
/// What a header may be, but for spaces. The first three have to be there.
const COLUMNS: [&str; 5] = ["arrival_s", "pool", "service_ms", "class", "client"];
/// What a file may begin with that is no text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Requests in the order of their arrivals, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub(crate) arrivals: Vec<Arrival>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Time from the trace's begin.
    pub at: Duration,
    /// How long a VM takes to answer.
    pub service: Duration,
    /// Which of the configuration's pools, in the order of their names.
    pub pool: usize,
}

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It ended with an error of the system.
    #[error("{file}: read line {line}")]
    Read {
        /// Its name, as given.
        file: String,
        /// From 1.
        line: usize,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What is there is not what has to be.
    #[error("{file}:{line}:{column}: {message}")]
    Invalid {
        /// Its name, as given.
        file: String,
        /// From 1.
        line: usize,
        /// Of its first byte, from 1.
        column: usize,
        /// What is wrong, with the name of the field.
        message: String,
    },
}

/// What is wrong in a line, and from which byte on (from 0).
type Wrong = (usize, String);

/// One field, without the quotes around it, and where it begins.
#[derive(Clone, Copy)]
struct Field<'l> {
    offset: usize,
    text: &'l str,
}

impl Trace {
    /// Reads a trace of `config`'s pools. `file` names it in errors.
    ///
    /// # Errors
    /// At the first line that cannot be read or is not what it has to be; also if there is no arrival.
    pub fn read(reader: impl BufRead, file: &str, config: &Config) -> Result<Self, TraceError> {
        let mut lines = Lines { reader, file, line: 0, text: Vec::new() };
        let columns = match lines.next()? {
            Some(header) => header_columns(header).map_err(|wrong| lines.invalid(wrong))?,
            None => {
                let message = format!("is empty; the first line has to be {}", COLUMNS[..3].join(","));
                return Err(TraceError::Invalid { file: file.to_owned(), line: 1, column: 1, message });
            }
        };
        let pools: Vec<_> = config.pools.keys().map(String::as_str).collect();
        let mut arrivals: Vec<Arrival> = Vec::new();
        while let Some(line) = lines.next()? {
            if line.is_empty() {
                continue;
            }
            let earlier = arrivals.last().map_or(Duration::ZERO, |arrival| arrival.at);
            let arrival = arrival(line, columns, &pools, config, earlier);
            let arrival = arrival.map_err(|wrong| lines.invalid(wrong))?;
            if arrivals.len() == MOST_ARRIVALS {
                return Err(
                    lines.invalid((0, format!("is more than the {MOST_ARRIVALS} arrivals of a trace")))
                );
            }
            arrivals.push(arrival);
        }
        if arrivals.is_empty() {
            return Err(lines.invalid((0, "is the end, and there was no arrival".to_owned())));
        }
        Ok(Self { arrivals })
    }

    /// The requests, in the order of their arrivals.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }
}

/// Lines of a file, one at a time, without their ends.
struct Lines<'f, R> {
    reader: R,
    file: &'f str,
    line: usize,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    fn next(&mut self) -> Result<Option<&str>, TraceError> {
        self.text.clear();
        self.line += 1;
        let read = (&mut self.reader).take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut self.text);
        let (file, line) = (self.file.to_owned(), self.line);
        let read = read.map_err(|source| TraceError::Read { file, line, source })?;
        if read == 0 {
            return Ok(None);
        }
        if read > LONGEST_LINE {
            return Err(self.invalid((LONGEST_LINE, format!("is over the {LONGEST_LINE} bytes of a line"))));
        }
        if self.line == 1 && self.text.starts_with(BYTE_ORDER_MARK) {
            self.text.drain(..BYTE_ORDER_MARK.len());
        }
        match std::str::from_utf8(&self.text) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(text);
                Ok(Some(text.strip_suffix('\r').unwrap_or(text)))
            }
            Err(error) => Err(self.invalid((error.valid_up_to(), "is not UTF-8".to_owned()))),
        }
    }

    fn invalid(&self, (offset, message): Wrong) -> TraceError {
        TraceError::Invalid { file: self.file.to_owned(), line: self.line, column: offset + 1, message }
    }
}

/// How many columns the lines have.
fn header_columns(header: &str) -> Result<usize, Wrong> {
    let mut count = 0;
    for field in fields(header) {
        let field = field?;
        match COLUMNS.get(count) {
            Some(name) if *name == field.text => count += 1,
            Some(name) => {
                return Err((field.offset, format!("has to be the column {name}, is {:?}", field.text)));
            }
            None => return Err((field.offset, format!("is a column too many: {:?}", field.text))),
        }
    }
    if count < 3 {
        return Err((header.len(), format!("lacks the column {}", COLUMNS[count])));
    }
    Ok(count)
}

fn arrival(
    line: &str,
    columns: usize,
    pools: &[&str],
    config: &Config,
    earlier: Duration,
) -> Result<Arrival, Wrong> {
    let mut fields = fields(line);
    let mut next = |column: usize| {
        fields.next().unwrap_or_else(|| Err((line.len(), format!("lacks the field {}", COLUMNS[column]))))
    };
    let (at_field, pool_field, service_field) = (next(0)?, next(1)?, next(2)?);
    let at = number(at_field, COLUMNS[0], LATEST, 1.0)?;
    if at < earlier {
        let message = format!("arrival_s: {} is earlier than the line before", at_field.text);
        return Err((at_field.offset, message));
    }
    // The pools of a map are in the order of their names.
    let pool = pools
        .binary_search(&pool_field.text)
        .map_err(|_| (pool_field.offset, format!("pool: there is no pool {:?}", pool_field.text)))?;
    let service = number(service_field, COLUMNS[2], LONGEST_SERVICE, 1e-3)?;
    for column in 3..columns {
        let field = next(column)?;
        if column == 3 && !config.classes.contains_key(field.text) {
            return Err((field.offset, format!("class: there is no class {:?}", field.text)));
        }
    }
    match fields.next() {
        Some(field) => Err((field?.offset, format!("is a field too many; the header has {columns} columns"))),
        None => Ok(Arrival { at, service, pool }),
    }
}

/// A decimal number of units of so many seconds.
fn number(field: Field<'_>, name: &str, most: Duration, unit: f64) -> Result<Duration, Wrong> {
    let wrong = |what: &str| (field.offset, format!("{name}: {:?} {what}", field.text));
    let number: f64 = field.text.parse().map_err(|_| wrong("is no number"))?;
    if !number.is_finite() {
        return Err(wrong("is no finite number"));
    }
    if number < 0.0 {
        return Err(wrong("is negative"));
    }
    let seconds = number * unit;
    if seconds > most.as_secs_f64() {
        return Err(wrong(&format!("is more than {}", most.as_secs_f64() / unit)));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The fields between the commas. One may stand in quotes as a whole; it has no comma in it even then.
fn fields(line: &str) -> impl Iterator<Item = Result<Field<'_>, Wrong>> {
    let mut offset = 0;
    line.split(',').map(move |text| {
        let begin = offset;
        offset += text.len() + 1;
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        match inner.find('"') {
            Some(at) => Err((begin + at, "has a quote that does not stand around a whole field".to_owned())),
            None => Ok(Field { offset: begin, text: inner }),
        }
    })
}

#[cfg(test)]
mod tests;
