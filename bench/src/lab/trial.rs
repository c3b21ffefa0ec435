//! One run: the generator and the sink take turns on one core while the process under test has another; what both
//! and the veth counted, and whether the run may count.

use std::sync::atomic::Ordering;

use serde::Serialize;
use sluice_forwarder::io::XdpIo;

use super::net::{self, Net, PEER_DEVICE};
use super::plan::{Cast, PROBE_RATE};
use super::target::{CORE, Process};
use super::{Arguments, Target};
use crate::clock;
use crate::error::BenchError;
use crate::generate::impair::{Impairer, Impairment};
use crate::generate::sender::Sender;
use crate::generate::{Rate, provider, xdp_port};
use crate::guard::{self, Reading, Usage};
use crate::latency::Percentiles;
use crate::shape::{Plan, SECOND, Schedule, Shape};
use crate::sink::Source;
use crate::sink::check::{Checker, Received};

/// Core of generator and sink.
const GENERATOR_CORE: usize = 0;
const WARM_UP: u64 = SECOND / 2;
const DRAIN: u64 = SECOND * 3 / 10;
/// The virtual rate that streams share when as much as possible is sent: the probe's share of it.
const FAST_RATE: f64 = 500_000.0;

/// What one run gave.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    /// Packets per second that the process under test sent.
    pub(crate) egress_pps: f64,
    /// Packets per second that it was given.
    pub(crate) ingress_pps: f64,
    /// Fraction of copies that did not come out, over the whole run with a pause behind it.
    pub(crate) loss: f64,
    /// CPU time of the process under test for each packet sent.
    pub(crate) cpu_us_per_packet: f64,
    /// Cores that the process under test used.
    pub(crate) forwarder_cpu: f64,
    /// Who used the CPUs.
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// Packets the generator had to give up.
    pub(crate) unsent: u64,
    /// How late the generator was.
    pub(crate) generator_late_us: Option<Percentiles>,
    /// From the intended sending to the kernel's receive time at the sink.
    pub(crate) latency_us: Option<Percentiles>,
    /// What the sink saw.
    pub(crate) sink: Received,
    /// Why the run does not count.
    pub(crate) discard: Option<String>,
}

/// Readings at one end of the measured window.
#[derive(Debug)]
struct Mark {
    reading: Reading,
    delivered: u64,
    made: Vec<u64>,
}

/// Runs once with a fresh process. The calling thread stays where it is.
pub(crate) fn run(
    arguments: &Arguments,
    target: Target,
    rate: Rate,
    net: &Net,
) -> Result<(Trial, std::collections::BTreeMap<String, u64>), BenchError> {
    let (inbound, outbound) = target.protections(arguments.profile);
    let cast = Cast::new(arguments.publishers, arguments.fanout, inbound, outbound, arguments.seed);
    let process = Process::start(arguments, target, &cast)?;
    let trial = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("generator".to_owned());
        let thread = thread.spawn_scoped(scope, || generator(arguments, target, rate, net, &cast, &process));
        match thread.map_err(BenchError::system("starting the generator"))?.join() {
            Ok(trial) => trial,
            Err(_) => Err(BenchError::Refused { what: "generating".to_owned(), why: "the thread panicked".to_owned() }),
        }
    })?;
    let drops = process.drops();
    Ok((trial, drops))
}

