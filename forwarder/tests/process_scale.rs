//! 100,000 egress streams programmed while packets flow, and the memory legs and streams take.
#![allow(clippy::unwrap_used)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/process.rs"]
mod process;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ears::Ears;
use process::{Lab, Start, each_lab, loopback};
use sluice_srtp::{MasterKey, Profile, Ssrc};
use sluice_table::{Kind, Table};
use support::{Publisher, egress, ingress, key, publisher_leg, receiver_leg};

const LEGS: u32 = 500;
const STREAMS: u32 = 100_000;

/// A key of its own for every leg.
fn leg_key(n: u32) -> MasterKey {
    let mut bytes = [0x33; 28];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    MasterKey::from_bytes(Profile::AeadAes128Gcm, &bytes).unwrap()
}

/// Many streams of a source that is silent.
fn crowd(table: &mut Table, lab: &Lab) {
    ingress(table, "silent", "pub", 9, Kind::Video);
    for n in 0..LEGS {
        let remote = (lab.peer_ip, 20_000 + n as u16).into();
        receiver_leg(table, &format!("crowd{n}"), remote, &leg_key(n));
        for m in 0..STREAMS / LEGS {
            egress(table, &format!("crowd{n}/{m}"), &format!("crowd{n}"), 1_000 + m, "silent");
        }
    }
}

#[test]
fn programming_a_crowd_loses_no_packet() {
    each_lab(|lab| {
        let forwarder = Start { capacity: [1_024, 64, 110_000, 4_096], ..Start::of(lab) }.start(lab);
        let (inbound, outbound) = (key(Profile::AeadAes128Gcm, 1), key(Profile::AeadAes256Gcm, 2));
        let (socket, mut ears) = (lab.peer(), Ears::new(lab, &outbound));
        let mut table = lab.table();
        publisher_leg(&mut table, "pub", socket.local_addr().unwrap(), &inbound);
        ingress(&mut table, "audio", "pub", 7, Kind::Audio);
        receiver_leg(&mut table, "rx", ears.address(), &outbound);
        egress(&mut table, "rx/audio", "rx", 70, "audio");
        forwarder.apply(&table).unwrap();
        let few = table.clone();
        crowd(&mut table, lab);

        let ends = Arc::new(AtomicBool::new(false));
        let (until, local) = (ends.clone(), lab.local);
        let mut publisher = Publisher::new(socket.local_addr().unwrap(), Ssrc(7), 111, &inbound, 1);
        let load = std::thread::spawn(move || {
            let mut sent = 0;
            while !until.load(Ordering::Relaxed) {
                socket.send_to(&publisher.packet(&[1; 120], &[]), local).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        ears.until("traffic", |ears| ears.total() > 50);
        let mut times = Vec::new();
        let before = forwarder.resident();
        let mut grown = Vec::new();
        for table in [&table, &few, &table] {
            let (start, cpu) = (Instant::now(), forwarder.manager_cpu());
            forwarder.apply(table).unwrap();
            times.push((start.elapsed(), forwarder.manager_cpu().saturating_sub(cpu)));
            grown.push((forwarder.resident() - before) * 1024 / u64::from(STREAMS));
            let heard = ears.total();
            ears.until("traffic after a commit", |ears| ears.total() > heard + 50);
        }
        ends.store(true, Ordering::Relaxed);
        let sent: usize = load.join().unwrap();
        ears.until("every packet sent", |ears| ears.total() == sent);
        println!(
            "{}: {STREAMS} egress streams on {LEGS} legs in, out and in again, with the management thread's CPU time: \
             {times:?}; {sent} packets; bytes a stream beyond its pools: {grown:?}",
            lab.name
        );
        // Names, table and plans on the management thread; and no more when the same comes and goes again.
        assert!(grown.iter().all(|bytes| *bytes <= 1_664), "bytes a stream beyond its pools: {grown:?}");
        let streams = forwarder.status().capacity.into_iter().find(|pool| pool.what == "egress streams").unwrap();
        assert_eq!(streams.used, u64::from(STREAMS) + 1);
    });
}

/// Resident KiB of a forwarder that just started, by capacity: legs and egress streams.
fn resident(legs: usize, streams: usize) -> u64 {
    let lab = loopback();
    Start { capacity: [legs, 64, streams, 256], ..Start::of(&lab) }.start(&lab).resident()
}

#[test]
fn pools_stay_within_their_budgets() {
    let small = resident(64, 256);
    let (legs, streams) = (20_000, 100_000);
    let (by_leg, by_stream) = (resident(64 + legs, 256) - small, resident(64, 256 + streams) - small);
    let each = |kib: u64, n: usize| kib * 1024 / n as u64;
    let (a_leg, a_stream) = (each(by_leg, legs), each(by_stream, streams));
    println!("a leg takes {a_leg} bytes, an egress stream {a_stream} bytes; {small} KiB at least");
    assert!(a_leg <= 6 * 1024, "{a_leg} bytes a leg");
    // Without history, and without its configuration, which the management thread allocates with its own rows.
    assert!(a_stream <= 1_024, "{a_stream} bytes an egress stream");
}
