//! What nobody should send: garbage, forgeries, spoofed sources, another certificate.

use std::time::Duration;

use sluice_control::transport::{CloseReason, HashFunction, Payload, Protocol, Setup, protocol};

use crate::link::{Impairment, World, address, binding_request, client, credentials, hmac, server};

const VICTIM: &str = "203.0.113.99:7000";

#[test]
fn another_certificate_ends_it_before_any_key() {
    let mut world = World::new(40, server(), client());
    let mut to_server = world.client.description(Setup::Active, true);
    to_server.fingerprints[0].bytes[31] ^= 1;
    let to_client = world.server.description(Setup::Passive, true);
    world.server.transport.set_remote(world.now, &to_server).unwrap();
    world.client.transport.set_remote(world.now, &to_client).unwrap();
    assert!(world.run(5_000, |world| !world.server.closed.is_empty()));
    assert_eq!(world.server.closed, [CloseReason::Fingerprint]);
    assert!(world.server.connection.is_none());
}

#[test]
fn any_listed_fingerprint_of_any_hash_is_enough() {
    for hash in [HashFunction::Sha256, HashFunction::Sha384, HashFunction::Sha512] {
        let mut world = World::new(41, server(), client());
        let mut to_server = world.client.description(Setup::Active, true);
        to_server.fingerprints[0].bytes[0] ^= 1;
        to_server.fingerprints.push(world.client.identity.fingerprint(hash));
        let to_client = world.server.description(Setup::Passive, true);
        world.server.transport.set_remote(world.now, &to_server).unwrap();
        world.client.transport.set_remote(world.now, &to_client).unwrap();
        world.connect();
    }
}

#[test]
fn garbage_everywhere_stops_nothing() {
    for seed in 0..40 {
        let mut world = World::new(seed, server(), client());
        world.impairment = Impairment { loss: 5, duplicate: 5, delay: (5, 30), garbage: 40 };
        world.introduce(if seed % 2 == 0 { Setup::Active } else { Setup::Passive }, true);
        world.client.transport.open_channel("x").unwrap();
        world.connect();
        assert!(world.run(60_000, |world| !world.client.channels.is_empty()), "{seed}");
        let channel = world.client.channels[0].0;
        world.client.transport.send(channel, Payload::Binary(vec![7; 60_000].into())).unwrap();
        assert!(world.run(300_000, |world| !world.server.messages.is_empty()), "{seed} {:?}", world.server.closed);
        assert_eq!(world.server.messages[0].2, vec![7; 60_000]);
    }
}

#[test]
fn a_spoofed_but_authenticated_request_gets_a_few_checks_and_nothing_else() {
    for connected in [false, true] {
        for nominate in [false, true] {
            let mut world = World::new(43, server(), client());
            world.introduce(Setup::Active, true);
            if connected {
                world.connect();
                world.run(500, |_| false);
            }
            let request =
                binding_request(&world.server.credentials.clone(), &world.client.credentials.clone(), true, nominate);
            let (victim, here) = (address(VICTIM), address("192.0.2.1:4000"));
            world.send(victim, here, request.clone());
            world.run(30_000, |_| false);
            let sent = world.sent.get(&victim).copied().unwrap_or_default();
            assert!(sent > 0 && sent <= 3 * request.len() as u64, "{sent} of {}", request.len());
            assert!(world.log.iter().all(|(to, bytes)| *to != victim || protocol(bytes) == Protocol::Stun));
            assert!(world.server.moved.iter().all(|path| !path.ice.tuples.contains(&victim)));
            let connection = world.server.connection.as_ref().unwrap();
            assert!(!connection.ice.tuples.contains(&victim));
            assert!(world.server.transport.status().withheld > 0);
        }
    }
}

