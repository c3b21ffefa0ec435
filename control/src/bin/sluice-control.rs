//! `sluice-control`: the control plane's process. Reads its configuration, runs the service, ends on SIGTERM.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sluice_control::config::{Config, LogFormat};
use sluice_control::service::{self, ServiceError};
use tracing_subscriber::EnvFilter;

/// Terminates HTTPS, ICE, DTLS and data channels of conference clients and programs sluice-forwarder.
///
/// Calls go on in the forwarder when this process ends; started again, it takes clients back as they reconnect.
/// Exit codes: 0 ended by a signal or drained, 1 could not start or go on, 2 wrong usage or configuration.
#[derive(Parser, Debug)]
#[command(version, about, long_about)]
struct Arguments {
    /// Configuration file; `sluice config default` writes one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for what is kept, such as the self-signed certificate
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket of the forwarder; overrides the configuration
    #[arg(long, value_name = "PATH")]
    forwarder: Option<PathBuf>,
    /// Print the configuration with every default and exit
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_config {
        print!("{}", Config::default_toml());
        return ExitCode::SUCCESS;
    }
    let mut config = match arguments.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("sluice-control: {errors}");
            return ExitCode::from(2);
        }
    };
    if let Some(socket) = arguments.forwarder {
        config.forwarder.socket = socket;
    }
    log(&config);
    // Several crates could each bring a provider of their own; this one is in use everywhere.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // The second is for TLS handshakes; on one core it would only cost switches.
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let result =
        runtime.map_err(ServiceError::Runtime).and_then(|runtime| runtime.block_on(on_worker(config, arguments.state)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-control: {error}\n  hint: {}", error.hint());
            ExitCode::FAILURE
        }
    }
}

/// Runs the service as a task: beside the tasks it talks to most, on the same thread if that is free, which makes waking
/// it a matter of a queue and not of the scheduler of the system.
async fn on_worker(config: Config, state: Option<PathBuf>) -> Result<(), ServiceError> {
    let service = tokio::spawn(async move { service::run(config, state.as_deref()).await });
    service.await.unwrap_or_else(|ended| Err(ServiceError::Runtime(std::io::Error::other(ended))))
}

fn log(config: &Config) {
    let filter = EnvFilter::try_from_env("SLUICE_LOG")
        .or_else(|_| EnvFilter::try_new(&config.log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
