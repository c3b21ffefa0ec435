//! Shape `wire`: conferences in which everybody sends audio and two video layers and gets five audio and nine
//! video streams. One core's participants = how much faster than real time one second of it was forwarded.

use std::time::Instant;

use serde::Serialize;
use sluice_forwarder::engine::{Nanos, Path, ports::Single};
use sluice_forwarder::io::preloaded::{AtEnd, PreloadedIo};
use sluice_forwarder::io::{PacketIo, RxBurst};
use sluice_srtp::ProviderKind;
use sluice_table::Kind;

use super::Arguments;
use super::fanout::{TX_FRAMES, median};
use super::world::{BenchError, Builder, Source};

/// Packets a second of each stream of a participant.
const AUDIO: u32 = 25;
const LOW: u32 = 30;
const HIGH: u32 = 90;
/// Streams a participant gets.
const AUDIO_SLOTS: u32 = 5;
const VIDEO_SLOTS: u32 = 9;
/// Payload bytes of each.
const AUDIO_BYTES: usize = 80;
const LOW_BYTES: usize = 600;
const HIGH_BYTES: usize = 1_100;

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct WireResult {
    provider: ProviderKind,
    profile: &'static str,
    conference: u32,
    participants: u32,
    packets_in: u64,
    packets_out: u64,
    /// Seconds of CPU for one second of traffic.
    cpu_seconds: f64,
    participants_per_core: f64,
}

impl WireResult {
    pub(super) fn describe(&self) -> String {
        format!(
            "{} {}: {} participants in conferences of {}: {:.4} CPU-s a second, {:.0} participants a core",
            self.provider,
            self.profile,
            self.participants,
            self.conference,
            self.cpu_seconds,
            self.participants_per_core
        )
    }
}

pub(super) fn measure(arguments: &Arguments) -> Result<WireResult, BenchError> {
    let profile = arguments.profile.0;
    let size = arguments.conference;
    // Enough conferences that tables do not all sit in the first-level cache.
    let conferences = (200 / size).max(1);
    let participants = conferences * size;
    let mut seconds = Vec::new();
    let (mut packets_in, mut packets_out) = (0, 0);
    for _ in 0..arguments.passes.max(1) {
        let mut builder = Builder::new(profile)?;
        builder.numbered = arguments.numbered;
        for n in 0..participants {
            builder.leg(n)?;
        }
        for n in 0..participants {
            let first = n / size * size;
            let at = n - first;
            let audio = builder.ingress(n, n * 4 + 1, Kind::Audio)?;
            let low = builder.ingress(n, n * 4 + 2, Kind::Video)?;
            builder.ingress(n, n * 4 + 3, Kind::Video)?;
            // The five who talk are heard, the nine after oneself are seen; nobody gets himself back.
            for slot in 1..size {
                let receiver = first + (at + size - slot) % size;
                if slot <= VIDEO_SLOTS {
                    builder.egress(receiver, 100_000 + n * 4, &low)?;
                }
                if at < AUDIO_SLOTS {
                    builder.egress(receiver, 100_001 + n * 4, &audio)?;
                }
            }
        }
        let mut local = builder.build(arguments.provider)?;
        let mut frames = Vec::new();
        let mut sources = Vec::new();
        for n in 0..participants {
            let source = |ssrc| Source::new(arguments.provider, profile, n, ssrc);
            sources.push([source(n * 4 + 1)?, source(n * 4 + 2)?, source(n * 4 + 3)?]);
        }
        let (audio, low, high) = (vec![1u8; AUDIO_BYTES], vec![2u8; LOW_BYTES], vec![3u8; HIGH_BYTES]);
        // One second in 90 slots, participants interleaved as they would arrive.
        for slot in 0..HIGH {
            for streams in &mut sources {
                let due = |rate: u32| (slot + 1) * rate / HIGH > slot * rate / HIGH;
                if due(AUDIO) {
                    frames.push(streams[0].frame(&audio)?);
                }
                if due(LOW) {
                    frames.push(streams[1].frame(&low)?);
                }
                frames.push(streams[2].frame(&high)?);
            }
        }
        let mut io = PreloadedIo::new(frames.iter().map(Vec::as_slice), AtEnd::Stop, TX_FRAMES);
        let engine = local.engines.first_mut().ok_or(BenchError::Make("an engine"))?;
        let mut burst = RxBurst::new();
        let mut now = Nanos::from_millis(1_000);
        let mut idle = 0;
        let start = Instant::now();
        while idle < 4 {
            if engine.waiting() < 64 {
                io.receive(&mut burst);
            }
            let outcome = engine.step(now, &burst, Path::Fast, &mut Single(&mut io));
            idle = if burst.is_empty() && outcome.sent == 0 { idle + 1 } else { 0 };
            for frame in burst.drain(..) {
                io.release(frame);
            }
            now = now + Nanos(10_000);
        }
        seconds.push(start.elapsed().as_secs_f64());
        packets_in = frames.len() as u64;
        packets_out = engine.counters().sent;
        let hearers = u64::from((size - 1) * AUDIO_SLOTS.min(size) * AUDIO);
        let viewers = u64::from(size * VIDEO_SLOTS.min(size - 1) * LOW);
        let wanted = u64::from(conferences) * (hearers + viewers);
        if packets_out != wanted {
            let drops = format!("{:?}", engine.counters().drops().collect::<Vec<_>>());
            return Err(BenchError::Short { got: packets_out, wanted, drops });
        }
    }
    let cpu_seconds = median(&mut seconds);
    Ok(WireResult {
        provider: arguments.provider,
        profile: arguments.profile.name(),
        conference: size,
        participants,
        packets_in,
        packets_out,
        cpu_seconds,
        participants_per_core: f64::from(participants) / cpu_seconds,
    })
}
