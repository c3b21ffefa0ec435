//! How `sluice` fails: a message, what to do next, an exit code. Never prints a secret.

use serde::Serialize;
use sluice_table::Problem;
use sluice_table::file::{FileError, FileErrors};
use sluice_table::protocol::ClientError;

/// The class of a failure; each has an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Anything else.
    Failed,
    /// Wrong usage, or a wrong table or configuration file.
    Usage,
    /// Nothing listens at the socket of forwarder or control, or it went away.
    Unreachable,
    /// The forwarder or control refused.
    Refused,
}

/// A failure.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// Its class.
    #[serde(rename = "error")]
    pub class: Class,
    /// What was attempted and what went wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The refusal's stable name.
    pub reason: Option<&'static str>,
    /// Errors of the table or configuration file.
    pub file_errors: Vec<FileError>,
    /// Rows the forwarder found at fault.
    pub problems: Vec<Problem>,
}

impl CliError {
    /// A failure of class [`Class::Failed`].
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> CliError {
        CliError::new(Class::Failed, message, hint)
    }

    /// A failure of any class.
    pub fn new(class: Class, message: impl Into<String>, hint: impl Into<String>) -> CliError {
        CliError {
            class,
            message: message.into(),
            hint: hint.into(),
            reason: None,
            file_errors: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self.class {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::Unreachable => 3,
            Class::Refused => 4,
        }
    }

    /// Prints to standard error.
    pub fn print(&self, json: bool) {
        if json {
            match serde_json::to_string(self) {
                Ok(text) => eprintln!("{text}"),
                Err(e) => eprintln!("error: {} ({e})", self.message),
            }
            return;
        }
        if self.file_errors.is_empty() {
            eprintln!("error: {}", self.message);
        }
        for error in &self.file_errors {
            eprintln!("error: {error}");
        }
        for problem in self.problems.iter().filter(|p| p.to_string() != self.message) {
            eprintln!("  {problem}");
        }
        if !self.hint.is_empty() {
            eprintln!("hint: {}", self.hint);
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let hint = error.hint();
        let class = match &error {
            ClientError::Unreachable { .. } | ClientError::Broken { .. } => Class::Unreachable,
            ClientError::Refused(_) => Class::Refused,
            ClientError::Frame { .. } | ClientError::Unexpected { .. } => Class::Failed,
        };
        let mut made = CliError::new(class, error.to_string(), hint);
        if let ClientError::Refused(refused) = error {
            made.message = format!("the forwarder refused: {}", refused.detail);
            made.reason = Some(refused.reason.name());
            made.problems = refused.problems;
        }
        made
    }
}

impl From<FileErrors> for CliError {
    fn from(errors: FileErrors) -> CliError {
        let count = errors.0.len();
        let message = format!("the table file has {count} error{}", if count == 1 { "" } else { "s" });
        let hint = "mend the file and apply it again; the running table is unchanged (docs/table-file.md)";
        CliError { file_errors: errors.0, ..CliError::new(Class::Usage, message, hint) }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> CliError {
        CliError::failed(format!("output cannot be written: {error}"), "check the disk or the pipe it goes to")
    }
}
