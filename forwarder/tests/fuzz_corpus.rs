//! Runs what the fuzz targets check (fuzz/targets) over their committed corpora and over seeded mutations of them. The
//! seeds are made here, so that a change of a format cannot leave a corpus behind that no longer gets inside a parser:
//! `SLUICE_WRITE_CORPUS=1 cargo test -p sluice-forwarder --test fuzz_corpus` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "../../fuzz/targets/lib.rs"]
#[allow(unreachable_pub)]
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use sluice_forwarder::engine::rtcp::well_formed;
use sluice_forwarder::engine::stun::message::{BINDING, Builder, Class, HEADER_LEN, IntegrityKey, Message, Role};
use sluice_forwarder::io::headers::{Headers, write_udp_checksum};
use sluice_forwarder::wire::frame::{self, Address};
use sluice_forwarder::wire::rtcp::report::{self, ReportBlock, SenderInfo};
use sluice_forwarder::wire::rtcp::{Compound, nack, payload, transport};
use sluice_forwarder::wire::rtp;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::file::Origin;
use sluice_table::protocol;
use sluice_table::protocol::{Call, Hello, PacketInReason, PacketMessage, Reply, Request, Response, encode};
use sluice_table::{Change, Entry, EntryKind, Kind, Table};
use support::{Random, egress, ingress, key, name, peer, publisher_leg, receiver_leg};
use targets::TARGETS;

/// Mutations of each seed.
const MUTATIONS: u32 = 3_000;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Committed files of a target, in order of their names.
fn committed(target: &str) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(corpus(target)).unwrap_or_else(|e| panic!("corpus of {target}: {e}"));
    let read = |file: std::fs::DirEntry| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap());
    files.map(|file| read(file.unwrap())).collect()
}

fn datagram(v6: bool, vlan: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let (from, to) = if v6 { ("[fd00::2]:6000", "[fd00::1]:5000") } else { ("10.0.0.2:6000", "10.0.0.1:5000") };
    let headers = Headers { vlan, ..Headers::new(from.parse().unwrap(), to.parse().unwrap()) };
    let mut frame = vec![0; headers.len() + payload.len()];
    let at = headers.write(&mut frame, payload.len()).unwrap();
    frame[at..].copy_from_slice(payload);
    assert!(write_udp_checksum(&mut frame));
    frame
}

fn rtp_packet(first: u8, extension: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, 111, 0x12, 0x34, 0, 0, 3, 0xc0, 0, 0, 0, 7];
    packet.extend((0..u32::from(first & 15)).flat_map(u32::to_be_bytes));
    packet.extend_from_slice(extension);
    packet.extend_from_slice(b"payload");
    packet
}