#[test]
fn forged_requests_get_nothing_and_are_counted() {
    let mut world = World::new(44, server(), client());
    world.introduce(Setup::Active, true);
    world.connect();
    let (victim, here) = (address(VICTIM), address("192.0.2.1:4000"));
    let (ours, theirs) = (world.server.credentials.clone(), world.client.credentials.clone());
    let mut wrong_password = ours.clone();
    wrong_password.password = "another password 1234567".into();
    let forged = [
        binding_request(&wrong_password, &theirs, true, true),
        binding_request(&credentials("someone"), &theirs, true, true),
        binding_request(&ours, &credentials("someone"), true, true),
    ];
    for request in forged {
        world.send(victim, here, request);
    }
    let mut cut = binding_request(&ours, &theirs, true, true);
    cut.truncate(60);
    world.send(victim, here, cut);
    // A DTLS record and media from an address that never asked.
    world.send(victim, here, vec![22; 100]);
    world.send(victim, here, vec![128; 100]);
    world.run(5_000, |_| false);
    assert_eq!(world.sent.get(&victim), None);
    let ignored = world.server.transport.status().ignored;
    assert_eq!((ignored.forged, ignored.malformed, ignored.early, ignored.stray), (3, 1, 1, 1));
}

#[test]
fn alerts_and_records_in_clear_do_not_end_a_connection() {
    let mut world = World::new(49, server(), client());
    world.introduce(Setup::Active, true);
    world.client.transport.open_channel("x").unwrap();
    world.connect();
    assert!(world.run(10_000, |world| !world.client.channels.is_empty()));
    let (from, here) = (address("198.51.100.7:5000"), address("192.0.2.1:4000"));
    let record = |kind: u8, epoch: u8, body: &[u8]| {
        let mut bytes = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0x77, 0x77, 0, body.len() as u8];
        bytes.extend(body);
        bytes
    };
    for epoch in [0, 1, 2] {
        for body in [[2, 40], [1, 0], [2, 0]] {
            world.send(from, here, record(21, epoch, &body));
        }
        world.send(from, here, record(20, epoch, &[1]));
        world.send(from, here, record(22, epoch, &[1; 60]));
        world.send(from, here, record(23, epoch, &[0; 60]));
    }
    world.run(2_000, |_| false);
    assert!(world.server.closed.is_empty(), "{:?}", world.server.closed);
    let channel = world.client.channels[0].0;
    world.client.transport.send(channel, Payload::Text("still here".into())).unwrap();
    assert!(world.run(5_000, |world| !world.server.messages.is_empty()));
}

#[test]
fn a_request_of_1200_bytes_is_answered_and_a_longer_one_is_not() {
    for (length, answered) in [(1_200, true), (1_400, false)] {
        let mut world = World::new(45, server(), client());
        world.introduce(Setup::Active, true);
        let (ours, theirs) = (world.server.credentials.clone(), world.client.credentials.clone());
        // An unknown optional attribute before the integrity, which covers it.
        let plain = binding_request(&ours, &theirs, true, false);
        let attributes = plain.len() - 20 - 32;
        let filler = length - plain.len() - 4;
        let mut bytes = plain[..20 + attributes].to_vec();
        bytes.extend(0xc0ff_u16.to_be_bytes());
        bytes.extend((filler as u16).to_be_bytes());
        bytes.resize(bytes.len() + filler, 0);
        let upto = (bytes.len() - 20 + 24) as u16;
        bytes[2..4].copy_from_slice(&upto.to_be_bytes());
        let tag = hmac(ours.password.as_bytes(), &[&bytes]);
        bytes.extend([0, 8, 0, 20]);
        bytes.extend(tag);
        let (victim, here) = (address(VICTIM), address("192.0.2.1:4000"));
        world.send(victim, here, bytes);
        world.run(200, |_| false);
        assert_eq!(world.sent.contains_key(&victim), answered, "{length}");
    }
}

#[test]
fn responses_from_elsewhere_validate_nothing() {
    let mut world = World::new(46, server(), client());
    world.introduce(Setup::Active, true);
    // The client's answers to the server's checks come from another port than was asked.
    let (inner, outer) = (address("198.51.100.7:5000"), address("198.51.100.7:6000"));
    let mut ended = false;
    for _ in 0..300 {
        for datagram in &mut world.in_flight {
            if datagram.from == inner {
                datagram.from = outer;
            }
            if datagram.to == outer {
                datagram.to = address("203.0.113.1:1");
            }
        }
        ended |= world.run(10, |world| world.server.connection.is_some());
    }
    assert!(!ended);
    assert!(world.server.transport.status().ignored.unexpected > 0);
}

