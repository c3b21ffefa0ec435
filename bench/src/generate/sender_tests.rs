use std::collections::HashMap;

use sluice_forwarder::io::MemoryIo;
use sluice_forwarder::wire::{frame, rtp};
use sluice_srtp::job::{OpenError, OpenJob};
use sluice_srtp::replay::Receiver;
use sluice_table::Kind;

use super::*;
use crate::generate::impair::Impairment;
use crate::generate::provider;
use crate::keys::{KeyText, Publisher as Sends, stream};
use crate::random::Random;
use crate::shape::{Plan, Shape};

const HOP: Hop = Hop { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };

fn session(profile: Option<Profile>, first_sequence: u16) -> Session {
    let mut random = Random::new(1, 1);
    let publishers = (0..2)
        .map(|n| Sends {
            local: format!("10.0.0.2:{}", 1000 + n).parse().unwrap(),
            to: None,
            key: profile.map(|profile| KeyText::draw(profile, &mut random)),
            streams: vec![stream(Kind::Video, n, first_sequence)],
        })
        .collect();
    Session { forwarder: "10.0.0.1:5004".parse().unwrap(), publishers, receivers: Vec::new() }
}

fn plan(rate: f64) -> Plan {
    Plan { shape: Shape::Constant, rate, payload: 200, video_bits: 0, seed: 1 }
}

/// Opens what a peer received; every packet must authenticate.
struct Opener {
    crypto: AnyProvider,
    keys: HashMap<u32, (SessionKeys, Receiver)>,
}

impl Opener {
    fn new(session: &Session) -> Opener {
        let mut crypto = provider("portable").unwrap();
        let mut keys: HashMap<u32, (SessionKeys, Receiver)> = HashMap::new();
        for (publisher, stream) in session.streams() {
            let master = publisher.key.as_ref().unwrap().master().unwrap();
            keys.insert(stream.ssrc, (crypto.expand(&master), Receiver::new(0)));
        }
        Opener { crypto, keys }
    }

    fn open(&mut self, peer: &mut MemoryIo) -> Vec<(u64, Stamp)> {
        let mut got = Vec::new();
        peer.drain(|bytes| {
            let datagram = frame::parse(bytes).unwrap();
            let packet = &bytes[datagram.payload_at..datagram.payload_at + datagram.payload_len];
            let header = rtp::parse(packet).unwrap();
            let (keys, receiver) = self.keys.get_mut(&header.ssrc.0).unwrap();
            let index = receiver.estimate(header.seq);
            let mut out = vec![0; 2000];
            let mut job = [OpenJob {
                keys,
                ssrc: header.ssrc,
                index,
                packet,
                header_len: header.len,
                out: &mut out,
                result: Err(OpenError::Pending),
            }];
            self.crypto.open(&mut job);
            assert_eq!(job[0].result, Ok(200));
            receiver.accept(index);
            got.push((index.as_u64(), Stamp::read(&out).unwrap()));
        });
        got
    }
}

#[test]
fn packets_open_and_indexes_cross_the_rollover() {
    for profile in Profile::ALL {
        let session = session(Some(profile), 65_500);
        let (io, mut peer) = MemoryIo::pair(1024);
        let crypto = provider("best").unwrap();
        let schedule = Schedule::new(plan(100_000.0), 2);
        let impairer = Impairer::new(Impairment::default(), 1);
        let mut sender = Sender::new(io, &session, |_| HOP, schedule, crypto, impairer).unwrap();
        sender.start(1_000, false);
        assert_eq!(sender.step(999), 0, "nothing before the start");
        let (mut got, mut opener) = (Vec::new(), Opener::new(&session));
        for step in 1..=100 {
            sender.step(1_000 + step * 20_000);
            got.extend(opener.open(&mut peer));
        }
        assert_eq!(sender.sent().packets, got.len() as u64);
        assert!((199..=202).contains(&got.len()), "{}", got.len());
        let mut next = [(65_500, 0); 2];
        for (index, stamp) in got {
            let (want, sequence) = &mut next[stamp.stream as usize];
            assert_eq!((index, stamp.sequence), (*want, *sequence), "{profile:?}");
            // Stream 1 starts half an interval of 20 µs after stream 0.
            assert_eq!(stamp.due, 1_000 + *sequence * 20_000 + u64::from(stamp.stream) * 10_000);
            *want += 1;
            *sequence += 1;
        }
        assert!(next[0].0 > 65_536, "the rollover counter went up");
    }
}

