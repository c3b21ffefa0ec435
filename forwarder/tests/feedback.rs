//! RTCP that the engine sends and takes by itself, in simulated time: transport-wide feedback, requests for key
//! frames, reports.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sluice_forwarder::engine::event::Event;
use sluice_forwarder::engine::{Capacity, Nanos};
use sluice_forwarder::wire::rtcp::report::{ReportBlock, SenderInfo, write_receiver, write_sender};
use sluice_forwarder::wire::rtcp::{Message, Walk, nack, payload};
use sluice_srtp::{MasterKey, Profile, ProviderKind, Ssrc};
use sluice_table::{
    DropReason, ExtensionIds, Feedback, Ice, KeyFrameRequest, Kind, Learn, Remote, Repair, Rtx, Source, StreamRole,
    Table,
};
use support::rtcp::RtcpPeer;
use support::{
    Peer, Publisher, World, base_table, egress, ingress, key, name, peer, publisher_leg, receiver_leg, wrap,
};

const SMALL: Capacity =
    Capacity { endpoints: 4, legs: 16, tuples: 32, ingress: 16, learned: 16, egress: 16, lists: 32, cells: 256 };
const PUB: u32 = 0;
const RX: u32 = 1;

fn in_key(n: u32) -> MasterKey {
    key(Profile::AeadAes256Gcm, 2 * n as u8 + 1)
}

fn out_key(n: u32) -> MasterKey {
    key(Profile::Aes128CmSha1_80, 2 * n as u8 + 2)
}

/// A leg that sends, receives and gets feedback.
fn leg(table: &mut Table, n: u32, feedback: Feedback) {
    let leg = format!("leg{n}");
    publisher_leg(table, &leg, peer(n), &in_key(n));
    let row = table.legs.get_mut(&name(&leg)).unwrap();
    row.outbound = Some(out_key(n));
    row.extensions = ExtensionIds { transport_cc: Some(3), rid: Some(10), ..ExtensionIds::default() };
    row.feedback = feedback;
}

struct Room {
    world: World,
    rtcp: BTreeMap<SocketAddr, RtcpPeer>,
    /// What arrived where: time, peer, compound in clear.
    got: Vec<(Nanos, SocketAddr, Vec<u8>)>,
    sealed: u32,
}

impl Room {
    fn new(table: &Table, workers: u8) -> Room {
        let mut world = World::new(ProviderKind::Portable, workers, SMALL);
        world.now = Nanos::from_millis(5_000_123);
        world.local.apply(table.clone()).unwrap();
        let mut rtcp = BTreeMap::new();
        for n in 0..4 {
            rtcp.insert(peer(n), RtcpPeer::new(&in_key(n), &out_key(n)));
            world.peers.insert(peer(n), Peer::new(&out_key(n)));
        }
        Room { world, rtcp, got: Vec::new(), sealed: 0 }
    }

    /// Runs until nothing moves; requests for key frames go where the management thread takes them.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.world.settle();
            let mut wanted = Vec::new();
            for engine in &mut self.world.local.engines {
                for event in engine.events() {
                    if let Event::KeyFrameWanted { source } = event {
                        wanted.push(source);
                    }
                }
            }
            for source in wanted {
                let (worker, command) = self.world.local.planner.key_frame(source).unwrap();
                self.world.local.engines[usize::from(worker)].command(command);
            }
        }
        for (to, packet) in std::mem::take(&mut self.world.control) {
            let (clear, _) = self.rtcp.get_mut(&to).unwrap().open(packet);
            self.got.push((self.world.now, to, clear));
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.world.now = self.world.now + Nanos::from_millis(1);
            self.settle();
        }
    }

    fn send(&mut self, n: u32, clear: &[u8]) {
        let sealed = self.rtcp.get_mut(&peer(n)).unwrap().seal(clear, self.sealed);
        self.sealed += 1;
        self.world.arrive(0, &wrap(peer(n), &sealed));
        self.settle();
    }

    fn nack(&mut self, n: u32, media: u32, lost: &[u16]) {
        let mut out = [0; 64];
        let (len, taken) = nack::write(&mut out, Ssrc(9), Ssrc(media), lost).unwrap();
        assert_eq!(taken, lost.len());
        self.send(n, &out[..len]);
    }

    fn pli(&mut self, n: u32, media: u32) {
        let mut out = [0; 12];
        payload::write_pli(&mut out, Ssrc(9), Ssrc(media)).unwrap();
        self.send(n, &out);
    }

    /// Every packet asked of a peer again, with when.
    fn nacked(&self, n: u32, ssrc: u32) -> Vec<(Nanos, u16)> {
        let mut all = Vec::new();
        for (at, _, bytes) in self.got.iter().filter(|(_, to, _)| *to == peer(n)) {
            for packet in Walk::new(bytes) {
                if let Some(Message::Nack(nack)) = packet.message()
                    && nack.media == Ssrc(ssrc)
                {
                    all.extend(nack.lost().map(|seq| (*at, seq)));
                }
            }
        }
        all
    }

    /// Times and streams of requests for key frames to a peer.
    fn key_frames(&self, n: u32) -> Vec<(Nanos, u32)> {
        let mut all = Vec::new();
        for (at, _, bytes) in self.got.iter().filter(|(_, to, _)| *to == peer(n)) {
            for packet in Walk::new(bytes) {
                match packet.message() {
                    Some(Message::PictureLoss { media, .. }) => all.push((*at, media.0)),
                    Some(Message::FullIntra(fir)) => all.extend(fir.streams().map(|(ssrc, _)| (*at, ssrc.0))),
                    _ => {}
                }
            }
        }
        all
    }
}

