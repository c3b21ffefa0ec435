//! Packets that should not be: each is counted under its reason and nothing else happens. A good stream beside them
//! loses nothing; tables, frames and memory are the same before and after.
#![allow(clippy::unwrap_used)]

#[path = "support/ears.rs"]
mod ears;
#[path = "support/process.rs"]
mod process;
mod support;

use std::net::UdpSocket;

use ears::Ears;
use process::{Counters, Forwarder, Lab, Raw, Start, each_lab, frame_of};
use sluice_srtp::{MasterKey, Profile, Ssrc};
use sluice_table::Kind;
use support::{Publisher, Random, egress, ingress, key, name, publisher_leg, receiver_leg};

/// SSRC of the peer that behaves badly, and of the one that does not.
const BAD: u32 = 0xbad;
const GOOD: u32 = 0x600d;

/// Who sends a packet, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// The address of the leg.
    Leg,
    /// Another port of the same host.
    OtherPort,
    /// Another host.
    OtherHost,
    /// As a whole Ethernet frame, from the leg's address.
    Wire,
}

/// A kind of bad packet.
struct Case {
    what: &'static str,
    from: From,
    /// Its counter with kernel sockets and with `AF_XDP`; `None` where it cannot be sent.
    counted: [Option<&'static str>; 2],
    make: fn(&mut Bad) -> Vec<u8>,
}

/// What bad packets are made of.
struct Bad<'a> {
    lab: &'a Lab,
    leg: UdpSocket,
    other_port: UdpSocket,
    other_host: UdpSocket,
    raw: Option<Raw>,
    publisher: Publisher,
    random: Random,
    /// A packet that was taken, for replays; another from far behind.
    taken: Vec<u8>,
    old: Vec<u8>,
}

impl Bad<'_> {
    fn good_packet(&mut self) -> Vec<u8> {
        self.publisher.packet(&[1; 60], &[])
    }

    fn send(&mut self, case: &Case) {
        let packet = (case.make)(self);
        let socket = match case.from {
            From::Leg => &self.leg,
            From::OtherPort => &self.other_port,
            From::OtherHost => &self.other_host,
            From::Wire => return self.raw.as_ref().unwrap().send(&packet),
        };
        socket.send_to(&packet, self.lab.local).unwrap();
    }

    fn frame(&mut self) -> Vec<u8> {
        let packet = self.good_packet();
        frame_of(self.lab, self.leg.local_addr().unwrap(), &packet)
    }
}

const fn both(counter: &'static str) -> [Option<&'static str>; 2] {
    [Some(counter), Some(counter)]
}

const fn each(udp: &'static str, xdp: &'static str) -> [Option<&'static str>; 2] {
    [Some(udp), Some(xdp)]
}

const fn wire(xdp: &'static str) -> [Option<&'static str>; 2] {
    [None, Some(xdp)]
}

