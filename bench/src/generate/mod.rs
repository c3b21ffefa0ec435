//! `generate`: an SRTP-aware packet generator with real keys on a fixed schedule.

pub(crate) mod impair;
pub(crate) mod sender;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde::Serialize;
use sluice_forwarder::engine::Nanos;
use sluice_forwarder::hops::{Hops, Resolution};
use sluice_forwarder::io::udp::{UdpOptions, bind_endpoint};
use sluice_forwarder::io::xdp::XdpOptions;
use sluice_forwarder::io::{PacketIo, PollMode, UdpIo, XdpIo};
use sluice_forwarder::wire::template::Hop;
use sluice_forwarder::xdp::AttachMode;
use sluice_srtp::{AnyProvider, ProviderKind};

use crate::clock;
use crate::error::BenchError;
use crate::keys::Session;
use crate::latency::Percentiles;
use crate::shape::{Plan, SECOND, Schedule, Shape};
use impair::{Impaired, Impairer, Impairment};
use sender::{MAX_PAYLOAD, Sender};

/// How packets get to and from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Io {
    /// `AF_XDP`; needs root.
    Xdp,
    /// Kernel sockets.
    Udp,
}

/// A rate in packets per second, or as many as go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// Packets per second of all streams together.
    Packets(f64),
    /// As fast as the port takes them.
    Max,
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        let rate = text.replace('_', "").parse().ok().filter(|rate| (0.001..=1e8).contains(rate));
        rate.map(Rate::Packets).ok_or("expected packets per second or max".to_owned())
    }
}

/// What to send.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Session file (`sluice-bench session` writes one)
    #[arg(long, value_name = "FILE")]
    session: PathBuf,
    /// Packet I/O
    #[arg(long, value_enum, default_value = "udp")]
    io: Io,
    /// Interface to send from with --io xdp
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// How packets are spread over time
    #[arg(long, value_enum, default_value = "constant")]
    shape: Shape,
    /// Packets per second of all streams together, or max (constant shape)
    #[arg(long, default_value = "1000")]
    rate: Rate,
    /// Payload bytes (constant), most payload bytes (video)
    #[arg(long, default_value_t = 1200, value_parser = payload)]
    payload: usize,
    /// Bits per second of a video stream
    #[arg(long, default_value_t = 1_500_000)]
    video_bits: u64,
    /// How long
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Crypto provider: best, portable, ipsec-mb or null
    #[arg(long, default_value = "best")]
    provider: String,
    /// Seed of sizes, phases and impairments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Core to run on
    #[arg(long)]
    cpu: Option<usize>,
    #[command(flatten)]
    impairment: Impairment,
}

/// Payload bytes that fit a stamp and a frame.
pub(crate) fn payload(text: &str) -> Result<usize, String> {
    let range = crate::stamp::STAMP_LEN..=MAX_PAYLOAD;
    let expected = format!("expected {} to {}", range.start(), range.end());
    text.parse().ok().filter(|value| range.contains(value)).ok_or(expected)
}

/// A bounded time in seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value| (0.05..=86_400.0).contains(value)).ok_or("expected 0.05 to 86400".to_owned())
}

/// The provider of that name.
pub(crate) fn provider(name: &str) -> Result<AnyProvider, BenchError> {
    let kind = match name {
        "best" => ProviderKind::best(),
        name => name.parse().map_err(BenchError::refused("choosing a crypto provider"))?,
    };
    AnyProvider::new(kind).map_err(BenchError::refused("starting a crypto provider"))
}

/// What was sent.
#[derive(Debug, Serialize)]
struct Report {
    io: Io,
    profile: &'static str,
    shape: Shape,
    seconds: f64,
    sent: u64,
    bytes: u64,
    unsent: u64,
    pps: f64,
    impaired: Impaired,
    generator_cpu: f64,
    late_us: Option<Percentiles>,
}

/// Sends and prints the report.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let session = Session::read(&arguments.session)?;
    let stop = on_signal()?;
    if let Some(id) = arguments.cpu {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    match arguments.io {
        Io::Udp => {
            let io = udp_port(&session)?;
            let nothing = Hop { source_mac: [0; 6], destination_mac: [0; 6], vlan: None };
            send(arguments, &session, io, |_| nothing, &stop)
        }
        Io::Xdp => {
            let interface = arguments.interface.as_deref().ok_or_else(|| BenchError::Refused {
                what: "sending by AF_XDP".to_owned(),
                why: "name the interface with --interface".to_owned(),
            })?;
            let hop = resolve(&session)?;
            send(arguments, &session, xdp_port(interface)?, |_| hop, &stop)
        }
    }
}