fn numbered(seq: u16) -> [u8; 8] {
    let [high, low] = seq.to_be_bytes();
    [0xbe, 0xde, 0, 1, 0x31, high, low, 0]
}

#[test]
fn every_authenticated_packet_is_told_of_within_a_tenth_of_a_second() {
    for workers in [1, 2] {
        let mut table = base_table();
        leg(&mut table, PUB, Feedback { transport_cc: true, ..Feedback::default() });
        ingress(&mut table, "audio", "leg0", 1111, Kind::Audio);
        let rule = Learn {
            leg: name("leg0"),
            mid: None,
            rid: Some("h".to_owned()),
            repaired_rid: None,
            kind: Kind::Video,
            clock_rate: 90_000,
            payload_types: vec![111],
            role: StreamRole::default(),
        };
        table.learn.insert(name("h"), rule);
        let mut room = Room::new(&table, workers);
        let mut audio = Publisher::new(peer(PUB), Ssrc(1111), 111, &in_key(PUB), 100);
        // Opened by its payload type, but no rule matches: it counts as arrived all the same.
        let mut probe = Publisher::new(peer(PUB), Ssrc(2222), 111, &in_key(PUB), 7);
        let mut model = BTreeMap::new();
        let begin = room.world.now;
        let mut late = None;
        for n in 0..400u16 {
            let seq = 65_400u16.wrapping_add(n);
            let publisher = if n % 40 == 11 { &mut probe } else { &mut audio };
            let frame = {
                let packet = publisher.packet(b"media", &numbered(seq));
                publisher.wrap(&packet)
            };
            let tick = |now: Nanos| Some((now.0 / 250_000) as u32);
            match n % 13 {
                5 => drop(model.insert(seq, None)),
                9 => late = Some((seq, frame)),
                _ => {
                    room.world.arrive(usize::from(n) % usize::from(workers), &frame);
                    model.insert(seq, tick(room.world.now));
                }
            }
            if n % 13 == 12
                && let Some((seq, frame)) = late.take()
            {
                room.world.arrive(0, &frame);
                model.insert(seq, tick(room.world.now));
            }
            room.settle();
            room.pass(7);
        }
        room.pass(200);
        let mut told = BTreeMap::new();
        let mut before = begin;
        for (number, (at, to, bytes)) in room.got.iter().enumerate() {
            assert_eq!(*to, peer(PUB));
            let gap = at.since(before);
            assert!(gap <= Nanos::from_millis(110), "message {number} came after {gap:?}");
            assert!(number == 0 || gap >= Nanos::from_millis(45), "message {number} came after {gap:?}");
            before = *at;
            let Some(Message::Transport(feedback)) = Walk::new(bytes).next().unwrap().message() else {
                panic!("{bytes:02x?}")
            };
            assert_eq!(usize::from(feedback.number), number % 256);
            for (seq, tick) in feedback.arrivals() {
                let known = told.insert(seq, tick).flatten();
                assert!(known.is_none() || known == tick);
            }
        }
        let last = *model.iter().rfind(|(seq, tick)| tick.is_some() && **seq < 30_000).unwrap().0;
        model.retain(|seq, _| *seq > 30_000 || *seq <= last);
        assert_eq!(told, model, "{workers} workers");
        assert!(room.got[0].0.since(begin) <= Nanos::from_millis(60), "the first comes early");
        assert!(room.world.dropped(DropReason::UnknownSsrc) > 0);
    }
}

