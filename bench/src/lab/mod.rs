//! `lab`: measures a forwarder between two namespaces on one machine. Several runs, the median, optionally in turn
//! with another target, because times on shared machines drift and only ratios within one run decide.

pub(crate) mod bare;
mod bencode;
pub(crate) mod net;
mod plan;
mod rtpengine;
mod target;
mod trial;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sluice_forwarder::io::PollMode;
use sluice_srtp::Profile;
use sluice_srtp::bench::{Shape, bare_open, bare_seal};

use crate::error::BenchError;
use crate::generate::{Rate, payload, print_json, provider, seconds};
use crate::guard;
use crate::keys::Protection;
use crate::latency::Percentiles;
pub(crate) use net::Net;
pub(crate) use trial::Trial;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// Sluice by `AF_XDP`.
    Xdp,
    /// Sluice by kernel sockets.
    Udp,
    /// Sluice by kernel sockets with segmentation offload.
    UdpGso,
    /// An `AF_XDP` forwarder that only turns packets around.
    Bare,
    /// Debian's rtpengine in user space, AES-CM in.
    Rtpengine,
}

impl Target {
    /// Protection of what comes in and of what goes out.
    fn protections(self, profile: Protection) -> (Protection, Protection) {
        match (self, profile.0) {
            (Target::Rtpengine, Some(_)) => (Protection(Some(Profile::Aes128CmSha1_80)), profile),
            _ => (profile, profile),
        }
    }
}

impl Target {
    /// Packets per second out that `--rate max` asks for. For Sluice, more than one core can do; even more would only
    /// let whole cycles of sequence numbers get lost, after which no receiver knows the rollover counter (RFC 3711
    /// §3.3.1). For rtpengine, less than it can do: it reads its socket on an edge and never again once the socket's
    /// buffer was full, so it cannot be measured overloaded. It sleeps when idle, so its CPU time per packet holds.
    fn ceiling(self) -> f64 {
        match self {
            Target::Xdp | Target::Udp | Target::UdpGso | Target::Bare => 2_500_000.0,
            Target::Rtpengine => 50_000.0,
        }
    }

    /// Where a throughput search starts, given what came out at `--rate max`.
    pub(crate) fn search_from(self, egress_pps: f64) -> f64 {
        if self == Target::Rtpengine { 500_000.0 } else { egress_pps * 1.1 }
    }
}

/// How workers wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Polling {
    /// Never sleep.
    Busy,
    /// Sleep after a while without work.
    Adaptive,
    /// Sleep at once.
    Interrupt,
}

impl Polling {
    /// The name on command lines and in configurations.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Polling::Busy => "busy",
            Polling::Adaptive => "adaptive",
            Polling::Interrupt => "interrupt",
        }
    }
}

impl From<Polling> for PollMode {
    fn from(polling: Polling) -> Self {
        match polling {
            Polling::Busy => PollMode::Busy,
            Polling::Adaptive => PollMode::Adaptive,
            Polling::Interrupt => PollMode::Interrupt,
        }
    }
}

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(long, value_enum, default_value = "xdp")]
    pub(crate) io: Target,
    /// Measure this in turn with --io and report the ratio
    #[arg(long, value_enum, value_name = "IO")]
    against: Option<Target>,
    /// Profile of every leg
    #[arg(long, default_value = "aes128-gcm")]
    pub(crate) profile: Protection,
    /// Payload bytes of every packet
    #[arg(long, default_value_t = 1200, value_parser = payload)]
    pub(crate) payload: usize,
    /// Receivers of every publisher
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) fanout: u32,
    /// Publishers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) publishers: u32,
    /// Length of the measured part of a run
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Packets per second from all publishers together, or max
    #[arg(long, default_value = "max")]
    pub(crate) rate: Rate,
    /// Worker threads of the forwarder; more than one share core 0 with the generator here
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) workers: u8,
    /// How workers wait
    #[arg(long, value_enum, default_value = "busy")]
    pub(crate) polling: Polling,
    /// The forwarder's crypto provider
    #[arg(long, default_value = "best")]
    pub(crate) provider: String,
    /// Runs that must count; the median is reported
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) runs: u32,
    /// Runs tried at most, for each that must count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) attempts: u32,
    /// Wait this long at most, before each run, for the machine to come to rest
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    pub(crate) wait_quiet: f64,
    /// Report runs that the guards would discard too
    #[arg(long)]
    pub(crate) no_guard: bool,
    /// Seed of keys
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The forwarder; the one beside this binary unless given
    #[arg(long, value_name = "PATH")]
    pub(crate) forwarder: Option<PathBuf>,
    /// Print JSON; there is no other format
    #[arg(long)]
    pub(crate) json: bool,
}