const CASES: &[Case] = &[
    Case {
        what: "cut within the RTP header",
        from: From::Leg,
        counted: both("drops.truncated"),
        make: |bad| bad.good_packet()[..11].to_vec(),
    },
    Case {
        what: "cut to less than a tag",
        from: From::Leg,
        counted: both("drops.truncated"),
        make: |bad| bad.good_packet()[..15].to_vec(),
    },
    Case {
        what: "cut by a byte",
        from: From::Leg,
        counted: both("drops.auth_tag"),
        make: |bad| {
            let packet = bad.good_packet();
            packet[..packet.len() - 1].to_vec()
        },
    },
    Case {
        what: "larger than a packet may be",
        from: From::Leg,
        counted: both("drops.rtp_header"),
        make: |bad| bad.publisher.packet(&[1; 1_700], &[]),
    },
    Case {
        what: "larger than a receive frame",
        from: From::Leg,
        counted: both("io.rx_dropped"),
        make: |bad| bad.publisher.packet(&[1; 9_000], &[]),
    },
    Case {
        what: "version 1",
        from: From::Leg,
        counted: each("drops.first_byte", "xdp.drop_other_protocol"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[0] = 0x40;
            packet
        },
    },
    Case {
        what: "a first byte of no protocol",
        from: From::Leg,
        counted: each("drops.first_byte", "xdp.drop_other_protocol"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[0] = [4, 19, 64, 79, 127, 192, 255][bad.random.below(7) as usize];
            packet
        },
    },
    Case {
        what: "a wrong tag",
        from: From::Leg,
        counted: both("drops.auth_tag"),
        make: |bad| {
            let mut packet = bad.good_packet();
            let at = packet.len() - 1 - bad.random.below(10) as usize;
            packet[at] ^= 1 << bad.random.below(8);
            packet
        },
    },
    Case {
        what: "a changed timestamp",
        from: From::Leg,
        counted: both("drops.auth_tag"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[4] ^= 1;
            packet
        },
    },
    Case { what: "a replay", from: From::Leg, counted: both("drops.replayed"), make: |bad| bad.taken.clone() },
    Case { what: "an old packet", from: From::Leg, counted: both("drops.too_old"), make: |bad| bad.old.clone() },
    Case {
        what: "an unknown SSRC",
        from: From::Leg,
        counted: both("drops.unknown_ssrc"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[8..12].copy_from_slice(&GOOD.to_be_bytes()); // known, but on another leg
            packet
        },
    },
    Case {
        what: "a payload type that is not allowed",
        from: From::Leg,
        counted: both("drops.payload_type"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[1] = 96;
            packet
        },
    },
    Case {
        what: "a known SSRC from another port",
        from: From::OtherPort,
        counted: each("drops.unknown_tuple", "xdp.drop_media_unknown"),
        make: |bad| bad.good_packet(),
    },
    Case {
        what: "a known SSRC from another host",
        from: From::OtherHost,
        counted: each("drops.unknown_tuple", "xdp.drop_media_unknown"),
        make: |bad| bad.good_packet(),
    },
    Case {
        what: "an extension longer than the packet",
        from: From::Leg,
        counted: both("drops.rtp_header"),
        make: |bad| {
            let mut packet = bad.publisher.packet(&[1; 60], &[0xbe, 0xde, 0, 1, 0x10, 1, 0, 0]);
            packet[14..16].copy_from_slice(&[0xff, 0xff]);
            packet
        },
    },
    Case {
        what: "more CSRCs than bytes",
        from: From::Leg,
        counted: both("drops.rtp_header"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[0] = 0x8f;
            packet.truncate(40);
            packet
        },
    },
    Case {
        what: "an authentic packet whose extension element leaves the block",
        from: From::Leg,
        counted: both("drops.rtp_extension"),
        make: |bad| bad.publisher.packet(&[1; 60], &[0xbe, 0xde, 0, 1, 0x1f, 1, 2, 3]),
    },
    Case {
        what: "RTP that calls itself RTCP",
        from: From::Leg,
        counted: both("drops.srtcp_auth_tag"),
        make: |bad| {
            let mut packet = bad.good_packet();
            packet[1] = 200;
            packet
        },
    },
    Case {
        what: "RTCP too short for an index and a tag",
        from: From::Leg,
        counted: both("drops.srtcp_short"),
        make: |_| vec![0x80, 201, 0, 1, 0, 0, 0, 7],
    },
    Case {
        what: "RTCP that calls itself RTP",
        from: From::Leg,
        counted: both("drops.payload_type"),
        make: |_| {
            // A sender report of which the type lost its upper bit: its bytes 8 to 11 happen to be a known SSRC.
            let mut packet = vec![0x80, 72, 0, 6, 0, 0, 0, 7];
            packet.extend_from_slice(&BAD.to_be_bytes());
            packet.resize(60, 0);
            packet
        },
    },
    Case {
        what: "no payload",
        from: From::Leg,
        counted: each("drops.zero_length", "xdp.drop_empty"),
        make: |_| Vec::new(),
    },
    Case {
        what: "no payload from a stranger",
        from: From::OtherHost,
        counted: each("drops.zero_length", "xdp.drop_empty"),
        make: |_| Vec::new(),
    },
    Case {
        what: "a fragment without the rest",
        from: From::Wire,
        counted: wire("xdp.pass_fragment"),
        make: |bad| {
            let mut frame = bad.frame();
            frame[20] = 0x20; // more fragments
            fix_ip_checksum(&mut frame);
            frame
        },
    },
    Case {
        what: "a later fragment without the first",
        from: From::Wire,
        counted: wire("xdp.pass_fragment"),
        make: |bad| {
            let mut frame = bad.frame();
            frame[21] = 100; // offset
            fix_ip_checksum(&mut frame);
            frame
        },
    },
    Case {
        what: "a UDP length beyond the packet",
        from: From::Wire,
        counted: wire("xdp.drop_length"),
        make: |bad| {
            let mut frame = bad.frame();
            frame[38..40].copy_from_slice(&2_000u16.to_be_bytes());
            frame
        },
    },
    Case {
        what: "a UDP length below its header",
        from: From::Wire,
        counted: wire("xdp.drop_length"),
        make: |bad| {
            let mut frame = bad.frame();
            frame[38..40].copy_from_slice(&7u16.to_be_bytes());
            frame
        },
    },
    Case {
        what: "an IP header cut off",
        from: From::Wire,
        counted: wire("xdp.pass_truncated"),
        make: |bad| bad.frame()[..30].to_vec(),
    },
];