fn video(table: &mut Table, how: KeyFrameRequest) {
    let feedback = Feedback { key_frame: Some(how), ..Feedback::default() };
    leg(table, PUB, feedback);
    leg(table, RX, Feedback::default());
    ingress(table, "low", "leg0", 100, Kind::Video);
    ingress(table, "high", "leg0", 101, Kind::Video);
    let input = Some(name("low"));
    let source = Source { kind: Kind::Video, clock_rate: 48_000, input, layers: Vec::new(), select: None };
    table.sources.insert(name("video"), source);
}

#[test]
fn key_frames_are_asked_for_at_once_and_at_most_twice_a_second() {
    for (workers, how) in [(1, KeyFrameRequest::Pli), (2, KeyFrameRequest::Fir)] {
        let mut table = base_table();
        video(&mut table, how);
        let mut room = Room::new(&table, workers);
        room.pass(10);
        assert!(room.key_frames(PUB).len() <= 1, "a source without receivers");
        room.pass(600);
        room.got.clear();
        egress(&mut table, "rx", "leg1", 500, "video");
        let subscribed = room.world.now;
        room.world.local.apply(table.clone()).unwrap();
        room.settle();
        assert_eq!(room.key_frames(PUB), [(subscribed, 100)], "a new receiver");

        let mut low = Publisher::new(peer(PUB), Ssrc(100), 111, &in_key(PUB), 100);
        room.world.arrive(0, &low.frame(b"key frame"));
        room.settle();
        room.pli(RX, 77);
        assert_eq!(room.key_frames(PUB).len(), 1, "nothing is sent under that SSRC");
        for _ in 0..50 {
            room.pli(RX, 500);
            room.pass(20);
        }
        room.pass(600);
        let times: Vec<Nanos> = room.key_frames(PUB).iter().map(|(at, _)| *at).collect();
        assert_eq!(times.len(), 3, "{times:?}"); // the first for the subscription
        assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) == Nanos::from_millis(500)), "{times:?}");
        assert!(room.key_frames(PUB).iter().all(|(_, ssrc)| *ssrc == 100));

        room.pass(9_000); // repetitions for the new receiver
        room.got.clear();
        room.pass(1_000);
        assert_eq!(room.key_frames(PUB), [], "nobody asks any more");
        table.sources.get_mut(&name("video")).unwrap().input = Some(name("high"));
        room.world.local.apply(table.clone()).unwrap();
        room.settle();
        assert_eq!(room.key_frames(PUB), [(room.world.now, 101)], "a switch");
        // Until a packet of the new source passed, the receiver still shows the old one.
        let mut high = Publisher::new(peer(PUB), Ssrc(101), 111, &in_key(PUB), 100);
        room.world.arrive(0, &high.frame(b"key frame"));
        room.pass(9_000);
        room.got.clear();
        room.pli(RX, 500);
        assert_eq!(room.key_frames(PUB), [(room.world.now, 101)]);
    }
}

#[test]
fn a_leg_that_is_reached_elsewhere_is_asked_for_key_frames_of_what_is_received() {
    const ELSEWHERE: u32 = 3;
    let mut table = base_table();
    video(&mut table, KeyFrameRequest::Pli);
    egress(&mut table, "rx", "leg1", 500, "high");
    let ice = |selected, other| Ice {
        local_ufrag: "ours".to_owned(),
        local_password: "our+password+0123456789".to_owned(),
        remote_ufrag: "theirs".to_owned(),
        remote_password: "their+password+01234567".to_owned(),
        controlling: false,
        tie_breaker: 7,
        tuples: vec![peer(selected), peer(other)],
    };
    table.legs.get_mut(&name("leg0")).unwrap().ice = Some(ice(PUB, ELSEWHERE));
    let mut room = Room::new(&table, 1);
    room.rtcp.insert(peer(ELSEWHERE), RtcpPeer::new(&in_key(PUB), &out_key(PUB)));
    room.pass(700);
    room.got.clear();
    let leg = table.legs.get_mut(&name("leg0")).unwrap();
    leg.ice = Some(ice(ELSEWHERE, PUB));
    leg.remote = Remote::Fixed(peer(ELSEWHERE));
    room.world.local.apply(table).unwrap();
    room.settle();
    assert_eq!(room.key_frames(PUB), []);
    assert_eq!(room.key_frames(ELSEWHERE), [(room.world.now, 101)], "nobody receives the other one");
    // Not every peer takes feedback that stands alone.
    let (_, _, compound) = room.got.iter().find(|(_, to, _)| *to == peer(ELSEWHERE)).unwrap();
    let messages: Vec<_> = Walk::new(compound).filter_map(|packet| packet.message()).collect();
    let [Message::ReceiverReport { .. }, Message::Description, Message::PictureLoss { .. }] = messages[..] else {
        panic!("{messages:?}");
    };
}