/// A message with integrity and fingerprint.
fn stun_message(class: Class, add: fn(Builder<'_>) -> Builder<'_>) -> Vec<u8> {
    let mut out = [0; 512];
    let builder = add(Builder::new(&mut out, class, BINDING, b"transaction!"));
    let len = builder.finish(&IntegrityKey::new("a password of 22 bytes")).unwrap();
    out[..len].to_vec()
}

/// Without its fingerprint, which no mutation would get right.
fn bare(mut message: Vec<u8>) -> Vec<u8> {
    message.truncate(message.len() - 8);
    let len = (message.len() - HEADER_LEN) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
    message
}

fn table() -> Table {
    let mut table = support::base_table();
    publisher_leg(&mut table, "pub", peer(1), &key(Profile::AeadAes128Gcm, 1));
    ingress(&mut table, "audio", "pub", 7, Kind::Audio);
    receiver_leg(&mut table, "rx", peer(2), &key(Profile::Aes128CmSha1_80, 2));
    egress(&mut table, "rx/audio", "rx", 70, "audio");
    table
}

fn body<T: Serialize>(choice: u8, message: &T) -> Vec<u8> {
    let mut bytes = vec![choice];
    bytes.extend_from_slice(&encode(message, 1 << 20).unwrap()[4..]);
    bytes
}

fn call(request: Request) -> Vec<u8> {
    body(2, &Call { id: 1, request })
}

/// Inputs that reach the inside of each parser.
fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "frame" => vec![
            ("ipv4", datagram(false, None, b"\x80payload")),
            ("ipv4-vlan", datagram(false, Some(7), &[0x80, 200, 0, 0])),
            ("ipv6", datagram(true, None, &[0, 1, 0, 0])),
            ("ipv6-vlan", datagram(true, Some(4_095), &[])),
        ],
        "rtp" => vec![
            ("plain", rtp_packet(0x80, &[])),
            ("csrc", rtp_packet(0xa3, &[])),
            ("one-byte", rtp_packet(0x90, &[0xbe, 0xde, 0, 2, 0x10, 0x85, 0x31, 0x12, 0x34, 0, 0, 0])),
            ("two-byte", rtp_packet(0x91, &[0x10, 0, 0, 2, 1, 0, 200, 3, b'm', b'i', b'd', 0])),
            ("id-15", rtp_packet(0x90, &[0xbe, 0xde, 0, 1, 0xf0, 1, 2, 3])),
        ],
        "rtcp" => {
            let first = [0x80, 201, 0, 1, 0, 0, 0, 7];
            let feedback = [0x8f, 205, 0, 4, 0, 0, 0, 7, 0, 0, 0, 8, 0, 1, 0, 2, 0, 0, 0, 0];
            let mut sender = [0; 28 + 24];
            let block = ReportBlock { ssrc: 7, lost: -3, highest: 70_000, ..ReportBlock::default() };
            report::write_sender(&mut sender, Ssrc(9), &SenderInfo::default(), &[block]).unwrap();
            let mut names = [0; 64];
            let len = report::write_names(&mut names, &[Ssrc(9)], b"name").unwrap();
            let mut requests = [0; 64];
            let mut compound = Compound::new(&mut requests);
            compound.push(|out| payload::write_pli(out, Ssrc(1), Ssrc(9)));
            compound.push(|out| payload::write_fir(out, Ssrc(1), Ssrc(9), 3));
            compound.push(|out| nack::write(out, Ssrc(1), Ssrc(9), &[65_535, 3, 90]).map(|(len, _)| len));
            let requested = compound.len();
            let mut arrivals = [0; 128];
            let ticks = |at: usize| (at % 5 != 4).then_some((at * at * 7) as u32);
            let written = transport::write(&mut arrivals, (Ssrc(1), Ssrc(9)), (65_530, 2), 60, ticks).unwrap();
            vec![
                ("report", first.to_vec()),
                ("compound", [&first[..], &feedback].concat()),
                ("sender", [&sender[..], &names[..len]].concat()),
                ("requests", requests[..requested].to_vec()),
                ("transport", arrivals[..written.len].to_vec()),
            ]
        }
        "stun" => {
            let check = stun_message(Class::Request, |b| {
                b.username("ours", "theirs").priority(1 << 24).use_candidate().role(Role::Controlling, 7)
            });
            let answer = stun_message(Class::Success, |b| b.mapped(peer(1).into()));
            vec![
                ("check", check.clone()),
                ("check-bare", bare(check)),
                ("answer-bare", bare(answer)),
                (
                    "answer-ipv6",
                    stun_message(Class::Success, |b| b.mapped(Address { ip: 0x2001_0db8 << 96 | 7, port: 5_000 })),
                ),
                ("error-bare", bare(stun_message(Class::Error, |b| b.error(487)))),
            ]
        }
        "table_protocol" => {
            let changes = vec![
                Change::Put(name("audio"), Entry::Ingress(table().ingress[&name("audio")].clone())),
                Change::Remove(EntryKind::Egress, name("rx/audio")),
                Change::Switch { source: name("speaker"), input: Some(name("audio")) },
            ];
            let packet = PacketMessage::PacketIn {
                endpoint: name("media"),
                leg: None,
                from: peer(3),
                reason: PacketInReason::StunUnknown,
                bytes: vec![0, 1, 0, 0],
            };
            vec![
                ("hello", body(0, &Hello::new(protocol::Role::Table))),
                ("greeting", body(1, &Hello { version: 99, role: protocol::Role::Packet }.greet(0))),
                ("apply", call(Request::Apply { table: Box::new(table()), dry_run: false })),
                ("transaction", call(Request::Transaction { id: 9, changes })),
                ("counters", call(Request::Counters)),
                ("reply", body(3, &Reply { id: 1, response: Response::Committed { id: 9, generation: 3 } })),
                ("packet-in", body(4, &packet)),
            ]
        }
        "table_file" => vec![
            ("example", include_bytes!("../../docs/table-example.toml").to_vec()),
            ("errors", b"[[leg]]\nname = \"a\"\nremtoe = 1\n[[egress]]\nname = \"b\"\nssrc = -1\n".to_vec()),
            ("not-toml", b"[[leg]\nname = ".to_vec()),
        ],
        _ => panic!("no seeds for {target}"),
    }
}