fn fix_ip_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// A good call beside the bad packets.
struct Good {
    socket: UdpSocket,
    publisher: Publisher,
    ears: Ears,
    sent: usize,
}

impl Good {
    fn send(&mut self, lab: &Lab) {
        self.socket.send_to(&self.publisher.packet(&[2; 120], &[]), lab.local).unwrap();
        self.sent += 1;
        self.ears.drain();
    }

    fn lost_nothing(&mut self) {
        let sent = self.sent;
        self.ears.until("every good packet", |ears| ears.total() == sent);
    }
}

fn setup<'a>(lab: &'a Lab, forwarder: &Forwarder) -> (Good, Bad<'a>) {
    let keys: Vec<MasterKey> = (0..)
        .zip([Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80, Profile::AeadAes256Gcm])
        .map(|(n, profile)| key(profile, 40 + n))
        .collect();
    let (good, leg, ears) = (lab.peer(), lab.peer(), Ears::new(lab, &keys[2]));
    let mut table = lab.table();
    publisher_leg(&mut table, "good", good.local_addr().unwrap(), &keys[0]);
    ingress(&mut table, "good/audio", "good", GOOD, Kind::Audio);
    publisher_leg(&mut table, "bad", leg.local_addr().unwrap(), &keys[1]);
    table.legs.get_mut(&name("bad")).unwrap().extensions.audio_level = Some(1);
    ingress(&mut table, "bad/audio", "bad", BAD, Kind::Audio);
    receiver_leg(&mut table, "rx", ears.address(), &keys[2]);
    egress(&mut table, "rx/good", "rx", 70, "good/audio");
    forwarder.apply(&table).unwrap();
    let publisher = Publisher::new(good.local_addr().unwrap(), Ssrc(GOOD), 111, &keys[0], 1);
    let good = Good { socket: good, publisher, ears, sent: 0 };
    let bad = Bad {
        lab,
        publisher: Publisher::new(leg.local_addr().unwrap(), Ssrc(BAD), 111, &keys[1], 1),
        leg,
        other_port: lab.peer(),
        other_host: lab.peer_at(lab.other_ip),
        raw: Raw::new(lab),
        random: Random(7),
        taken: Vec::new(),
        old: Vec::new(),
    };
    (good, bad)
}