#[test]
fn a_receiver_that_never_asks_gets_a_key_frame_for_what_it_lost() {
    let mut table = base_table();
    video(&mut table, KeyFrameRequest::Pli);
    egress(&mut table, "rx", "leg1", 500, "low");
    let mut room = Room::new(&table, 1);
    let mut low = Publisher::new(peer(PUB), Ssrc(100), 111, &in_key(PUB), 100);
    room.world.arrive(0, &low.frame(b"x"));
    // For a new receiver it is asked for again and again.
    room.pass(9_000);
    room.got.clear();
    for (lost, fraction_lost, expected) in [(0, 0, 0), (3, 9, 1), (3, 0, 1), (9, 20, 2)] {
        let block = ReportBlock { ssrc: 500, lost, fraction_lost, ..ReportBlock::default() };
        let mut out = [0; 32];
        write_receiver(&mut out, Ssrc(9), &[block]).unwrap();
        room.send(RX, &out);
        room.pass(600);
        assert_eq!(room.key_frames(PUB).len(), expected, "{lost} lost");
    }
}

/// Reports both ways: what the publisher is told of its stream, and clocks that receivers can set streams in step by.
#[test]
fn reports_go_both_ways_and_streams_stay_in_step() {
    for workers in [1, 2] {
        let reports = Feedback { reports: true, ..Feedback::default() };
        let mut table = base_table();
        leg(&mut table, PUB, reports);
        leg(&mut table, RX, reports);
        ingress(&mut table, "audio", "leg0", 100, Kind::Audio);
        ingress(&mut table, "video", "leg0", 101, Kind::Video);
        egress(&mut table, "rx-audio", "leg1", 500, "audio");
        egress(&mut table, "rx-video", "leg1", 501, "video");
        let mut room = Room::new(&table, workers);
        let mut audio = Publisher::new(peer(PUB), Ssrc(100), 111, &in_key(PUB), 1_000);
        let mut video = Publisher::new(peer(PUB), Ssrc(101), 111, &in_key(PUB), 65_450);
        let begin = room.world.now;
        let ntp = |ms: u64| ((3_900_000_000 + ms / 1_000) << 32) | (((ms % 1_000) << 32) / 1_000);
        for n in 0..200u64 {
            // Support's publishers count 960 ticks a packet, so both clocks run at 48 kHz.
            let (first, second) = (audio.frame(b"abcd"), video.frame(b"0123456789"));
            room.world.arrive(0, &first);
            if n % 10 != 3 {
                room.world.arrive(0, &second);
            }
            room.settle();
            if n % 50 == 9 {
                for (ssrc, next, delay) in [(100, audio.next, 0), (101, video.next, 3)] {
                    room.pass(delay);
                    let info = SenderInfo { ntp: ntp(n * 20), timestamp: (next * 960) as u32, packets: 1, octets: 1 };
                    let mut out = [0; 28];
                    write_sender(&mut out, Ssrc(ssrc), &info, &[]).unwrap();
                    room.send(PUB, &out);
                }
                room.pass(17);
            } else {
                room.pass(20);
            }
        }
        let mut blocks = Vec::new();
        let mut senders: BTreeMap<u32, Vec<SenderInfo>> = BTreeMap::new();
        for (at, to, bytes) in &room.got {
            let messages: Vec<_> = Walk::new(bytes).map(|packet| packet.message().unwrap()).collect();
            assert!(matches!(messages.last(), Some(Message::Description)), "a compound ends with names");
            for message in messages {
                match message {
                    Message::SenderReport { ssrc, info, .. } => {
                        assert_eq!(*to, peer(RX));
                        assert_eq!(info.ntp >> 32, at.0 / 1_000_000_000);
                        senders.entry(ssrc.0).or_default().push(info);
                    }
                    Message::ReceiverReport { blocks: told, .. } => {
                        assert_eq!(*to, peer(PUB));
                        blocks.extend(told.iter().map(|block| (*at, block)));
                    }
                    _ => {}
                }
            }
        }
        let of = |ssrc| blocks.iter().filter(move |(_, block)| block.ssrc == ssrc).collect::<Vec<_>>();
        assert!((4..=7).contains(&of(100).len()), "{} reports in 4 s", of(100).len());
        assert!(of(100).iter().all(|(_, block)| (block.lost, block.fraction_lost) == (0, 0)));
        let (_, last) = of(101).last().unwrap();
        assert!((15..=20).contains(&last.lost) && (15..40).contains(&last.fraction_lost), "{last:?}");
        assert!(last.last_report != 0 && last.delay > 0 && last.highest > 0x1_0000, "{last:?}");

        let (first_audio, first_video) = (senders[&500].first().unwrap(), senders[&501].first().unwrap());
        assert!(room.got.iter().any(|(at, to, _)| *to == peer(RX) && at.since(begin) < Nanos::from_millis(600)));
        assert!((4..=8).contains(&senders[&500].len()), "{} reports in 4 s", senders[&500].len());
        assert_eq!(first_audio.octets, first_audio.packets * 4);
        assert_eq!(first_video.octets, first_video.packets * 10);
        // The rewriters start at the publisher's timestamps. Both streams were at (n + 1) * 960 + start at the same
        // moment: what reports say of both must be as far apart as their starts.
        for (audio, video) in senders[&500].iter().zip(&senders[&501]) {
            assert_eq!(audio.ntp, video.ntp, "told in one compound");
            let apart = video.timestamp.wrapping_sub(audio.timestamp) as i32 - (64_450 * 960);
            assert!(apart.abs() <= 4, "{apart} ticks of 48 kHz out of step");
        }
        // A round trip: the receiver answers the last report 100 ms after it got it.
        assert_eq!(
            room.world.local.engines.iter().map(|e| e.counters().rtcp_in).sum::<u64>(),
            0,
            "nothing for control"
        );
    }
}