#[test]
fn what_does_not_fit_goes_late_and_then_is_given_up() {
    let session = session(None, 1);
    let (io, mut peer) = MemoryIo::pair(8);
    let schedule = Schedule::new(plan(1_000.0), 2);
    let impairer = Impairer::new(Impairment::default(), 1);
    let mut sender = Sender::new(io, &session, |_| HOP, schedule, provider("null").unwrap(), impairer).unwrap();
    sender.start(0, false);
    // 50 ms: 50 packets are due. 8 fit, as many again find the peer's queue full, none is given up.
    sender.step(50_000_000);
    assert_eq!((sender.sent().packets, sender.sent().unsent), (8, 8));
    // 300 ms: whatever is more than 100 ms late is given up once nothing fits any more.
    sender.step(300_000_000);
    let after = sender.sent();
    assert!((180..=205).contains(&after.unsent) && after.packets == 8, "{after:?}");
    let mut received = 0;
    peer.drain(|_| received += 1);
    sender.step(300_000_001);
    peer.drain(|_| received += 1);
    assert_eq!((received, sender.sent().packets), (16, 16));
    let p = sender.late().percentiles().unwrap();
    assert!(p.max > 40_000.0, "{p:?}");
}

#[test]
fn impairments_happen_behind_the_seal() {
    let session = session(Some(Profile::AeadAes128Gcm), 1);
    let (io, mut peer) = MemoryIo::pair(1024);
    let settings = Impairment { loss: 0.1, duplicate: 0.1, reorder: 0.1, reorder_ms: 1.0, ..Impairment::default() };
    let schedule = Schedule::new(plan(10_000.0), 2);
    let impairer = Impairer::new(settings, 9);
    let mut sender = Sender::new(io, &session, |_| HOP, schedule, provider("best").unwrap(), impairer).unwrap();
    sender.start(0, false);
    let (mut got, mut opener) = (Vec::new(), Opener::new(&session));
    for step in 1..=1_100_u64 {
        if step == 1_001 {
            sender.stop();
        }
        sender.step(step * 100_000);
        got.extend(opener.open(&mut peer).into_iter().map(|(index, stamp)| (stamp.stream, index)));
    }
    assert!(sender.is_drained());
    let impaired = sender.impaired();
    let made = got.len() as u64 + impaired.lost - impaired.duplicated;
    assert!((1_000..=1_002).contains(&made), "{made}");
    assert!(impaired.lost > 50 && impaired.duplicated > 50 && impaired.reordered > 50, "{impaired:?}");
    let mut unique = got.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!((got.len() - unique.len()) as u64, impaired.duplicated);
    let behind = got.iter().enumerate().filter(|(at, one)| got[..*at].iter().any(|b| b.0 == one.0 && b.1 > one.1));
    assert!(behind.count() > 50, "late ones were overtaken");
}

#[test]
fn mixed_address_families_are_refused() {
    let mut session = session(None, 1);
    session.forwarder = "[::1]:5004".parse().unwrap();
    let (io, _peer) = MemoryIo::pair(8);
    let schedule = Schedule::new(plan(1_000.0), 2);
    let impairer = Impairer::new(Impairment::default(), 1);
    let error = Sender::new(io, &session, |_| HOP, schedule, provider("null").unwrap(), impairer).unwrap_err();
    assert!(error.to_string().contains("IPv6"), "{error}");
}
