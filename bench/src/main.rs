//! `sluice-bench`: packet generator, sink, throughput search and benches. One JSON object a run on stdout,
//! everything else on stderr.

mod clock;
mod error;
mod generate;
mod guard;
mod keys;
mod lab;
mod latency;
mod ndr;
mod random;
mod shape;
mod sink;
mod stamp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Sluice: makes SRTP, checks what comes back, and runs whole labs.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 4 every run was discarded because the machine was not quiet.
#[derive(Parser, Debug)]
#[command(version, about, long_about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Send SRTP on a fixed schedule
    Generate(generate::Arguments),
    /// Receive SRTP, open it and check it
    Sink(sink::Arguments),
    /// Write a session file: who sends and who receives what under which keys
    Session(keys::Arguments),
    /// Measure a forwarder between two network namespaces
    Lab(lab::Arguments),
    /// Search the highest rate without loss
    Ndr(ndr::Arguments),
    /// The baseline forwarder that `lab --io bare` starts
    #[command(hide = true)]
    Bare(lab::bare::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Sink(arguments) => sink::run(&arguments),
        Command::Session(arguments) => keys::run(&arguments),
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Ndr(arguments) => ndr::run(&arguments),
        Command::Bare(arguments) => lab::bare::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-bench: {error}");
            ExitCode::from(error.code())
        }
    }
}