#[test]
fn control_still_sees_what_is_no_feedback() {
    let mut table = base_table();
    leg(&mut table, PUB, Feedback { reports: true, ..Feedback::default() });
    receiver_leg(&mut table, "rx", peer(2), &out_key(2));
    ingress(&mut table, "audio", "leg0", 100, Kind::Audio);
    let mut room = Room::new(&table, 1);
    let goodbye = [0x81, 203, 0, 1, 0, 0, 0, 100];
    let mut compound = vec![0x80, 201, 0, 1, 0, 0, 0, 100];
    compound.extend(goodbye);
    let sealed = room.rtcp.get_mut(&peer(PUB)).unwrap().seal(&compound, 1);
    room.world.arrive(0, &wrap(peer(PUB), &sealed));
    room.world.settle();
    let seen: Vec<_> = room.world.local.engines[0].events().collect();
    assert!(seen.iter().any(|event| matches!(event, Event::RtcpIn { bytes, .. } if **bytes == goodbye)), "{seen:?}");
}

/// Everything a receiver asks for comes once more on the repair stream, under indexes of its own.
#[test]
fn lost_packets_come_again_on_the_repair_stream() {
    for workers in [1, 2] {
        let mut table = base_table();
        leg(&mut table, PUB, Feedback::default());
        leg(&mut table, RX, Feedback::default());
        ingress(&mut table, "video", "leg0", 100, Kind::Video);
        egress(&mut table, "rx", "leg1", 500, "video");
        let row = table.egress.get_mut(&name("rx")).unwrap();
        (row.csrc, row.history, row.first_sequence) = (true, 64, Some(16_000));
        row.rtx = Some(Rtx { ssrc: Ssrc(501), payload_types: vec![(96, 97)] });
        let mut room = Room::new(&table, workers);
        let mut video = Publisher::new(peer(PUB), Ssrc(100), 111, &in_key(PUB), 65_500);
        for n in 0..100u8 {
            room.world.arrive(0, &video.frame(&[n; 300]));
            room.settle();
        }
        room.nack(RX, 500, &[16_040, 16_041, 16_099]);
        room.nack(RX, 500, &[16_099, 16_000, 16_100]);
        room.nack(RX, 501, &[16_050]);
        room.nack(RX, 777, &[16_050]);
        let streams = &room.world.peers[&peer(RX)].streams;
        let repairs = &streams[&Ssrc(501)].packets;
        let got: Vec<(u16, u8)> = repairs.iter().map(|(_, _, _, p)| (u16::from_be_bytes([p[0], p[1]]), p[2])).collect();
        assert_eq!(got, [(16_040, 40), (16_041, 41), (16_099, 99), (16_099, 99)], "{}", room.world.drops());
        for (number, (index, timestamp, payload_type, payload)) in repairs.iter().enumerate() {
            assert_eq!(*index, repairs[0].0 + number as u64);
            let original = &streams[&Ssrc(500)].packets[usize::from(payload[2])];
            assert_eq!((original.1, &original.3[..]), (*timestamp, &payload[2..]));
            assert_eq!(*payload_type, 97);
        }
        assert_eq!(room.world.dropped(DropReason::NackUnknown), 2, "too old, and never sent");

        // A repair stream's indexes go on whatever becomes of its row.
        let next = repairs.last().unwrap().0 + 1;
        table.egress.get_mut(&name("rx")).unwrap().rtx = None;
        room.world.local.apply(table.clone()).unwrap();
        let mut other = table.clone();
        other.egress.get_mut(&name("rx")).unwrap().rtx = Some(Rtx { ssrc: Ssrc(501), payload_types: vec![(96, 97)] });
        room.world.local.apply(other.clone()).unwrap();
        room.world.arrive(0, &video.frame(b"last"));
        room.settle();
        room.nack(RX, 500, &[16_100]);
        assert_eq!(room.world.peers[&peer(RX)].streams[&Ssrc(501)].packets.last().unwrap().0, next);
        egress(&mut other, "thief", "leg1", 501, "video");
        other.egress.get_mut(&name("rx")).unwrap().rtx = None;
        let refused = room.world.local.apply(other).unwrap_err();
        assert!(refused.detail.contains("in use by another stream"), "{refused}");
    }
}

