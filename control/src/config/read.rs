//! Reads keys of one TOML table and reports what is wrong with them. Never knows what a key means.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml_edit::{Item, TableLike, Value};

use super::{Config, ConfigError, ConfigErrors};
use sluice_table::file::place::{Lines, nearest};

/// What was found wrong so far.
#[derive(Debug)]
pub(super) struct Report<'a> {
    lines: Lines<'a>,
    /// Byte offset of each error, to put them in order.
    errors: Vec<(usize, ConfigError)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(lines: Lines<'a>) -> Report<'a> {
        Report { lines, errors: Vec::new() }
    }

    pub(super) fn error(&mut self, at: usize, key: String, message: String) {
        let (line, column) = self.lines.at(at);
        self.errors.push((at, ConfigError { line, column, key, message }));
    }

    pub(super) fn finish(mut self, config: Config) -> Result<Config, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(config);
        }
        self.errors.sort_by_key(|(at, _)| *at);
        Err(ConfigErrors(self.errors.into_iter().map(|(_, error)| error).collect()))
    }
}

/// Start of a span; parsed documents always have one.
fn start(span: Option<Range<usize>>) -> usize {
    span.map_or(0, |s| s.start)
}

/// One table being read, key by key.
pub(super) struct Fields<'r, 'd, 'a> {
    report: &'r mut Report<'a>,
    table: &'d dyn TableLike,
    path: String,
    asked: Vec<&'static str>,
}

impl<'r, 'd, 'a> Fields<'r, 'd, 'a> {
    pub(super) fn new(report: &'r mut Report<'a>, table: &'d dyn TableLike, path: String) -> Self {
        Fields { report, table, path, asked: Vec::new() }
    }

    /// The item of a key, and the key counts as known from here on.
    pub(super) fn item(&mut self, key: &'static str) -> Option<&'d Item> {
        self.asked.push(key);
        self.table.get(key)
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a key's value, or the table if the key is not written.
    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>) {
        let place = self.table.get(key).and_then(Item::span);
        let place = place.or_else(|| self.table.key(key).and_then(toml_edit::Key::span));
        // A table's first key is near enough for a key that is missing.
        let near = || self.table.iter().next().and_then(|(first, _)| self.table.key(first)?.span());
        let full = self.full(key);
        self.report.error(start(place.or_else(near)), full, message.into());
    }

    /// Takes what `read` makes of a key that is written; `None` means it is not `expected`.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        into: &mut T,
        read: impl FnOnce(&Item) -> Option<T>,
    ) {
        let Some(item) = self.item(key) else { return };
        match read(item) {
            Some(value) => *into = value,
            None => self.wrong(key, format!("is {}; expected {expected}", shown(item))),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, key: &'static str, least: i64, most: i64, into: &mut T) {
        let expected = format!("a whole number from {least} to {most}");
        self.take(key, &expected, into, |item| {
            let value = item.as_integer().filter(|value| (least..=most).contains(value))?;
            T::try_from(value).ok()
        });
    }

    /// Seconds, 0.05 to 3,600.
    pub(super) fn seconds(&mut self, key: &'static str, into: &mut Duration) {
        self.take(key, "seconds from 0.05 to 3600", into, |item| {
            let value = item.as_float().or_else(|| item.as_integer().map(|whole| whole as f64))?;
            (0.05..=3600.0).contains(&value).then(|| Duration::from_secs_f64(value))
        });
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, into: &mut bool) {
        self.take(key, "true or false", into, Item::as_bool);
    }

    /// A path; empty text is none.
    pub(super) fn path(&mut self, key: &'static str, into: &mut Option<PathBuf>) {
        self.take(key, "a path", into, |item| {
            let text = item.as_str()?;
            Some((!text.is_empty()).then(|| PathBuf::from(text)))
        });
    }

    /// Reads a list of tables or texts, each with its own errors.
    pub(super) fn each(
        &mut self,
        key: &'static str,
        expected: &str,
        mut read: impl FnMut(&mut Self, &'d Value, usize),
    ) {
        let Some(item) = self.item(key) else { return };
        let Some(list) = item.as_array() else {
            self.wrong(key, format!("is {}; expected {expected}", shown(item)));
            return;
        };
        for value in list {
            read(self, value, start(value.span()));
        }
    }

    /// Reports an error inside a key's value.
    pub(super) fn wrong_at(&mut self, at: usize, key: &str, message: impl Into<String>) {
        let full = self.full(key);
        self.report.error(at, full, message.into());
    }

    /// A table inside this one; absent ones are read as empty by not being read.
    pub(super) fn inner(&mut self, key: &'static str) -> Option<Fields<'_, 'd, 'a>> {
        let item = self.item(key)?;
        let Some(table) = item.as_table_like() else {
            self.wrong(key, format!("is {}; expected a table", shown(item)));
            return None;
        };
        let path = self.full(key);
        Some(Fields::new(self.report, table, path))
    }

    /// A table that is a value of a list.
    pub(super) fn element(&mut self, key: &str, table: &'d dyn TableLike) -> Fields<'_, 'd, 'a> {
        let path = self.full(key);
        Fields::new(self.report, table, path)
    }

    /// Reports keys nobody asked for.
    pub(super) fn finish(self) {
        for (key, item) in self.table.iter().filter(|(key, _)| !self.asked.contains(key)) {
            let place = self.table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
            let message = match nearest(key, self.asked.iter().copied()) {
                Some(meant) => format!("unknown key; did you mean {meant:?}?"),
                None => format!("unknown key; expected one of {}", self.asked.join(", ")),
            };
            let full = self.full(key);
            self.report.error(start(place), full, message);
        }
    }
}

/// A value as an error shows it: short ones as they are, others by type.
pub(super) fn shown(item: &Item) -> String {
    item.as_value().map_or_else(|| format!("a value of type {}", item.type_name()), shown_value)
}

/// See [`shown`].
pub(super) fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) if text.value().chars().count() <= 60 => format!("{:?}", text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => number.value().to_string(),
        Value::Boolean(flag) => flag.value().to_string(),
        other => format!("a value of type {}", other.type_name()),
    }
}