#[test]
fn every_seed_is_committed_and_understood() {
    for (target, run) in TARGETS {
        for (file, bytes) in seeds(target) {
            run(&bytes);
            let path = corpus(target).join(file);
            if std::env::var_os("SLUICE_WRITE_CORPUS").is_some() {
                std::fs::create_dir_all(corpus(target)).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
            let found = std::fs::read(&path).unwrap_or_default();
            assert!(found == bytes, "{target}/{file} is not what it should be; write it anew as this file says");
            let inside = match *target {
                "frame" => frame::parse(&bytes).is_ok(),
                "rtp" => rtp::parse(&bytes).is_ok(),
                "rtcp" => well_formed(&bytes),
                "stun" => Message::parse(&bytes).is_ok(),
                "table_protocol" => sluice_table::protocol::frame::decode::<Call>(&bytes[1..]).is_ok() || bytes[0] != 2,
                _ => {
                    let origin = Origin { file: PathBuf::from("/nonexistent/seed.toml"), mode: 0o600 };
                    let parsed = sluice_table::file::parse(std::str::from_utf8(&bytes).unwrap(), &origin);
                    parsed.is_ok() == (file == "example")
                }
            };
            assert!(inside, "{target}/{file} is refused at the door");
        }
    }
}

#[test]
fn corpora_and_their_mutations_hold() {
    for (target, run) in TARGETS {
        let files = committed(target);
        assert!(!files.is_empty());
        let all: Vec<&Vec<u8>> = files.values().collect();
        for (n, (file, bytes)) in files.iter().enumerate() {
            run(bytes);
            for len in 0..bytes.len().min(512) {
                run(&bytes[..len]);
            }
            let mut random = Random(0xf022 + n as u64);
            for round in 0..MUTATIONS {
                let mutant = mutated(&mut random, bytes, &all);
                let caught = std::panic::catch_unwind(|| run(&mutant));
                if let Err(panic) = caught {
                    eprintln!("{target}/{file}, mutation {round}: {mutant:02x?}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// One to four small changes.
fn mutated(random: &mut Random, bytes: &[u8], all: &[&Vec<u8>]) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let len = mutant.len() as u64;
        let at = if len == 0 { 0 } else { random.below(len) as usize };
        match random.below(7) {
            0 if len > 0 => mutant[at] ^= 1 << random.below(8),
            1 if len > 0 => mutant[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize],
            2 => mutant.insert(at, random.next() as u8),
            3 if len > 0 => drop(mutant.remove(at)),
            4 => mutant.truncate(at),
            5 => {
                let other = all[random.below(all.len() as u64) as usize];
                let from = random.below(other.len() as u64 + 1) as usize;
                mutant.truncate(at);
                mutant.extend_from_slice(&other[from..]);
            }
            _ => {
                let to = (at + random.below(16) as usize).min(mutant.len());
                let piece = mutant[at..to].to_vec();
                mutant.splice(at..at, piece);
            }
        }
    }
    mutant
}