#[test]
fn without_a_repair_stream_the_very_same_bytes_come_again() {
    let mut table = base_table();
    leg(&mut table, PUB, Feedback::default());
    leg(&mut table, RX, Feedback::default());
    ingress(&mut table, "audio", "leg0", 100, Kind::Audio);
    egress(&mut table, "rx", "leg1", 500, "audio");
    let row = table.egress.get_mut(&name("rx")).unwrap();
    (row.history, row.first_sequence) = (16, Some(1_000));
    let mut room = Room::new(&table, 1);
    room.world.repeats = true;
    let mut audio = Publisher::new(peer(PUB), Ssrc(100), 111, &in_key(PUB), 7);
    for n in 0..40u8 {
        room.world.arrive(0, &audio.frame(&[n; 80]));
        room.settle();
    }
    room.nack(RX, 500, &[1_039, 1_030, 1_024, 1_023]);
    let packets = &room.world.peers[&peer(RX)].streams[&Ssrc(500)];
    assert_eq!(packets.packets.len(), 40);
    assert_eq!(packets.repeated, [1_039, 1_030, 1_024]);
    assert_eq!(packets.marks.iter().copied().collect::<Vec<_>>(), [46], "audio stays audio");
    assert_eq!(room.world.dropped(DropReason::NackUnknown), 1);
    // Asking is limited.
    for _ in 0..30 {
        room.nack(RX, 500, &(1_024..1_040).collect::<Vec<u16>>());
    }
    assert!(room.world.dropped(DropReason::NackLimited) > 300, "{}", room.world.drops());
}

fn rule(rid: Option<&str>, repaired_rid: Option<&str>, payload_type: u8, role: StreamRole) -> Learn {
    Learn {
        leg: name("leg0"),
        mid: None,
        rid: rid.map(str::to_owned),
        repaired_rid: repaired_rid.map(str::to_owned),
        kind: Kind::Video,
        clock_rate: 90_000,
        payload_types: vec![payload_type],
        role,
    }
}

/// A one-byte extension block with one element.
fn element(id: u8, value: &[u8]) -> Vec<u8> {
    let mut block = vec![0xbe, 0xde, 0, 0, (id << 4) | (value.len() - 1) as u8];
    block.extend_from_slice(value);
    block.resize(block.len().next_multiple_of(4), 0);
    block[3] = ((block.len() - 4) / 4) as u8;
    block
}

