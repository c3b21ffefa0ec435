//! `sink`: receives what a forwarder sends to a session's receivers and checks every packet.

pub(crate) mod check;
pub(crate) mod socket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sluice_forwarder::io::udp::bind_endpoint;
use sluice_forwarder::io::xdp::XdpOptions;
use sluice_forwarder::io::{PacketIo, PollMode, RxBurst, XdpIo};
use sluice_forwarder::wire::frame;
use sluice_forwarder::xdp::{Options, Steering};

use crate::clock;
use crate::error::BenchError;
use crate::generate::{Io, on_signal, print_json, provider, seconds};
use crate::keys::Session;
use crate::latency::Percentiles;
use crate::shape::SECOND;
use check::{Checker, Received};
use socket::Stamped;

/// What to receive.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Session file (`sluice-bench session` writes one)
    #[arg(long, value_name = "FILE")]
    session: PathBuf,
    /// Packet I/O
    #[arg(long, value_enum, default_value = "udp")]
    io: Io,
    /// Interface to receive from with --io xdp
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// How long at most
    #[arg(long, default_value_t = 6.0, value_parser = seconds)]
    seconds: f64,
    /// End this long after the last packet
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    quiet: f64,
    /// Open one packet in this many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    check: u64,
    /// Crypto provider: best, portable or ipsec-mb
    #[arg(long, default_value = "best")]
    provider: String,
    /// Core to run on
    #[arg(long)]
    cpu: Option<usize>,
}

/// What was received.
#[derive(Debug, Serialize)]
struct Report {
    io: Io,
    seconds: f64,
    pps: f64,
    check: u64,
    #[serde(flatten)]
    received: Received,
    latency_us: Option<Percentiles>,
}

/// Something packets come from.
pub(crate) enum Source {
    /// Kernel sockets; the kernel's receive time counts.
    Sockets {
        /// One a receiver.
        sockets: Vec<Stamped>,
        /// From the kernel's clock to ours.
        offset: i64,
    },
    /// AF_XDP; the time of the poll counts. The program stays attached while this lives.
    Xdp {
        /// The socket.
        port: Box<XdpIo>,
        /// Held, not used.
        _steering: Box<Steering>,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Source::Sockets { .. }) { "Sockets" } else { "Xdp" })
    }
}

impl Source {
    /// Binds a socket for each address.
    pub(crate) fn sockets(addresses: impl Iterator<Item = SocketAddr>) -> Result<Source, BenchError> {
        let mut sockets = Vec::new();
        for address in addresses {
            let what = || format!("receiving at {address}");
            let socket = bind_endpoint(address).map_err(BenchError::system(what()))?;
            sockets.push(Stamped::new(socket).map_err(BenchError::system(what()))?);
        }
        Ok(Source::Sockets { sockets, offset: clock::realtime_offset() })
    }

    /// Takes packets of the session's receivers off an interface.
    fn xdp(session: &Session, interface: &str) -> Result<Source, BenchError> {
        let what = format!("receiving from {interface} by AF_XDP");
        let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"));
        let index = index.map_err(BenchError::system(what.clone()))?.trim().parse().unwrap_or(0);
        let mut steering = Steering::load(&Options::default()).map_err(BenchError::refused(what.clone()))?;
        let mode = steering.attach(index).map_err(BenchError::refused(what.clone()))?;
        let options = XdpOptions { poll: PollMode::Busy, ..XdpOptions::new(interface, 0, mode) };
        let port = XdpIo::open(&options).map_err(BenchError::refused(what.clone()))?;
        for (number, one) in session.receivers.iter().enumerate() {
            steering.insert_endpoint(one.local, false).map_err(BenchError::refused(what.clone()))?;
            let tuple = steering.insert_tuple(one.local, session.forwarder, number as u32);
            tuple.map_err(BenchError::refused(what.clone()))?;
        }
        steering.register_socket(0, port.fd()).map_err(BenchError::refused(what))?;
        Ok(Source::Xdp { port: Box::new(port), _steering: Box::new(steering) })
    }

    /// Gives what has arrived to the checker; returns how many packets. Never waits.
    pub(crate) fn poll(&mut self, checker: &mut Checker) -> usize {
        match self {
            Source::Sockets { sockets, offset } => sockets
                .iter_mut()
                .map(|one| {
                    one.receive(4, |port, packet, at| {
                        let at = if at == 0 { clock::monotonic() } else { (at as i64 - *offset) as u64 };
                        checker.take(port, packet, at);
                    })
                })
                .sum(),
            Source::Xdp { port, .. } => {
                let mut burst = RxBurst::new();
                let got = port.receive(&mut burst);
                let now = clock::monotonic();
                for frame in burst.drain(..) {
                    if let Ok(datagram) = frame::parse(&frame) {
                        let packet = &frame[datagram.payload_at..datagram.payload_at + datagram.payload_len];
                        checker.take(datagram.destination.port, packet, now);
                    }
                    port.release(frame);
                }
                port.flush();
                got
            }
        }
    }

    /// Takes the clocks' difference again.
    pub(crate) fn adjust(&mut self) {
        if let Source::Sockets { offset, .. } = self {
            *offset = clock::realtime_offset();
        }
    }
}

/// Receives, checks and prints the report.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let session = Session::read(&arguments.session)?;
    let stop = on_signal()?;
    if let Some(id) = arguments.cpu {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let mut source = match (arguments.io, arguments.interface.as_deref()) {
        (Io::Udp, _) => Source::sockets(session.receivers.iter().map(|one| one.local))?,
        (Io::Xdp, Some(interface)) => Source::xdp(&session, interface)?,
        (Io::Xdp, None) => {
            let why = "name the interface with --interface".to_owned();
            return Err(BenchError::Refused { what: "receiving by AF_XDP".to_owned(), why });
        }
    };
    let mut checker = Checker::new(&session, provider(&arguments.provider)?, arguments.check)?;
    // Whoever starts the generator may wait for this line.
    eprintln!("sluice-bench: receiving");
    let end = clock::monotonic() + (arguments.seconds * SECOND as f64) as u64;
    let quiet = (arguments.quiet * SECOND as f64) as u64;
    let (mut first, mut last, mut adjusted) = (None, 0, clock::monotonic());
    loop {
        let now = clock::monotonic();
        if now >= end || stop.load(Ordering::Relaxed) || (first.is_some() && now - last > quiet) {
            break;
        }
        if source.poll(&mut checker) > 0 {
            first.get_or_insert(now);
            last = now;
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
        if now - adjusted > SECOND {
            source.adjust();
            adjusted = now;
        }
    }
    let received = checker.totals();
    let seconds = first.map_or(0.0, |first| (last - first) as f64 / 1e9);
    let pps = if seconds > 0.0 { received.packets as f64 / seconds } else { 0.0 };
    print_json(&Report {
        io: arguments.io,
        seconds,
        pps,
        check: arguments.check,
        received,
        latency_us: checker.latency(),
    })
}
