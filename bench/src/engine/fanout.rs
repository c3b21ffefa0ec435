//! One publisher after another to `fanout` receivers each: nanoseconds per packet out.

use std::time::Instant;

use sluice_forwarder::engine::{Engine, Nanos, Path, ports::Single};
use sluice_forwarder::io::preloaded::{AtEnd, PreloadedIo};
use sluice_forwarder::io::{PacketIo, RxBurst};
use sluice_srtp::AnyProvider;
use sluice_srtp::bench::{Shape, bare_seal};
use sluice_table::Kind;

use super::world::{BenchError, Builder, Random, Source};
use super::{Arguments, FanoutResult};
use crate::allocations;

/// Transmit frames, used in turn: as many as an AF_XDP port has, so that memory is as cold as it is there. Fewer would
/// flatter the engine by a quarter.
pub(super) const TX_FRAMES: u32 = 2_048;
/// Streams published when receivers are picked at random: enough that lists differ.
const STREAMS: u32 = 64;

struct Prepared {
    engine: Engine<AnyProvider>,
    io: PreloadedIo,
    wanted: u64,
}

fn prepare(arguments: &Arguments, packets: u32) -> Result<Prepared, BenchError> {
    let profile = arguments.profile.0;
    let legs = arguments.legs.unwrap_or(arguments.fanout).max(arguments.fanout);
    let streams = if legs > arguments.fanout { STREAMS } else { 1 };
    let mut builder = Builder::new(profile)?;
    builder.numbered = arguments.numbered;
    // Publishers behind the receivers, so that receiver numbers start at 0.
    for n in 0..legs + streams {
        builder.leg(n)?;
    }
    let mut random = Random(7);
    for stream in 0..streams {
        let source = builder.ingress(legs + stream, 1_000 + stream, Kind::Audio)?;
        let mut order: Vec<u32> = (0..legs).collect();
        for at in 0..arguments.fanout as usize {
            if streams > 1 {
                let other = at + random.below(legs - at as u32) as usize;
                order.swap(at, other);
            }
            builder.egress(order[at], 50_000 + stream, &source)?;
        }
    }
    let mut local = builder.build(arguments.provider)?;
    let mut sources = Vec::new();
    for stream in 0..streams {
        sources.push(Source::new(arguments.provider, profile, legs + stream, 1_000 + stream)?);
    }
    let payload = vec![0x5a; usize::from(arguments.payload)];
    let mut frames = Vec::new();
    for n in 0..packets {
        frames.push(sources[(n % streams) as usize].frame(&payload)?);
    }
    let io = PreloadedIo::new(frames.iter().map(Vec::as_slice), AtEnd::Stop, TX_FRAMES);
    let engine = local.engines.pop().ok_or(BenchError::Make("an engine"))?;
    Ok(Prepared { engine, io, wanted: u64::from(packets) * u64::from(arguments.fanout) })
}

/// Forwards everything that was prepared; returns what was sent.
fn forward(prepared: &mut Prepared) -> u64 {
    let Prepared { engine, io, .. } = prepared;
    let before = engine.counters().sent;
    let mut now = Nanos::from_millis(1_000);
    let mut burst = RxBurst::new();
    let mut idle = 0;
    while idle < 4 {
        // A full burst at a time when fan-outs are drained, as a busy worker sees it.
        let waiting = engine.waiting();
        if waiting < 64 {
            io.receive(&mut burst);
        }
        let outcome = engine.step(now, &burst, Path::Fast, &mut Single(io));
        idle = if burst.is_empty() && outcome.sent == 0 { idle + 1 } else { 0 };
        for frame in burst.drain(..) {
            io.release(frame);
        }
        now = now + Nanos(1_000);
    }
    engine.counters().sent - before
}

/// Measures passes and reports medians.
pub(super) fn measure(arguments: &Arguments) -> Result<FanoutResult, BenchError> {
    let mut ns = Vec::new();
    let mut bare = Vec::new();
    let (mut packets_out, mut allocated) = (0, 0);
    let legs = arguments.legs.unwrap_or(arguments.fanout).max(arguments.fanout);
    let mut crypto = AnyProvider::new(arguments.provider)?;
    for _ in 0..arguments.passes.max(1) {
        let mut prepared = prepare(arguments, arguments.packets)?;
        let before = allocations();
        let start = Instant::now();
        let sent = forward(&mut prepared);
        let elapsed = start.elapsed();
        allocated = allocations() - before;
        if sent != prepared.wanted {
            let drops = format!("{:?}", prepared.engine.counters().drops().collect::<Vec<_>>());
            return Err(BenchError::Short { got: sent, wanted: prepared.wanted, drops });
        }
        packets_out = sent;
        ns.push(elapsed.as_nanos() as f64 / sent as f64);
        if let Some(profile) = arguments.profile.0 {
            let shape =
                Shape { profile, payload: usize::from(arguments.payload), keys: legs as usize, packets: sent as usize };
            bare.push(bare_seal(&mut crypto, shape));
        }
    }
    let (ns_per_egress, ns_bare_seal) = (median(&mut ns), median(&mut bare));
    Ok(FanoutResult {
        provider: arguments.provider,
        profile: arguments.profile.name(),
        payload_bytes: arguments.payload,
        fanout: arguments.fanout,
        legs,
        numbered: arguments.numbered,
        packets_in: u64::from(arguments.packets),
        packets_out,
        ns_per_egress,
        ns_bare_seal,
        ratio: if ns_bare_seal > 0.0 { ns_per_egress / ns_bare_seal } else { 0.0 },
        allocations: allocated,
    })
}

/// One pass between two marks that callgrind can toggle on.
pub(super) fn once(arguments: &Arguments) -> Result<(), BenchError> {
    let mut prepared = prepare(arguments, arguments.packets)?;
    let sent = measured_pass(&mut prepared);
    if sent != prepared.wanted {
        let drops = format!("{:?}", prepared.engine.counters().drops().collect::<Vec<_>>());
        return Err(BenchError::Short { got: sent, wanted: prepared.wanted, drops });
    }
    println!("{{\"packets_out\":{sent}}}");
    Ok(())
}

/// `--toggle-collect='*measured_pass*'` counts exactly this.
#[inline(never)]
fn measured_pass(prepared: &mut Prepared) -> u64 {
    forward(prepared)
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