/// What gets lost is asked for, and what comes on the repair stream goes on as if it had come late; for listed streams
/// and for such that announce themselves.
#[test]
fn losses_are_asked_for_and_repaired() {
    for (workers, learned) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut table = base_table();
        leg(&mut table, PUB, Feedback { nack: true, ..Feedback::default() });
        table.legs.get_mut(&name("leg0")).unwrap().extensions.repaired_rid = Some(11);
        leg(&mut table, RX, Feedback::default());
        let repair = Repair { stream: name("video"), payload_types: vec![(97, 111)] };
        let role = StreamRole { repairs: Some(repair), ..StreamRole::default() };
        if learned {
            table.learn.insert(name("video"), rule(Some("h"), None, 111, StreamRole::default()));
            table.learn.insert(name("rtx"), rule(None, Some("h"), 97, role));
        } else {
            ingress(&mut table, "video", "leg0", 100, Kind::Video);
            ingress(&mut table, "rtx", "leg0", 101, Kind::Video);
            let row = table.ingress.get_mut(&name("rtx")).unwrap();
            (row.payload_types, row.role) = (vec![97], role);
        }
        egress(&mut table, "rx", "leg1", 500, "video");
        table.egress.get_mut(&name("rx")).unwrap().first_sequence = Some(16_000);
        let mut room = Room::new(&table, workers);
        let mut video = Publisher::new(peer(PUB), Ssrc(100), 111, &in_key(PUB), 65_500);
        let mut rtx = Publisher::new(peer(PUB), Ssrc(101), 97, &in_key(PUB), 9);
        let begin = room.world.now;
        for n in 0..60u8 {
            let packet = video.packet(&[n; 50], &element(10, b"h"));
            if n < 30 || (n > 33 && n != 40) {
                room.world.arrive(0, &wrap(peer(PUB), &packet));
            }
            room.settle();
            room.pass(1);
        }
        let seq = |n: u32| (65_500 + n) as u16;
        let first: Vec<u16> = room.nacked(PUB, 100).iter().take(4).map(|(_, seq)| *seq).collect();
        assert_eq!(first, [seq(30), seq(31), seq(32), seq(33)], "{workers} {learned}");
        let asked = room.nacked(PUB, 100)[0].0.since(begin + Nanos::from_millis(34));
        assert!((Nanos::from_millis(10)..=Nanos::from_millis(20)).contains(&asked), "{asked:?}");
        for n in [31u8, 32, 40, 32, 45] {
            let mut payload = seq(u32::from(n)).to_be_bytes().to_vec();
            payload.extend([n; 50]);
            let packet = rtx.packet(&payload, &element(11, b"h"));
            room.world.arrive(0, &wrap(peer(PUB), &packet));
            room.settle();
        }
        let probe = rtx.packet(&[], &element(11, b"h"));
        room.world.arrive(0, &wrap(peer(PUB), &probe));
        room.pass(800);
        assert_eq!(room.world.dropped(DropReason::RepairUnneeded), 2, "{}", room.world.drops());
        assert_eq!(room.world.dropped(DropReason::RepairEmpty), 1, "{}", room.world.drops());
        let streams = &room.world.peers[&peer(RX)].streams;
        let mut got: Vec<(u64, u8)> = streams[&Ssrc(500)].packets.iter().map(|(i, _, _, p)| (*i, p[0])).collect();
        assert!(streams[&Ssrc(500)].packets.iter().all(|(_, _, pt, p)| *pt == 96 && p.len() == 50));
        got.sort_unstable();
        let all: Vec<(u64, u8)> =
            (0..60).filter(|n| ![30, 33].contains(n)).map(|n| (16_000 + u64::from(n), n)).collect();
        assert_eq!(got, all, "{workers} {learned}: {}", room.world.drops());
        let of =
            |n| room.nacked(PUB, 100).into_iter().filter(|(_, s)| *s == seq(n)).map(|(at, _)| at).collect::<Vec<_>>();
        let times = of(30);
        assert_eq!(times.len(), 5, "given up after five requests");
        assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= Nanos::from_millis(50)));
        assert!(of(31).len() < 3 && of(45).is_empty());
        let given_up: u64 = room.world.local.engines.iter().map(|e| e.counters().nacks_given_up).sum();
        assert_eq!(given_up, 2);
    }
}
