//! The `sluice` command: parses, asks forwarder and control, prints. Never opens a media socket.

pub mod args;
mod configuration;
mod control;
pub mod error;
pub mod output;
mod setup;
mod show;
mod table;
mod token;
mod top;
mod trace;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use sluice_table::protocol::client::socket_path;
use sluice_table::protocol::{Client, ClientError, Role};

use args::{Cli, Command, Global, XdpCommand};
use error::{Class, CliError};
use output::Output;

/// Exit code of `doctor` when it found problems.
pub const DOCTOR_FOUND: u8 = 5;

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let json = cli.global.json;
    let mut stdout = Pipe { out: std::io::stdout().lock(), left: false };
    let code = match run(cli, &mut stdout) {
        Ok(code) => code,
        // Whoever reads has seen enough, as `head` has.
        Err(_) if stdout.left => 0,
        Err(error) => {
            error.print(json);
            error.exit_code()
        }
    };
    // A reader that went away is no failure of ours.
    let _ = stdout.flush();
    ExitCode::from(code)
}

/// Standard output, with a note of whether its reader went away.
struct Pipe<W> {
    out: W,
    left: bool,
}

impl<W> Pipe<W> {
    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        self.left |= result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.out.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.out.flush();
        self.note(result)
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let json = std::env::args_os().any(|a| a == "--json");
    if json && !asked {
        let message = error.kind().to_string();
        let text = error.to_string();
        let detail = text.lines().next().unwrap_or(&message).trim_start_matches("error: ").to_owned();
        CliError::new(Class::Usage, detail, "run `sluice --help`").print(true);
    } else {
        // Nothing is left to do when the terminal is gone.
        let _ = error.print();
    }
    ExitCode::from(if asked { 0 } else { 2 })
}

/// Runs one command; results go to `out`, the answer is the exit code.
pub fn run(cli: Cli, out: &mut dyn Write) -> Result<u8, CliError> {
    let global = cli.global;
    let mut output = Output::new(out, &global);
    match cli.command {
        Command::Status => show::status(&mut connect(&global)?, &control::status(&global), &mut output)?,
        Command::Conferences => control::conferences(&global, &mut output)?,
        Command::Participants { conference } => control::participants(&global, conference, &mut output)?,
        Command::Show { participant } => control::show(&global, participant, &mut output)?,
        Command::Kick { participant } => control::kick(&global, participant, &mut output)?,
        Command::Drain => control::drain(&global, &mut output)?,
        Command::Token(command) => token::run(&command, &mut output)?,
        Command::Config(command) => configuration::run(&command, &mut output)?,
        Command::Legs => show::legs(&mut connect(&global)?, &mut output)?,
        Command::Streams => show::streams(&mut connect(&global)?, &mut output)?,
        Command::Counters { all } => show::counters(&mut connect(&global)?, &mut output, all)?,
        Command::Table(command) => table::run(&global, command, &mut output)?,
        Command::Top { interval, count } => {
            top::run(&mut connect(&global)?, &mut output, Duration::from_secs(interval), count)?;
        }
        Command::Trace(args) => trace::run(&mut connect(&global)?, &mut output, &args)?,
        Command::Doctor { interfaces } => {
            let running = match connect(&global) {
                Ok(mut client) => Some(show::ask_doctor(&mut client)?),
                Err(ClientError::Unreachable { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            let report = crate::doctor::examine(&interfaces, running.as_ref());
            crate::doctor::print(&report, &mut output)?;
            return Ok(if report.healthy { 0 } else { DOCTOR_FOUND });
        }
        Command::Xdp(XdpCommand::Detach { interface, force }) => setup::detach(&interface, force, &mut output)?,
        Command::Completions { shell } => setup::completions(shell, &mut output)?,
        Command::Man { dir } => setup::man(&dir, &mut output)?,
    }
    Ok(0)
}

fn connect(global: &Global) -> Result<Client, ClientError> {
    let path = socket_path(global.socket.as_deref());
    Client::connect(&path, Role::Table, Some(Duration::from_secs(global.timeout)))
}
