//! The command line of `sluice`. Never runs anything.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage, or a wrong table or configuration file
  3  the forwarder cannot be reached, or sluice-control cannot
  4  the forwarder refused, or sluice-control did
  5  doctor found problems

Environment:
  SLUICE_SOCKET          the forwarder's socket, unless --socket is given (default /run/sluice/table.sock)
  SLUICE_CONTROL_SOCKET  control's socket, unless --control is given (default /run/sluice/control.sock)";

/// Looks after Sluice: shows conferences and what the forwarder does, ends calls, programs tables.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The forwarder's socket.
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The socket of sluice-control.
    #[arg(long, global = true, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Print JSON: one document, or one line for each update of a live command. Errors are JSON on standard error.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Seconds to wait for each answer.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show both processes: workers with their headroom, endpoints, capacity, clients.
    Status,
    /// Show a row for each conference.
    Conferences,
    /// Show a row for each participant.
    Participants {
        /// Only those of this conference.
        conference: Option<String>,
    },
    /// Show everything about a participant: candidates, chosen pair, encryption, streams, loss.
    Show {
        /// Its id, e.g. p7; `sluice participants` lists them.
        participant: String,
    },
    /// End a participant's connection.
    Kick {
        /// Its id, e.g. p7.
        participant: String,
    },
    /// Take no new conferences and participants; those there are go on.
    Drain,
    /// Make tokens for clients.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Write or check a configuration of sluice-control.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check this machine and the running forwarder; say what is wrong and the command that mends it.
    Doctor {
        /// Interfaces to check; by default those of the running forwarder, else all that are up.
        #[arg(value_name = "IFACE")]
        interfaces: Vec<String>,
    },
    /// Program the table.
    #[command(subcommand)]
    Table(TableCommand),
    /// Show a row for each leg.
    Legs,
    /// Show a row for each stream received and sent.
    Streams,
    /// Show counters.
    Counters {
        /// Show those that are 0 too, with what drop reasons mean.
        #[arg(long)]
        all: bool,
    },
    /// Watch rates of workers, legs and streams.
    Top {
        /// Seconds between updates.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
        interval: u64,
        /// Stop after this many updates.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Record packet headers as pcapng; payload is never recorded.
    Trace(TraceArgs),
    /// Look after XDP programs.
    #[command(subcommand)]
    Xdp(XdpCommand),
    /// Print a completion script.
    Completions {
        /// Your shell.
        shell: Shell,
    },
    /// Write manual pages into a directory.
    Man {
        /// The directory; made if missing.
        dir: PathBuf,
    },
}

/// Commands on tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token with the secret that sluice-control checks tokens with.
    New {
        /// File whose first word is the secret: `wire.token_secret_file` of the configuration.
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// Seconds the token is good for.
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=315_360_000))]
        ttl: u64,
        /// The holder may join conferences but not start one.
        #[arg(long)]
        join_only: bool,
    },
}

/// Commands on configurations.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration with every default, commented.
    Default,
    /// Check a configuration; shows every mistake with its line.
    Check {
        /// The TOML file.
        file: PathBuf,
    },
}

/// Commands on the table.
#[derive(Clone, Debug, Subcommand)]
pub enum TableCommand {
    /// Make the forwarder's table look like a file: shows the difference, then applies all of it or nothing.
    Apply {
        /// A table file (docs/table-file.md).
        file: PathBuf,
        /// Only show the difference.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show the table; keys are shown as fingerprints.
    Show,
    /// Remove every row.
    Clear,
}

/// Options of `trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// File to write; `-` is standard output.
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Only packets of this leg.
    #[arg(long)]
    pub leg: Option<String>,
    /// Only packets of this SSRC, decimal or 0x hex.
    #[arg(long, value_parser = ssrc)]
    pub ssrc: Option<u32>,
    /// Only packets in this direction.
    #[arg(long, value_enum)]
    pub direction: Option<Way>,
    /// Only packets that were dropped.
    #[arg(long)]
    pub dropped: bool,
    /// Record one of every N matching packets.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// Stop after this many packets; 0 means on Ctrl-C.
    #[arg(long, default_value_t = 0)]
    pub count: u64,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Received.
    In,
    /// Sent.
    Out,
}

/// Commands on XDP programs.
#[derive(Clone, Debug, Subcommand)]
pub enum XdpCommand {
    /// Remove the XDP program of an interface.
    Detach {
        /// The interface.
        interface: String,
        /// Remove it even if it is not Sluice's.
        #[arg(long)]
        force: bool,
    },
}

fn ssrc(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected 0 to 4294967295, decimal or 0x hex".to_owned())
}