#[test]
fn many_spoofed_sources_are_bounded_in_bytes_and_memory() {
    let mut world = World::new(47, server(), client());
    world.introduce(Setup::Active, true);
    world.connect();
    let (ours, theirs, here) =
        (world.server.credentials.clone(), world.client.credentials.clone(), address("192.0.2.1:4000"));
    for at in 0..5_000_u16 {
        let from = address(&format!("203.0.113.{}:{}", at % 250, 1_000 + at));
        let request = binding_request(&ours, &theirs, true, at % 3 == 0);
        world.send(from, here, request);
        if at % 50 == 0 {
            world.run(20, |_| false);
        }
    }
    world.run(20_000, |_| false);
    for (to, sent) in &world.sent {
        let received = world.received.get(to).copied().unwrap_or_default();
        let known = *to == address("198.51.100.7:5000");
        assert!(known || *sent <= 3 * received, "{to}: {sent} for {received}");
    }
    let status = world.server.transport.status();
    assert!(status.pairs.len() <= 64, "{}", status.pairs.len());
    assert!(status.pairs[0].selected && status.pairs[0].remote == address("198.51.100.7:5000"));
    assert!(world.server.moved.is_empty());
}

#[test]
fn signalled_addresses_nobody_is_at_get_a_few_checks() {
    let mut world = World::new(48, server(), client());
    let mut to_server = world.client.description(Setup::Active, true);
    let template = to_server.candidates[0].clone();
    for at in 0..100_u8 {
        let mut candidate = template.clone();
        candidate.address = address(&format!("203.0.113.{at}:7000"));
        to_server.candidates.push(candidate);
    }
    for bad in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "127.0.0.1:1", "203.0.113.200:0"] {
        let mut candidate = template.clone();
        candidate.address = address(bad);
        to_server.candidates.insert(0, candidate);
    }
    let to_client = world.server.description(Setup::Passive, true);
    world.server.transport.set_remote(world.now, &to_server).unwrap();
    world.client.transport.set_remote(world.now, &to_client).unwrap();
    world.connect();
    world.run(Duration::from_secs(30).as_millis() as u64, |_| false);
    assert!(world.sent.len() <= 64, "{}", world.sent.len());
    for (to, sent) in &world.sent {
        assert!(*to == address("198.51.100.7:5000") || *sent <= 600, "{to}: {sent}");
    }
}

#[test]
fn broken_copies_of_everything_a_peer_sends_are_survived() {
    let mut source = World::new(50, server(), client());
    source.introduce(Setup::Active, true);
    source.client.transport.open_channel("x").unwrap();
    source.connect();
    source.run(3_000, |_| false);
    let real: Vec<Vec<u8>> = source.log.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert!(real.len() > 8);
    for (secured, seed) in [(false, 51), (true, 52), (false, 53), (true, 54)] {
        let mut world = World::new(seed, server(), client());
        world.introduce(Setup::Active, true);
        if secured {
            world.connect();
        }
        let (from, endpoint) = (address("192.0.2.1:4000"), world.client.locals[0].endpoint.clone());
        for round in 0..200 {
            for bytes in &real {
                let mut broken = bytes.clone();
                let at = world.random(broken.len() as u64) as usize;
                match world.random(4) {
                    0 => broken.truncate(at),
                    1 => broken.extend(vec![round; at]),
                    2 => broken[at] = world.random(256) as u8,
                    _ => broken[at.min(30)] ^= 0xff,
                }
                let now = world.now;
                world.client.transport.handle_datagram(now, &endpoint, from, &broken);
            }
            world.run(5, |_| false);
        }
        if secured {
            assert!(world.client.closed.is_empty(), "{:?}", world.client.closed);
        }
    }
}