/// A run that does not count.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Discarded {
    /// Which target.
    io: Target,
    /// Which run, from 1.
    run: u32,
    /// Why.
    reason: String,
}

/// Medians of one target.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    io: Target,
    profile: &'static str,
    payload_bytes: usize,
    fanout: u32,
    publishers: u32,
    seconds: f64,
    workers: u8,
    polling: Polling,
    runs: usize,
    pub(crate) egress_pps: f64,
    pub(crate) ingress_pps: f64,
    pub(crate) loss: f64,
    cpu_us_per_packet: f64,
    forwarder_cpu: f64,
    generator_cpu: f64,
    foreign_cpu_s: f64,
    latency_us: Option<Percentiles>,
    generator_late_us: Option<Percentiles>,
    /// Of the last run.
    sink: Option<crate::sink::check::Received>,
    /// What the forwarder dropped in the last run.
    drops: BTreeMap<String, u64>,
    /// Lowest and highest `egress_pps`.
    egress_range: [f64; 2],
    discarded: Vec<Discarded>,
}

/// What the cipher alone costs, on the core of the process under test, right after the runs.
#[derive(Debug, Serialize)]
struct Cipher {
    /// Nanoseconds to fill a job and seal it, a key for every receiver.
    bare_seal_ns: f64,
    /// Nanoseconds to fill a job and open it, a key for every publisher.
    bare_open_ns: f64,
    /// `added_cpu_us` over the cost of what the cipher does for one packet sent: one seal and its share of one open.
    added_over_bare: f64,
}

/// Two targets in turn.
#[derive(Debug, Serialize)]
struct Comparison {
    #[serde(flatten)]
    report: Report,
    against: Report,
    /// Median over pairs of (--io / --against).
    rate_ratio: f64,
    /// Median over pairs of (--io / --against).
    cpu_ratio: f64,
    /// Median over pairs of the difference.
    added_cpu_us: f64,
    cipher: Option<Cipher>,
}

/// Measures and prints the report.
pub(crate) fn run(arguments: &Arguments) -> Result<(), BenchError> {
    let net = Net::up(arguments.workers)?;
    let targets: Vec<Target> = std::iter::once(arguments.io).chain(arguments.against).collect();
    let (rounds, discarded) = rounds(arguments, &targets, arguments.rate, &net)?;
    let column = |at: usize| rounds.iter().map(|round| round[at].clone()).collect::<Vec<_>>();
    let of = |io: Target| discarded.iter().filter(|one| one.io == io).cloned().collect::<Vec<_>>();
    let first = report(arguments, arguments.io, &column(0), of(arguments.io));
    let Some(other) = arguments.against else { return print_json(&first) };
    let pairs = |value: &dyn Fn(&Trial, &Trial) -> f64| {
        median(rounds.iter().map(|round| value(&round[0].0, &round[1].0)).collect())
    };
    let added_cpu_us = pairs(&|a, b| a.cpu_us_per_packet - b.cpu_us_per_packet);
    print_json(&Comparison {
        rate_ratio: pairs(&|a, b| a.egress_pps / b.egress_pps),
        cpu_ratio: pairs(&|a, b| a.cpu_us_per_packet / b.cpu_us_per_packet),
        added_cpu_us,
        cipher: cipher(arguments, added_cpu_us)?,
        report: first,
        against: report(arguments, other, &column(1), of(other)),
    })
}

/// Measures the cipher alone; `None` without SRTP.
fn cipher(arguments: &Arguments, added_cpu_us: f64) -> Result<Option<Cipher>, BenchError> {
    let Some(profile) = arguments.profile.0 else { return Ok(None) };
    let measure = || {
        core_affinity::set_for_current(core_affinity::CoreId { id: target::CORE });
        let mut crypto = provider(&arguments.provider)?;
        let shape = |keys: u32| Shape { profile, payload: arguments.payload, keys: keys as usize, packets: 200_000 };
        let (sealing, opening) = (shape(arguments.fanout * arguments.publishers), shape(arguments.publishers));
        let seal = median((0..5).map(|_| bare_seal(&mut crypto, sealing)).collect());
        let open = median((0..5).map(|_| bare_open(&mut crypto, opening)).collect());
        let both = seal + open / f64::from(arguments.fanout);
        Ok(Cipher { bare_seal_ns: seal, bare_open_ns: open, added_over_bare: added_cpu_us * 1_000.0 / both })
    };
    // On a thread of its own: the pinning ends with it.
    let measured = std::thread::scope(|scope| scope.spawn(measure).join());
    measured
        .unwrap_or_else(|_| {
            Err(BenchError::Refused { what: "measuring the cipher".to_owned(), why: "the thread panicked".to_owned() })
        })
        .map(Some)
}

