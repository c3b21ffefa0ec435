//! Shape `wire`: everybody of every conference sends audio and two layers of video, and gets the five who talk and the
//! low layer of those it watches. What was sent and what arrived is compared packet for packet: before and after the
//! measured run nobody sends. Measures what a participant costs, not how many fit.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::World;
use super::service::Service;
use super::streams::{Run, Seen};
use super::{Arguments, Mark};
use crate::error::BenchError;
use crate::lab::net::Net;
use crate::latency::Percentiles;

/// Seconds of the run before the measured one: layers are learned, speakers chosen, gates opened.
const WARM_UP: u32 = 2;
/// From the last packet of a run to the reading; shorter than the time after which a silent speaker loses its slot.
const DRAIN: Duration = Duration::from_millis(200);
/// How much longer than its time a run may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the phase gives.
#[derive(Debug, Serialize)]
pub(super) struct MediaReport {
    shape: &'static str,
    participants: u32,
    /// From the first packet to the last.
    seconds: f64,
    sent_audio: u64,
    sent_low: u64,
    sent_high: u64,
    /// Packets the clients must get for what was sent.
    wanted_audio: u64,
    wanted_video: u64,
    received_audio: u64,
    received_video: u64,
    received_rtcp: u64,
    /// Of the wanted ones that did not come, in percent.
    loss_percent: f64,
    /// Of the sampled packets.
    opened: u64,
    unopened: u64,
    /// How late packets left.
    late_us: Option<Percentiles>,
    /// By the forwarder's counters.
    packets_in_per_second: f64,
    packets_out_per_second: f64,
    /// What the forwarder did not send on, by reason; `no_receiver` are those who do not talk. A layer that nobody is
    /// sent ends at the receivers' gates, which is no drop.
    drops: BTreeMap<String, u64>,
    /// What was lost at the forwarder's rings before it, or behind. Of what is missing, the rest was lost at the clients' sockets.
    ring_losses: BTreeMap<String, u64>,
    /// CPU seconds a second: of the forwarder with its core's softirq thread, of control, of the clients.
    forwarder_cpu: f64,
    control_cpu: f64,
    generator_cpu: f64,
    participants_per_core: f64,
}

impl MediaReport {
    pub(super) fn print(&self) {
        eprintln!(
            "  shape wire, {} participants       {:>9.0} packets in a second, {:.0} out, {:.3} % lost",
            self.participants, self.packets_in_per_second, self.packets_out_per_second, self.loss_percent
        );
        eprintln!(
            "  CPU of the forwarder              {:>9.4} s a second: {:.0} participants a core (control {:.4}, clients {:.2})",
            self.forwarder_cpu, self.participants_per_core, self.control_cpu, self.generator_cpu
        );
    }
}

/// Lets everybody send, twice, and measures the second time.
pub(super) async fn measure(
    arguments: &Arguments,
    net: &Net,
    service: &Service,
    world: &World,
) -> Result<MediaReport, BenchError> {
    let total = arguments.conferences * arguments.participants;
    let complete = world.tally.borrow().complete;
    if complete != total || world.tally.borrow().failures() > 0 {
        let failed = world.tally.borrow().failed.clone();
        let why = format!("only {complete} of {total} clients know everybody of their conference; failed: {failed:?}");
        return Err(BenchError::Refused { what: "sending media".to_owned(), why });
    }
    run(world, net, total, WARM_UP).await?;
    tokio::time::sleep(DRAIN).await;
    let counters = service.counters()?;
    world.tally.borrow_mut().media = Seen::new();
    let start = Mark::take(service);
    run(world, net, total, arguments.media).await?;
    let end = Mark::take(service);
    tokio::time::sleep(DRAIN).await;
    let after = service.counters()?;
    let counted = |group: &str, name: &str| {
        let key = (group.to_owned(), name.to_owned());
        after.get(&key).copied().unwrap_or(0) - counters.get(&key).copied().unwrap_or(0)
    };
    let some = |group: &str, names: &mut dyn Iterator<Item = &str>| -> BTreeMap<String, u64> {
        names.map(|name| (name.to_owned(), counted(group, name))).filter(|(_, count)| *count > 0).collect()
    };
    let mut reasons = after.keys().filter(|(group, _)| group == "drops").map(|(_, name)| name.as_str());
    let mut losses = ["rx_ring_full", "rx_fill_empty", "rx_dropped", "tx_invalid", "tx_failed"].into_iter();
    let seen = &world.tally.borrow().media;
    let others = u64::from(arguments.participants - 1);
    let wanted_audio = seen.sent_speech * others;
    let wanted_video = seen.sent_layers[0] * others.min(u64::from(arguments.watch));
    let lost = (wanted_audio + wanted_video) as f64 - (seen.audio + seen.video) as f64;
    let seconds = end.at.duration_since(start.at).as_secs_f64().max(1e-9);
    let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9 / seconds;
    let (before, used) = (start.used, end.used);
    let forwarder_cpu =
        share(before.forwarder_cpu + before.softirq_cpu, used.forwarder_cpu + used.softirq_cpu).max(1e-9);
    Ok(MediaReport {
        shape: "wire",
        participants: total,
        seconds,
        sent_audio: seen.sent_audio,
        sent_low: seen.sent_layers[0],
        sent_high: seen.sent_layers[1],
        wanted_audio,
        wanted_video,
        received_audio: seen.audio,
        received_video: seen.video,
        received_rtcp: seen.rtcp,
        loss_percent: 100.0 * lost / ((wanted_audio + wanted_video) as f64).max(1.0),
        opened: seen.opened,
        unopened: seen.unopened,
        late_us: seen.late.percentiles(),
        packets_in_per_second: counted("packets", "opened") as f64 / seconds,
        packets_out_per_second: counted("packets", "sealed") as f64 / seconds,
        drops: some("drops", &mut reasons),
        ring_losses: some("io", &mut losses),
        forwarder_cpu,
        control_cpu: share(before.control_cpu, used.control_cpu),
        generator_cpu: share(start.thread, end.thread),
        participants_per_core: f64::from(total) / forwarder_cpu,
    })
}

/// A run; ends when everybody has sent everything.
async fn run(world: &World, net: &Net, total: u32, seconds: u32) -> Result<(), BenchError> {
    world.tally.borrow_mut().media.finished = 0;
    let start = Instant::now();
    if let Some(runs) = &world.runs {
        runs.send_replace(Some(Run { start, seconds }));
    }
    let limit = start + Duration::from_secs(u64::from(seconds)) + PATIENCE;
    loop {
        let (finished, failures) = (world.tally.borrow().media.finished, world.tally.borrow().failures());
        if finished == total {
            return Ok(());
        }
        if net.stop().load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        if Instant::now() > limit || failures > 0 {
            let why = format!("{finished} of {total} sent everything; {:?}", world.tally.borrow().failed);
            return Err(BenchError::Refused { what: "sending media".to_owned(), why });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
