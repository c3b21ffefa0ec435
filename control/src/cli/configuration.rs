//! `config`: the default configuration, and checking one. Never starts anything.

use std::path::Path;

use sluice_table::file::FileError;

use super::args::ConfigCommand;
use super::error::{Class, CliError};
use super::output::Output;
use crate::config::{Config, ConfigErrors};

pub(super) fn run(command: &ConfigCommand, output: &mut Output<'_>) -> Result<(), CliError> {
    match command {
        ConfigCommand::Default if output.json => {
            output.document(&serde_json::json!({ "toml": Config::default_toml() }))
        }
        ConfigCommand::Default => {
            output.out.write_all(Config::default_toml().as_bytes())?;
            Ok(())
        }
        ConfigCommand::Check { file } => {
            Config::load(file).map_err(|errors| wrong(file, errors))?;
            if output.json {
                return output.document(&serde_json::json!({ "file": file, "valid": true }));
            }
            output.line(&format!("{} is right", file.display()))
        }
    }
}

fn wrong(file: &Path, errors: ConfigErrors) -> CliError {
    let count = errors.0.len();
    let message = format!("the configuration has {count} error{}", if count == 1 { "" } else { "s" });
    let hint = "mend the file; `sluice config default` prints every key with its default";
    let file_errors = errors.0.into_iter().map(|error| FileError {
        file: file.display().to_string(),
        line: error.line,
        column: error.column,
        key: error.key,
        message: error.message,
    });
    CliError { file_errors: file_errors.collect(), ..CliError::new(Class::Usage, message, hint) }
}
