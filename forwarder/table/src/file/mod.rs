//! Static table files: TOML in, a validated [`Table`] or every error with its place out. Never talks to a
//! forwarder. `docs/table-file.md` describes the format.

pub mod place;
mod read;
mod rows;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml_edit::Document;
use zeroize::Zeroizing;

use crate::model::{EntryKind, Name, Table};
use crate::validate::Problem;
use place::Lines;
use read::Report;

/// Longest table file, in bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// One error of a table file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileError {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1; 0 when the error is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 when the error is about the file as a whole.
    pub column: usize,
    /// The key with its row, e.g. `leg.alice.remote`; empty when the text is not TOML.
    pub key: String,
    /// What is wrong and what was expected. Never holds a value of a secret key.
    pub message: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every error of a table file, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", join(.0))]
pub struct FileErrors(pub Vec<FileError>);

fn join(errors: &[FileError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads and validates a table file. Key files are found relative to it; files with keys must not be readable by
/// group or others.
pub fn load(path: &Path) -> Result<Table, FileErrors> {
    let file = path.display().to_string();
    let whole = |message: String| {
        let key = String::new();
        FileErrors(vec![FileError { file: file.clone(), line: 0, column: 0, key, message }])
    };
    let mut handle = File::open(path).map_err(|e| whole(format!("cannot be opened: {e}")))?;
    let meta = handle.metadata().map_err(|e| whole(format!("cannot be examined: {e}")))?;
    if !meta.is_file() && !meta.file_type().is_fifo_or_char() {
        return Err(whole("is not a file; expected a TOML table file".to_owned()));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = handle.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|e| whole(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(whole("is longer than 64 MiB; split the table".to_owned()));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|e| whole(format!("is not UTF-8 from byte {} on; expected TOML", e.valid_up_to())))?;
    // A pipe or terminal has no readers to keep out.
    let mode = if meta.is_file() { meta.mode() } else { 0o600 };
    parse(text, &Origin { file: path.to_owned(), mode })
}

trait FifoOrChar {
    fn is_fifo_or_char(&self) -> bool;
}

impl FifoOrChar for std::fs::FileType {
    fn is_fifo_or_char(&self) -> bool {
        use std::os::unix::fs::FileTypeExt;
        self.is_fifo() || self.is_char_device()
    }
}

/// Where a text came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its path; errors name it, and key files are relative to its directory.
    pub file: PathBuf,
    /// Its permission bits; inline keys are refused if group or others have any.
    pub mode: u32,
}

/// Parses and validates the text of a table file.
pub fn parse(text: &str, origin: &Origin) -> Result<Table, FileErrors> {
    let file = origin.file.display().to_string();
    let lines = Lines::of(text);
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let (line, column) = lines.at(error.span().map_or(text.len(), |span| span.start));
            // `message` leaves the quoted source out, which could hold a key.
            let message = format!("not TOML: {}", error.message().replace('\n', "; "));
            return Err(FileErrors(vec![FileError { file, line, column, key: String::new(), message }]));
        }
    };
    let mut report = Report::new(file, lines, origin);
    let (table, places) = rows::read(document.as_table(), &mut report);
    if let Err(problems) = table.validate() {
        let failed = std::mem::take(&mut report.failed);
        for problem in problems.iter().filter(|p| !follows(p, &failed)) {
            let place = places.get(&(problem.kind, problem.name.clone()));
            report.problem(problem, place.copied());
        }
    }
    report.finish(table)
}

/// Rows of the file that could not be read.
#[derive(Debug, Default)]
struct Failed {
    /// Their names.
    names: BTreeMap<Name, EntryKind>,
    /// Whether one had no readable name.
    nameless: bool,
}

/// Whether a problem is only that a row which could not be read is missing.
fn follows(problem: &Problem, failed: &Failed) -> bool {
    let Some(target) = problem.message.strip_prefix("no ").and_then(|m| m.rsplit(" is called ").next()) else {
        return false;
    };
    failed.nameless || failed.names.contains_key(target)
}
