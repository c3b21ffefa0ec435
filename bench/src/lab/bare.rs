//! The baseline process of `lab --io bare`: turns packets around and does nothing else.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use sluice_forwarder::io::bare::Bare;
use sluice_forwarder::io::xdp::XdpOptions;
use sluice_forwarder::io::{PacketIo as _, PollMode, XdpIo};
use sluice_forwarder::xdp::{Options, Steering};

use super::Polling;
use super::net;
use crate::error::BenchError;
use crate::generate::{on_signal, print_json};

/// What to turn around.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Interface
    #[arg(long)]
    interface: String,
    /// Media address on it
    #[arg(long)]
    endpoint: SocketAddr,
    /// Who may send
    #[arg(long)]
    from: Vec<SocketAddr>,
    /// Copies of each packet
    #[arg(long, default_value_t = 1)]
    copies: u32,
    /// How to wait
    #[arg(long, value_enum, default_value = "busy")]
    polling: Polling,
}

/// Runs until a signal; prints `ready` first and the totals last.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let what = || format!("turning packets around on {}", arguments.interface);
    let stop = on_signal()?;
    let index = net::interface_index(&arguments.interface)
        .ok_or_else(|| BenchError::Refused { what: what(), why: "there is no such interface".to_owned() })?;
    let mut steering = Steering::load(&Options::default()).map_err(BenchError::refused(what()))?;
    let mode = steering.attach(index).map_err(BenchError::refused(what()))?;
    let poll = PollMode::from(arguments.polling);
    let options = XdpOptions { poll, ..XdpOptions::new(&arguments.interface, 0, mode) };
    let mut io = XdpIo::open(&options).map_err(BenchError::refused(what()))?;
    steering.insert_endpoint(arguments.endpoint, false).map_err(BenchError::refused(what()))?;
    for (leg, from) in arguments.from.iter().enumerate() {
        steering.insert_tuple(arguments.endpoint, *from, leg as u32).map_err(BenchError::refused(what()))?;
    }
    steering.register_socket(0, io.fd()).map_err(BenchError::refused(what()))?;
    println!("ready");
    std::io::stdout().flush().map_err(BenchError::system(what()))?;
    let mut bare = Bare::new(arguments.copies);
    while !stop.load(Ordering::Relaxed) {
        if bare.step(&mut io) == 0 {
            io.wait(Duration::from_millis(50));
        }
    }
    print_json(&bare.counters())
}