fn generator(
    arguments: &Arguments,
    target: Target,
    rate: Rate,
    net: &Net,
    cast: &Cast,
    process: &Process,
) -> Result<Trial, BenchError> {
    net::enter(net::PEER)?;
    core_affinity::set_for_current(core_affinity::CoreId { id: GENERATOR_CORE });
    let saturate = rate == Rate::Max;
    let fast = saturate && arguments.fanout == 1;
    let rate = match rate {
        Rate::Packets(rate) => rate,
        Rate::Max if fast => FAST_RATE,
        Rate::Max => target.ceiling() / f64::from(arguments.fanout),
    };
    let plan = Plan { shape: Shape::Constant, rate, payload: arguments.payload, video_bits: 0, seed: arguments.seed };
    let mut schedule = Schedule::new(plan, arguments.publishers);
    if cast.probe {
        schedule = schedule.with_probe(PROBE_RATE);
    }
    let load = arguments.publishers as usize;
    // Frames of the load come back from `bare` to where they came from: that must be nobody.
    let hop = |publisher: usize| net.hop(target == Target::Bare && publisher < load);
    let impairer = Impairer::new(Impairment::default(), arguments.seed);
    let io: XdpIo = xdp_port(PEER_DEVICE)?;
    let mut sender = Sender::new(io, &process.sends, hop, schedule, provider("best")?, impairer)?;
    let mut source = Source::sockets(process.receives.receivers.iter().map(|one| one.local))?;
    let mut checker = Checker::new(&process.receives, provider("best")?, 1)?;

    let softirq = guard::softirq_thread(CORE);
    let pid = process.pid();
    let first = net::rx_packets(PEER_DEVICE);
    let start = clock::monotonic() + 1_000_000;
    let (open, close) = (start + WARM_UP, start + WARM_UP + (arguments.seconds * SECOND as f64) as u64);
    sender.start(start, fast);
    let mark = |sender: &Sender<XdpIo>| Mark {
        reading: Reading::take(pid, softirq),
        delivered: net::rx_packets(PEER_DEVICE),
        made: sender.made().collect(),
    };
    let mut opened = None;
    loop {
        let now = clock::monotonic();
        if now >= open && opened.is_none() {
            source.adjust();
            source.poll(&mut checker);
            checker.clear_latency();
            sender.late().clear();
            opened = Some(mark(&sender));
        }
        if now >= close {
            break;
        }
        if net.stop().load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        if sender.step(now) == 0 {
            std::hint::spin_loop();
        }
        source.poll(&mut checker);
    }
    let closed = mark(&sender);
    let opened = opened.unwrap_or_else(|| mark(&sender));
    sender.stop();
    while clock::monotonic() < close + DRAIN {
        source.poll(&mut checker);
    }
    let delivered = net::rx_packets(PEER_DEVICE) - first;
    let late = sender.late().percentiles();
    Ok(evaluate(&Run {
        opened,
        closed,
        copies: &cast.copies,
        delivered,
        unsent: sender.sent().unsent,
        late,
        latency: if saturate { None } else { checker.latency() },
        sink: checker.totals(),
        fast,
    }))
}

/// Everything a run is judged by.
struct Run<'a> {
    opened: Mark,
    closed: Mark,
    copies: &'a [u32],
    /// Over the whole run.
    delivered: u64,
    unsent: u64,
    late: Option<Percentiles>,
    latency: Option<Percentiles>,
    sink: Received,
    fast: bool,
}

fn evaluate(run: &Run<'_>) -> Trial {
    let usage = Usage::between(&run.opened.reading, &run.closed.reading);
    let ingress: u64 = run.closed.made.iter().zip(&run.opened.made).map(|(end, start)| end - start).sum();
    let egress = run.closed.delivered - run.opened.delivered;
    let expected: u64 = run.closed.made.iter().zip(run.copies).map(|(made, copies)| made * u64::from(*copies)).sum();
    let loss = if expected == 0 { 0.0 } else { 1.0 - run.delivered.min(expected) as f64 / expected as f64 };
    let mut discard = usage.verdict();
    if discard.is_none() && !run.fast && run.unsent > 0 {
        discard = Some(format!("the generator could not keep up: {} packets were given up", run.unsent));
    }
    let seconds = usage.seconds.max(1e-9);
    Trial {
        egress_pps: (egress as f64 / seconds).round(),
        ingress_pps: (ingress as f64 / seconds).round(),
        loss,
        cpu_us_per_packet: usage.target_cpu_s * 1e6 / egress.max(1) as f64,
        forwarder_cpu: usage.target_cpu_s / seconds,
        usage,
        unsent: run.unsent,
        generator_late_us: run.late,
        latency_us: run.latency,
        sink: run.sink.clone(),
        discard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_loss_come_from_counts() {
        let reading = Reading::take(std::process::id(), None);
        let later = Reading {
            at: reading.at + 2 * SECOND,
            thread: reading.thread + 2 * SECOND,
            target: reading.target + SECOND,
            ..reading
        };
        let run = Run {
            opened: Mark { reading, delivered: 1_000, made: vec![100, 10] },
            closed: Mark { reading: later, delivered: 201_000, made: vec![20_100, 2_010] },
            copies: &[10, 1],
            delivered: 162_408,
            unsent: 0,
            late: None,
            latency: None,
            sink: Received::default(),
            fast: false,
        };
        let trial = evaluate(&run);
        assert_eq!((trial.egress_pps, trial.ingress_pps), (100_000.0, 11_000.0));
        assert!((trial.loss - (1.0 - 162_408.0 / 203_010.0)).abs() < 1e-12, "{}", trial.loss);
        assert!((trial.cpu_us_per_packet - 5.0).abs() < 1e-9 && (trial.forwarder_cpu - 0.5).abs() < 1e-9);
        assert_eq!(trial.discard, None);
        let trial = evaluate(&Run { unsent: 3, ..run });
        assert!(trial.discard.unwrap().contains("3 packets"));
    }
}
