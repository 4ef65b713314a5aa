//! From text, or a file, to a [`Config`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use toml::de::DeTable;

use crate::error::{ConfigErrors, LoadError, Sink};
use crate::key::Place;
use crate::machine::Machine;
use crate::model::Config;
use crate::reader::{Reader, read_document};
use crate::sections::Sections;
use crate::units::SizeText;

/// No configuration is longer, bytes; a file that is, is none.
const LONGEST: u64 = 16 << 20;

/// Reads and validates a configuration. `source` names the text in errors, usually its path.
///
/// # Errors
/// Everything that is wrong with the text. If it is no TOML, that alone.
pub fn parse(text: &str, source: &str) -> Result<Config, ConfigErrors> {
    walk(text, source, None)
}

/// Reads and validates a configuration file.
///
/// # Errors
/// When the file cannot be read; otherwise as [`parse`].
pub fn load(path: &Path) -> Result<Config, LoadError> {
    Ok(parse(&read(path)?, &path.display().to_string())?)
}

/// Reads a configuration file and holds it against `machine` too.
///
/// # Errors
/// As [`load`], and with the same errors all that does not fit the machine.
pub fn check(path: &Path, machine: &dyn Machine) -> Result<Config, LoadError> {
    Ok(walk(&read(path)?, &path.display().to_string(), Some(machine))?)
}

fn read(path: &Path) -> Result<String, LoadError> {
    read_text(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

/// Looked at before it is opened, since to open a FIFO would wait for its other end.
pub(crate) fn read_bounded(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    if read as u64 > longest {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {}", SizeText(longest)),
        ));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> io::Result<String> {
    let text = read_bounded(path, LONGEST)?;
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn walk(text: &str, source: &str, machine: Option<&dyn Machine>) -> Result<Config, ConfigErrors> {
    let sink = Sink::default();
    let config = match DeTable::parse(text) {
        Ok(document) => read_document(document.get_ref(), &sink, |root| read_config(root, machine)),
        Err(error) => {
            report_syntax(&error, &sink);
            None
        }
    };
    match sink.into_errors(text, source) {
        Some(errors) => Err(errors),
        None => Ok(config.expect("whatever keeps a section from being valid was reported")),
    }
}

/// One line, as all errors are.
fn report_syntax(error: &toml::de::Error, sink: &Sink) {
    let offset = error.span().map_or(0, |span| span.start);
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    sink.report(&Place { offset, ..Place::root() }, message);
}

fn read_config(root: &mut Reader<'_>, machine: Option<&dyn Machine>) -> Option<Config> {
    // All sections are read before any is judged, and judged before any failure ends this function.
    let sections = Sections::read(root);
    sections.check(root, machine);
    sections.into_config()
}