/// Packets that are taken, so that others can be replays of them. Nothing subscribes to the stream.
fn take_some(forwarder: &Forwarder, bad: &mut Bad<'_>) {
    bad.old = bad.good_packet();
    bad.leg.send_to(&bad.old, bad.lab.local).unwrap();
    forwarder.settled();
    bad.publisher.next += 2_000;
    bad.taken = bad.good_packet();
    bad.leg.send_to(&bad.taken, bad.lab.local).unwrap();
    let counters = forwarder.settled();
    assert_eq!(counters.get("drops.no_receiver"), 2, "{counters:?}");
}

/// Everything that counts dropped packets.
fn drops(counters: &Counters) -> Counters {
    let counts = |key: &str| {
        key.starts_with("drops.")
            || key == "io.rx_dropped"
            || key.contains(".drop_")
            || key.ends_with(".pass_fragment")
            || key.ends_with(".pass_truncated")
    };
    let of = counters.0.iter().filter(|(key, _)| counts(key));
    Counters(of.map(|(key, n)| (key.replacen("xdp.port0.", "xdp.", 1), *n)).collect())
}

#[test]
fn each_bad_packet_has_its_counter() {
    each_lab(|lab| {
        let forwarder = Start::of(lab).start(lab);
        let (mut good, mut bad) = setup(lab, &forwarder);
        take_some(&forwarder, &mut bad);
        for case in CASES {
            let Some(counter) = case.counted[usize::from(lab.is_xdp())] else { continue };
            let before = drops(&forwarder.settled());
            let repeats = 5;
            for _ in 0..repeats {
                bad.send(case);
                good.send(lab);
            }
            good.lost_nothing();
            let grown = drops(&forwarder.settled()).since(&before);
            let mut expected = vec![(counter.to_owned(), repeats)];
            if lab.is_xdp() && (counter.starts_with("io.") || case.what == "larger than a packet may be") {
                // Larger than the link's MTU: two or more fragments each, put together by the kernel.
                let fragments = grown.get("xdp.pass_fragment");
                assert!(fragments >= repeats * 2);
                expected.push(("xdp.pass_fragment".to_owned(), fragments));
            }
            assert_eq!(grown, Counters(expected.into_iter().collect()), "{}: {}", lab.name, case.what);
        }
    });
}

#[test]
fn bad_packets_leave_nothing_behind() {
    each_lab(|lab| {
        let forwarder = Start::of(lab).start(lab);
        let (mut good, mut bad) = setup(lab, &forwarder);
        take_some(&forwarder, &mut bad);
        let mut storm = |rounds: u32| {
            let mut sent = 0;
            for round in 0..rounds {
                for case in CASES.iter().filter(|case| case.counted[usize::from(lab.is_xdp())].is_some()) {
                    bad.send(case);
                    sent += 1;
                }
                good.send(lab);
                if round % 16 == 15 {
                    good.lost_nothing(); // in step with the forwarder: nothing waits in a ring
                }
            }
            good.lost_nothing();
            sent
        };
        storm(32); // first touches of memory
        let before = forwarder.settled();
        let (table, status, resident) = (forwarder.snapshot(), forwarder.status(), forwarder.resident());
        let sent: u64 = storm(400);
        let grown = drops(&forwarder.settled()).since(&drops(&before));
        let all = grown.sum("");
        assert!(all >= sent, "{}: {sent} bad packets were sent and {all} were counted: {grown:?}", lab.name);
        let (now, later) = (forwarder.status(), forwarder.resident());
        assert_eq!(forwarder.snapshot(), table);
        assert_eq!((now.ledger, now.capacity), (status.ledger, status.capacity));
        assert!(now.degraded == status.degraded, "{:?}", now.degraded);
        println!("{}: {sent} bad packets, {resident} KiB before, {later} KiB after", lab.name);
        assert!(later <= resident + 512, "{}: {resident} KiB before, {later} KiB after", lab.name);
    });
}
