//! `sluice-bench engine`: the engine alone, on memory I/O, against the bare cost of sealing. Never touches the
//! network.

mod fanout;
mod wire;
mod world;

use clap::Args;
use serde::Serialize;
use sluice_srtp::{Profile, ProviderKind};

pub(crate) use world::BenchError;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Crypto provider: portable, ipsec-mb or null
    #[arg(long, default_value_t = ProviderKind::best())]
    provider: ProviderKind,
    /// SRTP profile: aes128-gcm, aes256-gcm, aes128-cm-sha1-80, aes128-cm-sha1-32 or plain
    #[arg(long, default_value = "aes128-gcm", value_parser = parse_profile)]
    profile: Protection,
    /// RTP payload in bytes, 1 to 1,400
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u16).range(1..=1400))]
    payload: u16,
    /// Receivers of each packet
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    fanout: u32,
    /// Receiving legs in all, of which each packet goes to `fanout` in random order; default: as many as `fanout`
    #[arg(long)]
    legs: Option<u32>,
    /// Packets in of one pass
    #[arg(long, default_value_t = 2_000)]
    packets: u32,
    /// Measure this many passes and report the median
    #[arg(long, default_value_t = 7)]
    passes: u32,
    /// Legs negotiate transport-wide numbers and send times, as browsers do
    #[arg(long)]
    numbered: bool,
    /// A shape instead of a fan-out
    #[arg(long, value_enum)]
    shape: Option<Shape>,
    /// Participants of each conference of the shape
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=200))]
    conference: u32,
    /// Run one pass without measuring: for callgrind
    #[arg(long, hide = true)]
    once: bool,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Shapes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Shape {
    /// Conferences: each participant sends 25 audio, 30 low and 90 high packets a second and gets 5 audio and 9
    /// video streams.
    Wire,
}

/// A profile, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protection(Option<Profile>);

impl Protection {
    fn name(self) -> &'static str {
        self.0.map_or("plain", Profile::name)
    }
}

fn parse_profile(text: &str) -> Result<Protection, String> {
    if text == "plain" {
        return Ok(Protection(None));
    }
    Profile::ALL
        .into_iter()
        .find(|p| p.name() == text)
        .map(|p| Protection(Some(p)))
        .ok_or_else(|| format!("one of {}, plain", Profile::ALL.map(Profile::name).join(", ")))
}

/// The result of a fan-out.
#[derive(Debug, Serialize)]
struct FanoutResult {
    provider: ProviderKind,
    profile: &'static str,
    payload_bytes: u16,
    fanout: u32,
    legs: u32,
    /// Whether packets out carry transport-wide numbers and send times.
    numbered: bool,
    packets_in: u64,
    packets_out: u64,
    ns_per_egress: f64,
    /// Sealing alone, same provider, keys, frames and AAD; 0 on plain.
    ns_bare_seal: f64,
    /// `ns_per_egress` over `ns_bare_seal`.
    ratio: f64,
    /// Heap allocations while packets were forwarded.
    allocations: u64,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    if arguments.shape == Some(Shape::Wire) {
        let result = wire::measure(arguments)?;
        return print(arguments.json, &result, &result.describe());
    }
    if arguments.once {
        return fanout::once(arguments);
    }
    let result = fanout::measure(arguments)?;
    let text = format!(
        "{} {} {} B fan-out {}: {:.1} ns per packet out, bare seal {:.1} ns, ratio {:.2}, {} allocations",
        result.provider,
        result.profile,
        result.payload_bytes,
        result.fanout,
        result.ns_per_egress,
        result.ns_bare_seal,
        result.ratio,
        result.allocations
    );
    print(arguments.json, &result, &text)
}

fn print<T: Serialize>(json: bool, result: &T, text: &str) -> Result<(), BenchError> {
    if json {
        println!("{}", serde_json::to_string(result).map_err(|e| BenchError::Output(e.to_string()))?);
    } else {
        println!("{text}");
    }
    Ok(())
}
