//! `sluice-forwarder`: the data plane's process. Starts workers, serves the table socket, ends on SIGTERM.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;

use clap::Parser;
use sluice_forwarder::config::{Config, Io, Polling};
use sluice_forwarder::process;
use tracing_subscriber::EnvFilter;

/// Forwards SRTP: looks packets up by SSRC, rewrites them and seals one copy per receiver.
///
/// Programmed by `sluice table apply` or by sluice-control over a Unix socket. Exit codes: 0 ended by a signal,
/// 1 could not start, 2 wrong usage.
#[derive(Parser, Debug)]
#[command(version, about, long_about)]
struct Arguments {
    /// Configuration file; flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interface whose endpoints are expected; checked at start
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Packet I/O
    #[arg(long, value_enum)]
    io: Option<Io>,
    /// How workers wait
    #[arg(long, value_enum)]
    polling: Option<Polling>,
    /// Worker threads
    #[arg(long, value_name = "N")]
    workers: Option<u8>,
    /// Crypto provider: best, portable or ipsec-mb
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Unix socket of the table protocol
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Directory of the index file, on tmpfs
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print the configuration with every default and exit
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(next) = cause {
                text = format!("{text}: {next}");
                cause = next.source();
            }
            eprintln!("sluice-forwarder: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if let Some(io) = arguments.io {
        config.io = io;
    }
    if let Some(polling) = arguments.polling {
        config.polling = polling;
    }
    if let Some(workers) = arguments.workers {
        config.workers = workers;
    }
    if let Some(provider) = arguments.provider {
        config.provider = provider;
    }
    if let Some(socket) = arguments.socket {
        config.socket = socket;
    }
    if let Some(state) = arguments.state {
        config.state = state;
    }
    config.check()?;
    if arguments.print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    for name in &arguments.interface {
        process::check_interface(name)?;
    }
    let (stop, stopped) = channel();
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = stop.send(signal);
        }
    });
    let running = process::start(&config)?;
    tracing::info!(socket = %config.socket.display(), "serving the table protocol");
    let signal = stopped.recv().unwrap_or_default();
    tracing::info!(signal, "stopping");
    running.stop();
    Ok(())
}
