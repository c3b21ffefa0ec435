//! A key frame to 3,000 receivers beside 100 audio streams, in simulated time: audio is not held up and nothing is
//! lost (DESIGN §6).
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use sluice_forwarder::engine::{Capacity, Nanos, Path, ports::Single};
use sluice_forwarder::io::memory::MemoryIo;
use sluice_forwarder::io::{PacketIo, RxBurst};
use sluice_forwarder::manage::local::{self, Local};
use sluice_srtp::{ProviderKind, Ssrc};
use sluice_table::{Kind, LegKind, Table};
use support::{base_table, egress, ingress, name, peer, wrap};

const RECEIVERS: u32 = 3_000;
const KEY_FRAME: u64 = 80;
const SPEAKERS: u32 = 100;
const HEARERS: u32 = 5;
/// What sealing and sending one frame is taken to cost.
const FRAME_COST: Nanos = Nanos(130);
const STEP_COST: Nanos = Nanos(1_000);

fn plain_leg(table: &mut Table, leg: &str, n: u32) {
    let mut row = local::leg(&name("media"), peer(n));
    row.kind = LegKind::Plain;
    table.legs.insert(name(leg), row);
}

fn packet(ssrc: u32, seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111, 0, 0, 0, 0, 0, 1];
    packet[2..4].copy_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[7; 100]);
    packet
}

#[test]
fn a_key_frame_to_thousands_does_not_hold_up_audio() {
    let mut table = base_table();
    plain_leg(&mut table, "camera", 0);
    ingress(&mut table, "video", "camera", 1, Kind::Video);
    for n in 1..=RECEIVERS {
        plain_leg(&mut table, &format!("rx{n}"), n);
        egress(&mut table, &format!("rx{n}-video"), &format!("rx{n}"), 10, "video");
    }
    for n in 0..SPEAKERS {
        plain_leg(&mut table, &format!("mic{n}"), RECEIVERS + 1 + n);
        ingress(&mut table, &format!("audio{n}"), &format!("mic{n}"), 100 + n, Kind::Audio);
        for hearer in 1..=HEARERS {
            let rx = format!("rx{}", n * HEARERS + hearer);
            egress(&mut table, &format!("{rx}-audio{n}"), &rx, 1_000 + n, &format!("audio{n}"));
        }
    }
    let capacity = Capacity {
        endpoints: 1,
        legs: table.legs.len(),
        tuples: table.legs.len(),
        ingress: table.ingress.len(),
        learned: 0,
        egress: table.egress.len(),
        lists: table.ingress.len(),
        cells: 512,
    };
    let mut local = Local::new(ProviderKind::Null, 1, capacity).unwrap();
    local.apply(table).unwrap();
    let hearers: Vec<Vec<u32>> = (0..SPEAKERS)
        .map(|n| {
            let slot = |h: u32| local.planner.egress(&name(&format!("rx{}", n * HEARERS + h)), Ssrc(1_000 + n));
            (1..=HEARERS).map(|h| slot(h).unwrap().1).collect()
        })
        .collect();
    let engine = &mut local.engines[0];
    let (mut port, mut far) = MemoryIo::pair(2_048);
    let mut now = Nanos::from_millis(1_000);
    let start = now;
    for seq in 0..KEY_FRAME {
        assert!(far.send(&wrap(peer(0), &packet(1, seq as u16))));
    }
    // Speaker n speaks at n x 200 µs and every 20 ms from there.
    let mut due: Vec<(Nanos, u16)> = (0..u64::from(SPEAKERS)).map(|n| (start + Nanos(n * 200_000), 0)).collect();
    let mut waiting: Vec<Option<Nanos>> = vec![None; SPEAKERS as usize];
    let mut delays: Vec<u64> = Vec::new();
    let mut spoken = 0u64;
    while now < start + Nanos::from_millis(60) {
        for (n, (at, seq)) in due.iter_mut().enumerate() {
            if *at <= now && waiting[n].is_none() {
                assert!(far.send(&wrap(peer(RECEIVERS + 1 + n as u32), &packet(100 + n as u32, *seq))));
                waiting[n] = Some(*at);
                (*at, *seq) = (*at + Nanos::from_millis(20), *seq + 1);
                spoken += 1;
            }
        }
        let mut burst = RxBurst::new();
        port.receive(&mut burst);
        let outcome = engine.step(now, &burst, Path::Fast, &mut Single(&mut port));
        burst.into_iter().for_each(|frame| port.release(frame));
        port.flush();
        far.drain(|_| {});
        port.credit();
        now = now + STEP_COST + Nanos(FRAME_COST.0 * u64::from(outcome.sent));
        for (n, slots) in hearers.iter().enumerate() {
            let sent = |slot: &u32| engine.egress_row(*slot).unwrap().packets() == u64::from(due[n].1);
            if let Some(since) = waiting[n]
                && slots.iter().all(sent)
            {
                delays.push(now.since(since).0);
                waiting[n] = None;
            }
        }
    }
    let wanted = KEY_FRAME * u64::from(RECEIVERS) + spoken * u64::from(HEARERS);
    assert_eq!(engine.counters().total_dropped(), 0);
    assert_eq!(engine.counters().sent, wanted);
    assert_eq!(delays.len() as u64, spoken);
    delays.sort_unstable();
    let p999 = delays[delays.len() * 999 / 1_000];
    assert!(p999 < 1_000_000, "audio waited {p999} ns");
    // The key frame alone keeps the core busy for 31 ms of that time, so audio did have something to wait for.
    assert!(delays.last().unwrap() > &20_000, "{delays:?}");
}
