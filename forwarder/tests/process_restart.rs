//! kill -9 under load, twenty times: no packet index is ever sealed twice, streams and replay windows go on where
//! they were, and nothing has to be cleaned up by hand.
#![allow(clippy::unwrap_used)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/process.rs"]
mod process;
mod support;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ears::Ears;
use process::{Forwarder, Lab, PATIENCE, Start, each_lab};
use sluice_forwarder::engine::index_store::Direction;
use sluice_forwarder::index_file::IndexFile;
use sluice_forwarder::index_file::store::IndexStore;
use sluice_forwarder::xdp::netlink::attached_program;
use sluice_srtp::{MasterKey, Profile, Ssrc};
use sluice_table::Kind;
use support::{Publisher, Random, egress, ingress, key, publisher_leg, receiver_leg};

const KILLS: u64 = 20;
const SOURCE: u32 = 0x1234;

#[test]
fn twenty_kills_under_load() {
    each_lab(twenty_kills);
}

fn twenty_kills(lab: &Lab) {
    let profiles = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];
    let keys: Vec<MasterKey> = (0..).zip(profiles).map(|(n, profile)| key(profile, 10 + n)).collect();
    let mut ears: Vec<Ears> = keys.iter().map(|key| Ears::new(lab, key)).collect();
    let inbound = key(Profile::Aes128CmSha1_80, 1);
    let socket = lab.peer();
    let mut table = lab.table();
    publisher_leg(&mut table, "pub", socket.local_addr().unwrap(), &inbound);
    ingress(&mut table, "audio", "pub", SOURCE, Kind::Audio);
    for (n, (ears, key)) in ears.iter().zip(&keys).enumerate() {
        let leg = format!("rx{n}");
        receiver_leg(&mut table, &leg, ears.address(), key);
        egress(&mut table, &format!("{leg}/audio"), &leg, 100 + n as u32, "audio");
    }

    let start = Start { workers: 2, ..Start::of(lab) };
    let load = Load::start(&socket, lab, &inbound);
    let mut random = Random(0x51u64 + u64::from(lab.is_xdp()));
    let mut expected: Vec<Option<u64>> = vec![None; ears.len()];
    for kill in 0..=KILLS {
        let forwarder = start.start(lab);
        forwarder.apply(&table).unwrap();
        for (n, ears) in ears.iter_mut().enumerate() {
            let (ssrc, before) = (Ssrc(100 + n as u32), ears.last_index(Ssrc(100 + n as u32)));
            ears.until("packets after a restart", |ears| {
                ears.streams.get(&ssrc).is_some_and(|s| s.packets.range(before.map_or(0, |b| b + 1)..).count() > 20)
            });
            let packets = &ears.streams[&ssrc].packets;
            let (first, _) = packets.range(before.map_or(0, |b| b + 1)..).next().unwrap();
            if let Some(next) = expected[n] {
                assert_eq!(*first, next, "{} {ssrc:?} goes on exactly at the stored index, kill {kill}", lab.name);
            }
        }
        if kill > 0 {
            replays_are_refused(&forwarder, &socket, lab, &load.recorded.lock().unwrap().1);
        }
        let newest = load.record();
        ears[0].until("packets after the recorded ones", |ears| {
            let packets = &ears.streams[&Ssrc(100)].packets;
            packets.last_key_value().is_some_and(|(_, heard)| number(&heard.payload) > newest + 20)
        });
        let until = Instant::now() + Duration::from_millis(20 + random.below(80));
        while Instant::now() < until {
            for ears in &mut ears {
                ears.drain();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if kill == KILLS {
            assert!(forwarder.terminate().success());
            break;
        }
        forwarder.kill();
        nothing_is_left(lab);
        // What a killed process had sealed may still be on its way.
        std::thread::sleep(Duration::from_millis(5));
        for (n, ears) in ears.iter_mut().enumerate() {
            ears.drain();
            let ssrc = Ssrc(100 + n as u32);
            let next = stored(lab, &keys[n], ssrc);
            assert!(next > ears.last_index(ssrc).unwrap(), "the stored index is ahead of everything sealed");
            expected[n] = Some(next);
        }
    }
    load.stop();
    for ears in &mut ears {
        ears.drain();
        for (ssrc, stream) in &ears.streams {
            let times: Vec<u32> = stream.packets.values().map(|heard| heard.timestamp).collect();
            let forward = |pair: &[u32]| (pair[1].wrapping_sub(pair[0]) as i32) > 0;
            assert!(times.windows(2).all(forward), "{} {ssrc:?}: a timestamp went backwards", lab.name);
        }
        assert_eq!(ears.streams.len(), 1);
    }
    println!("{}: {:?} packets over {KILLS} kills", lab.name, ears.iter().map(Ears::total).collect::<Vec<_>>());
}

/// The publisher's number of a packet.
fn number(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

/// Packets from before the kill change nothing but a counter.
fn replays_are_refused(forwarder: &Forwarder, socket: &UdpSocket, lab: &Lab, recorded: &[Vec<u8>]) {
    assert!(!recorded.is_empty());
    let refused = |c: &process::Counters| c.get("drops.replayed") + c.get("drops.too_old");
    let before = refused(&forwarder.counters());
    for packet in recorded {
        socket.send_to(packet, lab.local).unwrap();
    }
    let wanted = before + recorded.len() as u64;
    let deadline = Instant::now() + PATIENCE;
    while refused(&forwarder.counters()) < wanted {
        assert!(Instant::now() < deadline, "a replayed packet was taken: {:?}", forwarder.counters());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(refused(&forwarder.counters()), wanted);
}

/// The next index of a stream as the dead process left it.
fn stored(lab: &Lab, key: &MasterKey, ssrc: Ssrc) -> u64 {
    let file = IndexFile::open(&lab.state().join("indexes"), 1).unwrap();
    let store = IndexStore::new(Arc::new(file)).unwrap();
    store.get(key.key_id(), ssrc, Direction::Send).unwrap().next()
}

/// No program on the interface, and plain sockets work there.
fn nothing_is_left(lab: &Lab) {
    let index = lab.ifindex();
    let deadline = Instant::now() + PATIENCE;
    while let Some(program) = lab.inside(|| attached_program(index)).unwrap() {
        assert!(Instant::now() < deadline, "XDP program {program} is still attached");
        std::thread::sleep(Duration::from_millis(1));
    }
    let server = lab.inside(|| UdpSocket::bind(lab.local)).unwrap();
    server.set_nonblocking(true).unwrap();
    let client = lab.peer();
    let mut buffer = [0u8; 2048];
    loop {
        client.send_to(b"anybody there?", lab.local).unwrap();
        while let Ok((len, _)) = server.recv_from(&mut buffer) {
            if &buffer[..len] == b"anybody there?" {
                return;
            }
        }
        assert!(Instant::now() < deadline, "kernel sockets do not work");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A publisher that sends all the time, whoever listens.
struct Load {
    thread: std::thread::JoinHandle<()>,
    ends: Arc<AtomicBool>,
    /// Asks for a new recording.
    wanted: Arc<AtomicBool>,
    /// The latest packets when that was asked last, and the number of the newest.
    recorded: Arc<Mutex<(u64, Vec<Vec<u8>>)>>,
}

impl Load {
    fn start(socket: &UdpSocket, lab: &Lab, key: &MasterKey) -> Load {
        let (ends, wanted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let recorded = Arc::new(Mutex::new((0, Vec::new())));
        let (socket, local) = (socket.try_clone().unwrap(), lab.local);
        let mut publisher = Publisher::new(socket.local_addr().unwrap(), Ssrc(SOURCE), 111, key, 1);
        let (until, asked, kept) = (ends.clone(), wanted.clone(), recorded.clone());
        let thread = std::thread::spawn(move || {
            let mut latest = Vec::new();
            while !until.load(Ordering::Relaxed) {
                for size in [40, 160] {
                    let mut payload = vec![0x5a; size];
                    payload[..8].copy_from_slice(&publisher.next.to_be_bytes());
                    let packet = publisher.packet(&payload, &[]);
                    let _ = socket.send_to(&packet, local); // nobody may be there
                    latest.push(packet);
                }
                if latest.len() > 16 {
                    latest.drain(..8);
                }
                if asked.load(Ordering::Acquire) {
                    *kept.lock().unwrap() = (publisher.next - 1, latest.clone());
                    asked.store(false, Ordering::Release);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Load { thread, ends, wanted, recorded }
    }

    /// Records the latest packets sent; the number of the newest.
    fn record(&self) -> u64 {
        self.wanted.store(true, Ordering::Release);
        while self.wanted.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.recorded.lock().unwrap().0
    }

    fn stop(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