/// A port over one kernel socket for each publisher.
pub(crate) fn udp_port(session: &Session) -> Result<UdpIo, BenchError> {
    let mut sockets = Vec::new();
    for one in &session.publishers {
        sockets.push(bind_endpoint(one.local).map_err(BenchError::system(format!("binding {}", one.local)))?);
    }
    let options = UdpOptions { poll: PollMode::Busy, ..UdpOptions::default() };
    UdpIo::new(sockets, &options).map_err(BenchError::system("opening kernel sockets"))
}

/// An AF_XDP port that only sends.
pub(crate) fn xdp_port(interface: &str) -> Result<XdpIo, BenchError> {
    let options = XdpOptions { poll: PollMode::Busy, ..XdpOptions::new(interface, 0, AttachMode::Driver) };
    XdpIo::open(&options).map_err(BenchError::refused(format!("opening an AF_XDP socket on {interface}")))
}

/// How frames to the forwarder leave; asks the neighbour if it must.
fn resolve(session: &Session) -> Result<Hop, BenchError> {
    let first = session.publishers.first();
    let to = first.and_then(|one| one.to).unwrap_or(session.forwarder);
    let local = first.map_or(to, |one| one.local);
    let what = format!("finding the way to {to}");
    let mut hops = Hops::open().map_err(BenchError::refused(what.clone()))?;
    for _ in 0..50 {
        match hops.resolve(local.ip(), to.ip(), Nanos(clock::monotonic())) {
            Resolution::Ready(next) => return Ok(next.hop),
            Resolution::Pending => {}
            Resolution::Local { .. } => {
                return Err(BenchError::Refused { what, why: "it is on this host; use --io udp".to_owned() });
            }
            Resolution::Unreachable(why) => return Err(BenchError::Refused { what, why }),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        hops.poll();
    }
    Err(BenchError::Refused { what, why: "the neighbour does not answer".to_owned() })
}

/// A flag that SIGINT and SIGTERM set.
pub(crate) fn on_signal() -> Result<Arc<AtomicBool>, BenchError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(BenchError::system("watching signals"))?;
    }
    Ok(stop)
}

fn send<I: PacketIo>(
    arguments: &Arguments,
    session: &Session,
    io: I,
    hop: impl Fn(usize) -> Hop,
    stop: &AtomicBool,
) -> Result<(), BenchError> {
    let (rate, fast) = match arguments.rate {
        Rate::Packets(rate) => (rate, false),
        Rate::Max => (1e6, arguments.shape == Shape::Constant),
    };
    let plan = Plan {
        shape: arguments.shape,
        rate,
        payload: arguments.payload,
        video_bits: arguments.video_bits,
        seed: arguments.seed,
    };
    let schedule = Schedule::new(plan, session.streams().count() as u32);
    let impairer = Impairer::new(arguments.impairment, arguments.seed);
    let mut sender = Sender::new(io, session, hop, schedule, provider(&arguments.provider)?, impairer)?;
    let (start, cpu) = (clock::monotonic(), clock::thread_cpu());
    sender.start(start, fast);
    let end = start + (arguments.seconds * SECOND as f64) as u64;
    while clock::monotonic() < end && !stop.load(Ordering::Relaxed) {
        if sender.step(clock::monotonic()) == 0 {
            std::hint::spin_loop();
        }
    }
    let (stopped, used) = (clock::monotonic(), clock::thread_cpu() - cpu);
    sender.stop();
    let last = stopped + 120 * SECOND;
    while !sender.is_drained() && clock::monotonic() < last && !stop.load(Ordering::Relaxed) {
        sender.step(clock::monotonic());
    }
    let seconds = (stopped - start) as f64 / 1e9;
    let sent = sender.sent();
    print_json(&Report {
        io: arguments.io,
        profile: session.publisher_protection().name(),
        shape: arguments.shape,
        seconds,
        sent: sent.packets,
        bytes: sent.bytes,
        unsent: sent.unsent,
        pps: sent.packets as f64 / seconds,
        impaired: sender.impaired(),
        generator_cpu: used as f64 / (stopped - start) as f64,
        late_us: sender.late().percentiles(),
    })
}

/// Prints one JSON object on a line of its own.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), BenchError> {
    let text = serde_json::to_string(value).map_err(BenchError::refused("writing the result"))?;
    println!("{text}");
    Ok(())
}
