//! Reads keys of one TOML table and reports what is wrong with them. Never knows what a key means.

use std::net::SocketAddr;
use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use super::place::{Lines, nearest};
use super::{Failed, FileError, FileErrors, Origin};
use crate::model::{EntryKind, Name, Table};
use crate::validate::Problem;

/// What was found wrong so far.
#[derive(Debug)]
pub(super) struct Report<'a> {
    file: String,
    lines: Lines<'a>,
    /// Byte offset of each error, to put them in order.
    errors: Vec<(usize, FileError)>,
    pub(super) origin: &'a Origin,
    pub(super) failed: Failed,
    /// Whether inline keys in a readable file were reported already; once is enough.
    pub(super) readable_reported: bool,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: String, lines: Lines<'a>, origin: &'a Origin) -> Report<'a> {
        Report { file, lines, errors: Vec::new(), origin, failed: Failed::default(), readable_reported: false }
    }

    pub(super) fn error(&mut self, at: usize, key: String, message: String) {
        let (line, column) = self.lines.at(at);
        self.errors.push((at, FileError { file: self.file.clone(), line, column, key, message }));
    }

    pub(super) fn errors(&self) -> usize {
        self.errors.len()
    }

    /// Reports a problem of a row at the key it names, or at the row if the key is not written there.
    pub(super) fn problem(&mut self, problem: &Problem, row: Option<&toml_edit::Table>) {
        let at = row.map_or(0, |row| {
            let mut place = start(row.span());
            let mut table: &dyn TableLike = row;
            for part in problem.key.split('.') {
                let Some((key, item)) = table.get_key_value(part) else { break };
                place = start(item.span().or_else(|| key.span()));
                let Some(inner) = item.as_table_like() else { break };
                table = inner;
            }
            place
        });
        self.error(at, format!("{}.{}.{}", problem.kind, problem.name, problem.key), problem.message.clone());
    }

    pub(super) fn finish(mut self, table: Table) -> Result<Table, FileErrors> {
        if self.errors.is_empty() {
            return Ok(table);
        }
        self.errors.sort_by_key(|(at, _)| *at);
        Err(FileErrors(self.errors.into_iter().map(|(_, error)| error).collect()))
    }

    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.at(at).0
    }
}

/// Start of a span; parsed documents always have one.
pub(super) fn start(span: Option<Range<usize>>) -> usize {
    span.map_or(0, |s| s.start)
}

/// One table being read, key by key.
pub(super) struct Fields<'r, 'd, 'a> {
    pub(super) report: &'r mut Report<'a>,
    table: &'d dyn TableLike,
    /// Where the table starts.
    at: usize,
    /// Its path, e.g. `leg.alice`.
    pub(super) path: String,
    asked: Vec<&'static str>,
}

impl<'r, 'd, 'a> Fields<'r, 'd, 'a> {
    pub(super) fn new(report: &'r mut Report<'a>, table: &'d dyn TableLike, at: usize, path: String) -> Self {
        Fields { report, table, at, path, asked: Vec::new() }
    }

    /// The item of a key, and the key counts as known from here on.
    pub(super) fn item(&mut self, key: &'static str) -> Option<&'d Item> {
        self.asked.push(key);
        self.table.get(key)
    }

    pub(super) fn wrong(&mut self, key: &str, item: &Item, message: impl Into<String>) {
        let place = item.span().or_else(|| self.table.key(key).and_then(toml_edit::Key::span));
        self.report.error(start(place), format!("{}.{key}", self.path), message.into());
    }

    pub(super) fn missing(&mut self, key: &str, expected: &str) {
        self.report.error(self.at, format!("{}.{key}", self.path), format!("missing; expected {expected}"));
    }

    /// A key that may be absent; `read` says `None` to a value that is not `expected`.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Item) -> Option<T>,
    ) -> Option<T> {
        let item = self.item(key)?;
        let value = read(item);
        if value.is_none() {
            self.wrong(key, item, format!("is {}; expected {expected}", shown(item)));
        }
        value
    }

    /// A key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Item) -> Option<T>,
    ) -> Option<T> {
        if self.table.get(key).is_none() {
            self.asked.push(key);
            self.missing(key, expected);
            return None;
        }
        self.optional(key, expected, read)
    }

    /// A table inside this one.
    pub(super) fn inner(&mut self, key: &'static str, expected: &str) -> Option<Fields<'_, 'd, 'a>> {
        let item = self.item(key)?;
        let Some(table) = item.as_table_like() else {
            self.wrong(key, item, format!("is {}; expected {expected}", shown(item)));
            return None;
        };
        let path = format!("{}.{key}", self.path);
        Some(Fields::new(self.report, table, start(item.span()), path))
    }

    /// Every key with its item, all of them counting as known.
    pub(super) fn entries(&self) -> Vec<(&'d str, &'d Item)> {
        self.table.iter().collect()
    }

    /// Reports keys nobody asked for.
    pub(super) fn finish(self) {
        unknown_keys(self.report, self.table, &self.path, &self.asked);
    }
}

pub(super) fn unknown_keys(report: &mut Report<'_>, table: &dyn TableLike, path: &str, known: &[&'static str]) {
    for (key, item) in table.iter().filter(|(key, _)| !known.contains(key)) {
        let place = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
        let message = match nearest(key, known.iter().copied()) {
            Some(meant) => format!("unknown key; did you mean {meant:?}?"),
            None => format!("unknown key; expected one of {}", known.join(", ")),
        };
        let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        report.error(start(place), full, message);
    }
}

/// A value as an error shows it: short ones as they are, others by type. Not for secrets.
fn shown(item: &Item) -> String {
    match item.as_value() {
        Some(Value::String(text)) if text.value().chars().count() <= 60 => format!("{:?}", text.value()),
        Some(Value::Integer(number)) => number.value().to_string(),
        Some(Value::Float(number)) => number.value().to_string(),
        Some(Value::Boolean(flag)) => flag.value().to_string(),
        _ => format!("a value of type {}", item.type_name()),
    }
}

/// Reads an integer of a narrower type.
pub(super) fn integer<T: TryFrom<i64>>(item: &Item) -> Option<T> {
    T::try_from(item.as_integer()?).ok()
}

/// Reads a text.
pub(super) fn text(item: &Item) -> Option<String> {
    item.as_str().map(ToOwned::to_owned)
}

/// Reads a name.
pub(super) fn name(item: &Item) -> Option<Name> {
    Name::new(item.as_str()?).ok()
}

/// Reads `ip:port`.
pub(super) fn address(item: &Item) -> Option<SocketAddr> {
    item.as_str()?.parse().ok()
}

/// Remembers that a row could not be read.
pub(super) fn fail(report: &mut Report<'_>, kind: EntryKind, name: Option<&Name>) {
    match name {
        Some(name) => drop(report.failed.names.insert(name.clone(), kind)),
        None => report.failed.nameless = true,
    }
}
