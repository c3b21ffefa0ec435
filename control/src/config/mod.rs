//! The control plane's configuration: one TOML file with every default written out. Never reads anything else.
//! `docs/configuration.md` and [`Config::default_toml`] describe every key.

mod model;
mod network;
mod read;
mod sections;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use toml_edit::Document;

pub use model::{
    Admin, Config, DtlsVersion, Forwarder, Http, Limits, Log, LogFormat, Media, MediaAddress, MediaAddresses, Origins,
    Tls, Wire,
};
pub use network::{Cidr, PublicUrl};
use read::Report;
use sluice_table::file::place::Lines;

/// Longest configuration file, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// Every key with its default and what it does; a test keeps it equal to [`Config::default`].
const DEFAULT: &str = include_str!("default.toml");

/// One error of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// Line, from 1; 0 when the error is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 when the error is about the file as a whole.
    pub column: usize,
    /// The key with its table, e.g. `http.listen`; empty when the text is not TOML.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Every error of a configuration, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", join(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

fn join(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl ConfigErrors {
    fn whole(message: String) -> ConfigErrors {
        ConfigErrors(vec![ConfigError { line: 0, column: 0, key: String::new(), message }])
    }
}

impl Config {
    /// Reads a text; keys that are not written have their defaults.
    pub fn parse(text: &str) -> Result<Config, ConfigErrors> {
        let lines = Lines::of(text);
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let (line, column) = lines.at(error.span().map_or(text.len(), |span| span.start));
                let message = format!("not TOML: {}", error.message().replace('\n', "; "));
                return Err(ConfigErrors(vec![ConfigError { line, column, key: String::new(), message }]));
            }
        };
        let mut report = Report::new(lines);
        let config = sections::read(document.as_table(), &mut report);
        report.finish(config)
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let file = File::open(path).map_err(|e| ConfigErrors::whole(format!("cannot be opened: {e}")))?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_FILE + 1).read_to_end(&mut bytes);
        read.map_err(|e| ConfigErrors::whole(format!("cannot be read: {e}")))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(ConfigErrors::whole("is longer than 1 MiB; expected a TOML configuration".to_owned()));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            ConfigErrors::whole(format!("is not UTF-8 from byte {} on; expected TOML", e.valid_up_to()))
        })?;
        Config::parse(text)
    }

    /// The whole default configuration, commented; parses to [`Config::default`].
    pub fn default_toml() -> String {
        DEFAULT.to_owned()
    }
}