/// One measurement of one target at one rate, for the throughput search.
pub(crate) fn measure(arguments: &Arguments, rate: Rate, net: &Net) -> Result<Report, BenchError> {
    let (rounds, discarded) = rounds(arguments, &[arguments.io], rate, net)?;
    let column: Vec<Counted> = rounds.iter().map(|round| round[0].clone()).collect();
    Ok(report(arguments, arguments.io, &column, discarded))
}

/// A run that counts and what the forwarder dropped in it.
type Counted = (Trial, BTreeMap<String, u64>);

/// Rounds of one run of each target; a round counts only if all of its runs do.
fn rounds(
    arguments: &Arguments,
    targets: &[Target],
    rate: Rate,
    net: &Net,
) -> Result<(Vec<Vec<Counted>>, Vec<Discarded>), BenchError> {
    let (mut rounds, mut discarded) = (Vec::new(), Vec::new());
    for attempt in 1..=arguments.runs.saturating_mul(arguments.attempts) {
        if arguments.wait_quiet > 0.0 {
            guard::wait_quiet(Duration::from_secs_f64(arguments.wait_quiet.min(86_400.0)), net.stop());
        }
        let mut round = Vec::new();
        for target in targets {
            if net.stop().load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let (trial, drops) = trial::run(arguments, *target, rate, net)?;
            eprintln!(
                "sluice-bench: {target:?} {} pps, {:.3} us, loss {:.6}{}",
                trial.egress_pps,
                trial.cpu_us_per_packet,
                trial.loss,
                trial.discard.as_ref().map(|why| format!(" (discarded: {why})")).unwrap_or_default()
            );
            if let Some(reason) = trial.discard.clone().filter(|_| !arguments.no_guard) {
                discarded.push(Discarded { io: *target, run: attempt, reason });
                break;
            }
            round.push((trial, drops));
        }
        if round.len() == targets.len() {
            rounds.push(round);
        }
        if rounds.len() == arguments.runs as usize {
            return Ok((rounds, discarded));
        }
    }
    let reason = discarded.last().map_or_else(String::new, |one| one.reason.clone());
    if rounds.is_empty() { Err(BenchError::Noisy(reason)) } else { Ok((rounds, discarded)) }
}

fn report(arguments: &Arguments, io: Target, trials: &[Counted], discarded: Vec<Discarded>) -> Report {
    let of = |value: &dyn Fn(&Trial) -> f64| median(trials.iter().map(|(trial, _)| value(trial)).collect());
    let rates = trials.iter().map(|(trial, _)| trial.egress_pps);
    let last = trials.last();
    Report {
        io,
        profile: arguments.profile.name(),
        payload_bytes: arguments.payload,
        fanout: arguments.fanout,
        publishers: arguments.publishers,
        seconds: arguments.seconds,
        workers: arguments.workers,
        polling: arguments.polling,
        runs: trials.len(),
        egress_pps: of(&|trial| trial.egress_pps),
        ingress_pps: of(&|trial| trial.ingress_pps),
        loss: of(&|trial| trial.loss),
        cpu_us_per_packet: of(&|trial| trial.cpu_us_per_packet),
        forwarder_cpu: of(&|trial| trial.forwarder_cpu),
        generator_cpu: of(&|trial| trial.usage.generator_cpu),
        foreign_cpu_s: of(&|trial| trial.usage.foreign_cpu_s),
        latency_us: medians(&trials.iter().filter_map(|(trial, _)| trial.latency_us).collect::<Vec<_>>()),
        generator_late_us: medians(&trials.iter().filter_map(|(trial, _)| trial.generator_late_us).collect::<Vec<_>>()),
        sink: last.map(|(trial, _)| trial.sink.clone()),
        drops: last.map(|(_, drops)| drops.clone()).unwrap_or_default(),
        egress_range: [rates.clone().fold(f64::INFINITY, f64::min), rates.fold(0.0, f64::max)],
        discarded,
    }
}

/// The median of each percentile.
fn medians(all: &[Percentiles]) -> Option<Percentiles> {
    let of = |value: &dyn Fn(&Percentiles) -> f64| median(all.iter().map(value).collect());
    (!all.is_empty()).then(|| Percentiles {
        count: all.iter().map(|one| one.count).sum(),
        p50: of(&|one| one.p50),
        p99: of(&|one| one.p99),
        p999: of(&|one| one.p999),
        max: of(&|one| one.max),
    })
}

/// The middle value; of an even number the mean of the middle two; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
