//! What a peer that finished its handshake may send inside DTLS: SCTP and DCEP that make no sense.

use std::time::{Duration, Instant};

use super::config::{Limits, Payload};
use super::dcep;
use super::sctp::{Sctp, SctpEvent};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// Takes packets of one side to the other, each as `change` makes it of the original, until none moves or the steps
/// are used up; what both said.
fn exchange(
    now: &mut Instant,
    sides: &mut [Sctp; 2],
    mut change: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>,
) -> [Vec<SctpEvent>; 2] {
    let mut said = [Vec::new(), Vec::new()];
    for _ in 0..200 {
        let mut moved = false;
        for at in 0..2 {
            let mut packets = Vec::new();
            sides[at].drain(*now, &mut packets, &mut said[at]);
            for packet in packets {
                moved = true;
                for copy in change(packet.to_vec()) {
                    sides[1 - at].handle(*now, copy);
                }
            }
        }
        if !moved {
            break;
        }
        *now += Duration::from_millis(1);
    }
    said
}

fn pair() -> [Sctp; 2] {
    let mut sides = [Sctp::new(Limits::default()), Sctp::new(Limits::default())];
    sides[0].set_peer(262_144, false);
    sides[1].set_peer(262_144, true);
    sides[1].connect();
    sides
}

/// CRC-32C, which SCTP checks before anything else, so that a broken packet gets further than that.
fn checksum(packet: &mut [u8]) {
    if packet.len() < 12 {
        return;
    }
    packet[8..12].fill(0);
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    let crc = !packet.iter().fold(!0, step);
    packet[8..12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn garbage_beside_a_running_association_changes_nothing() {
    let mut now = Instant::now();
    let mut sides = pair();
    exchange(&mut now, &mut sides, |packet| vec![packet]);
    let channel = sides[1].open("calling-3.0").expect("connected");
    exchange(&mut now, &mut sides, |packet| vec![packet]);
    let mut random = Random(21);
    let mut got = 0;
    for n in 0..300 {
        sides[1].send(channel, Payload::Text(format!("message {n}").into())).expect("an open channel");
        let [server, _] = exchange(&mut now, &mut sides, |packet| {
            let noise: Vec<u8> = (0..random.below(1_200)).map(|_| random.below(256) as u8).collect();
            // Its header, so that it is for this association; not its tag, which a stranger does not know.
            let mut near = [&packet[..4], &[9; 4], &[0; 4], &noise[..]].concat();
            checksum(&mut near);
            vec![noise, near, packet[..random.below(packet.len())].to_vec(), packet]
        });
        got += server.iter().filter(|event| matches!(event, SctpEvent::Message { .. })).count();
        assert!(!server.iter().any(|event| matches!(event, SctpEvent::Lost(_))), "message {n}");
    }
    assert_eq!(got, 300, "every message once, in spite of everything");
}

#[test]
fn a_peer_that_breaks_its_own_packets_is_survived() {
    for seed in 1..200 {
        let mut now = Instant::now();
        let mut sides = pair();
        let mut random = Random(seed * 7_919);
        for round in 0..20 {
            let _ = sides[1].open(if round % 2 == 0 { "calling-3.0" } else { "" });
            exchange(&mut now, &mut sides, |mut packet| {
                if random.below(3) == 0 {
                    for _ in 0..=random.below(4) {
                        let at = random.below(packet.len());
                        packet[at] = random.below(256) as u8;
                    }
                    packet.truncate(packet.len() - random.below(4));
                    checksum(&mut packet);
                }
                vec![packet]
            });
            for side in &mut sides {
                if let Some(at) = side.next_timeout() {
                    now = now.max(at);
                    side.handle_timeout(now);
                }
                assert!(side.status().len() <= Limits::default().channels, "seed {seed}");
            }
        }
    }
}

#[test]
fn what_dcep_reads_it_reads_within_bounds() {
    let mut random = Random(5);
    let whole = dcep::open("calling-3.0");
    for _ in 0..100_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
        bytes.truncate(random.below(bytes.len() + 1));
        if let Some(dcep::Dcep::Open(open)) = dcep::parse(&bytes) {
            assert!(open.label.len() + 12 <= bytes.len());
        }
    }
    assert!(matches!(dcep::parse(&whole), Some(dcep::Dcep::Open(open)) if open.label == "calling-3.0"));
}
