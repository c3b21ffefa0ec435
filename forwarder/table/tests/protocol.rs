//! Messages survive the wire, and hostile bytes do nothing but fail.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use common::{name, table};
use proptest::prelude::*;
use sluice_srtp::Ssrc;
use sluice_table::protocol::frame::{PREFIX, decode};
use sluice_table::protocol::{
    Call, Client, ClientError, CounterGroup, Decoder, Event, EventRecord, FrameError, Greeting, Hello, PACKET_LIMIT,
    PacketInReason, PacketMessage, Refusal, Refused, Reply, Request, Response, Role, Snapshot, TABLE_LIMIT,
    TraceFilter, encode,
};
use sluice_table::{Change, DropReason, EntryKind};

fn calls() -> Vec<Call> {
    let requests = vec![
        Request::Apply { table: Box::new(table()), dry_run: true },
        Request::Transaction { id: 9, changes: vec![Change::Remove(EntryKind::Leg, name("bob"))] },
        Request::Clear,
        Request::Snapshot,
        Request::Counters,
        Request::Status,
        Request::Legs,
        Request::Streams,
        Request::Trace { filter: TraceFilter { ssrc: Some(Ssrc(7)), ..TraceFilter::default() }, sample: 10, count: 5 },
        Request::Subscribe,
    ];
    requests.into_iter().zip(1..).map(|(request, id)| Call { id, request }).collect()
}

fn replies() -> Vec<Reply> {
    let event = Event::LegTuple { leg: name("bob"), address: "[2001:db8::1]:9".parse().unwrap() };
    let responses = vec![
        Response::Ok,
        Response::Applied { generation: 3, changes: table().describe(&table().diff(&sluice_table::Table::default())) },
        Response::Snapshot(Box::new(Snapshot::of(&table(), 4, 5))),
        Response::Counters(vec![CounterGroup::drops(&[1, 2, 3])]),
        Response::Event(EventRecord { sequence: 1, at_unix_ns: 2, event }),
        Response::Refused(Refused::new(Refusal::Capacity, "legs are full", "raise capacity.legs")),
    ];
    responses.into_iter().zip(1..).map(|(response, id)| Reply { id, response }).collect()
}

#[test]
fn messages_survive_in_any_slices() {
    let mut stream = Vec::new();
    for call in calls() {
        stream.extend_from_slice(&encode(&call, TABLE_LIMIT).unwrap());
    }
    for step in [1, 3, 7, 100, stream.len()] {
        let mut decoder = Decoder::new(TABLE_LIMIT);
        let mut got = Vec::new();
        for slice in stream.chunks(step) {
            decoder.extend(slice);
            while let Some(call) = decoder.next::<Call>().unwrap() {
                got.push(call);
            }
        }
        assert_eq!(got, calls(), "in slices of {step}");
        assert_eq!(decoder.buffered(), 0);
    }
    for reply in replies() {
        assert_eq!(decode::<Reply>(&encode(&reply, TABLE_LIMIT).unwrap()[PREFIX..]).unwrap(), reply);
    }
}

#[test]
fn packet_messages_survive() {
    let bytes = vec![7; 1500];
    let messages = [
        PacketMessage::PacketIn {
            endpoint: name("lan"),
            leg: None,
            from: "192.0.2.9:1".parse().unwrap(),
            reason: PacketInReason::Dtls,
            bytes: bytes.clone(),
        },
        PacketMessage::PacketOut { endpoint: name("lan"), to: "192.0.2.9:1".parse().unwrap(), bytes: bytes.clone() },
        PacketMessage::RtcpIn { leg: name("bob"), bytes: bytes.clone() },
        PacketMessage::RtcpOut { leg: name("bob"), bytes },
    ];
    for message in messages {
        assert_eq!(decode::<PacketMessage>(&encode(&message, PACKET_LIMIT).unwrap()[PREFIX..]).unwrap(), message);
        assert!(!format!("{message:?}").contains("7, 7"), "payload in {message:?}");
    }
    let long = PacketMessage::RtcpOut { leg: name("bob"), bytes: vec![0; PACKET_LIMIT] };
    assert!(matches!(encode(&long, PACKET_LIMIT), Err(FrameError::TooLong { .. })));
}

#[test]
fn snapshots_hold_no_key_and_no_password() {
    let table = table();
    let bytes = encode(&Snapshot::of(&table, 1, 1), TABLE_LIMIT).unwrap();
    let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|w| w == secret);
    for leg in table.legs.values() {
        for key in [&leg.inbound, &leg.outbound].into_iter().flatten() {
            assert!(!holds(&key.key()[..8]) && !holds(&key.salt()[..8]));
        }
        if let Some(ice) = &leg.ice {
            assert!(!holds(ice.local_password.as_bytes()) && !holds(ice.remote_password.as_bytes()));
            assert!(holds(ice.local_ufrag.as_bytes()), "the search itself must be able to find something");
        }
    }
}

#[test]
fn a_long_length_is_refused_before_any_memory_is_taken() {
    let mut decoder = Decoder::new(PACKET_LIMIT);
    decoder.extend(&u32::MAX.to_le_bytes());
    assert_eq!(decoder.next::<Call>(), Err(FrameError::TooLong { len: u32::MAX as usize, limit: PACKET_LIMIT }));
    let mut decoder = Decoder::new(PACKET_LIMIT);
    decoder.extend(&(PACKET_LIMIT as u32).to_le_bytes());
    assert_eq!(decoder.next::<Call>(), Ok(None));
}

#[test]
fn a_counted_list_cannot_claim_more_than_came() {
    // Call { id: 1, Transaction { id: 1, changes: 2^32-1 of them .. } } in four bytes of content.
    let body = [1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert!(matches!(decode::<Call>(&body), Err(FrameError::Malformed { .. })));
    let mut body = encode(&calls()[2], TABLE_LIMIT).unwrap()[PREFIX..].to_vec();
    body.push(0);
    assert_eq!(decode::<Call>(&body), Err(FrameError::Trailing { extra: 1 }));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: prop::test_runner::RngSeed::Fixed(3), cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<Call>(&bytes);
        let _ = decode::<Reply>(&bytes);
        let _ = decode::<PacketMessage>(&bytes);
        let _ = decode::<Hello>(&bytes);
        let _ = decode::<Greeting>(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        for call in calls() {
            let mut body = encode(&call, TABLE_LIMIT).unwrap()[PREFIX..].to_vec();
            let at = at.index(body.len());
            body[at] = value;
            if let Ok(Call { request: Request::Apply { table, .. }, .. }) = decode::<Call>(&body) {
                let _ = table.validate();
            }
            body.truncate(cut.index(body.len()));
            let _ = decode::<Call>(&body);
        }
    }
}

#[test]
fn the_client_shakes_hands_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table.sock");
    let absent = Client::connect(&path, Role::Table, None).unwrap_err();
    assert!(matches!(absent, ClientError::Unreachable { .. }));
    assert!(absent.to_string().contains("table.sock") && absent.hint().contains("sluice-forwarder"), "{absent}");

    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut decoder = Decoder::new(TABLE_LIMIT);
        let mut chunk = [0; 512];
        let hello: Hello = loop {
            if let Some(hello) = decoder.next().unwrap() {
                break hello;
            }
            let n = stream.read(&mut chunk).unwrap();
            decoder.extend(&chunk[..n]);
        };
        stream.write_all(&encode(&hello.greet(12), PACKET_LIMIT).unwrap()).unwrap();
        for _ in 0..2 {
            let call: Call = loop {
                if let Some(call) = decoder.next().unwrap() {
                    break call;
                }
                let n = stream.read(&mut chunk).unwrap();
                decoder.extend(&chunk[..n]);
            };
            let stray = Reply { id: 999, response: Response::Ok };
            let response = match call.request {
                Request::Clear => Response::Applied { generation: 13, changes: Vec::new() },
                _ => Response::Refused(Refused::new(Refusal::Busy, "a trace is running", "wait for it")),
            };
            stream.write_all(&encode(&stray, TABLE_LIMIT).unwrap()).unwrap();
            stream.write_all(&encode(&Reply { id: call.id, response }, TABLE_LIMIT).unwrap()).unwrap();
        }
    });
    let mut client = Client::connect(&path, Role::Table, Some(Duration::from_secs(30))).unwrap();
    assert_eq!(client.welcome().generation, 12);
    let applied = client.call(Request::Clear).unwrap();
    assert_eq!(applied, Response::Applied { generation: 13, changes: Vec::new() });
    let refused = client.call(Request::Status).unwrap_err();
    assert_eq!(refused.hint(), "wait for it");
    server.join().unwrap();
    let gone = client.call(Request::Status).unwrap_err();
    assert!(matches!(gone, ClientError::Broken { .. }), "{gone}");
}

#[test]
fn another_version_is_refused() {
    let Greeting::Refused(refused) = (Hello { version: 99, role: Role::Table }).greet(0) else { panic!("welcomed") };
    assert_eq!(refused.reason, Refusal::Version);
    assert!(refused.detail.contains("99"));
}

#[test]
fn drop_counters_cover_every_reason() {
    let group = CounterGroup::drops(&[5]);
    assert_eq!(group.counters.len(), DropReason::COUNT);
    assert_eq!(group.counters[0], ("truncated".to_owned(), 5));
    assert!(group.counters[1..].iter().all(|(_, n)| *n == 0));
}
