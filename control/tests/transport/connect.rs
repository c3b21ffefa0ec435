//! Coming up: roles, versions, candidates, loss, the last flight, giving up.

use std::time::Duration;

use sluice_control::transport::{CloseReason, DtlsVersion, Limits, Phase, Setup, TransportError};
use sluice_srtp::profile::Profile;

use crate::link::{Impairment, Options, World, address, client, server};

fn assert_keys_fit(world: &World) {
    let (server, client) = (world.server.connection.as_ref().unwrap(), world.client.connection.as_ref().unwrap());
    assert_eq!(server.inbound, client.outbound);
    assert_eq!(server.outbound, client.inbound);
    assert_ne!(server.inbound, server.outbound);
    assert_eq!(server.inbound.profile(), Profile::AeadAes256Gcm);
    assert_eq!(server.ice.local_ufrag, client.ice.remote_ufrag);
    assert_eq!(server.ice.remote_password, client.ice.local_password);
    assert_ne!(server.ice.controlling, client.ice.controlling);
}

#[test]
fn every_role_and_version() {
    for version in [DtlsVersion::V1_2, DtlsVersion::V1_3, DtlsVersion::Auto] {
        for setup in [Setup::Active, Setup::Passive, Setup::ActPass] {
            for controlling in [false, true] {
                let mut world = World::new(
                    1,
                    Options { controlling, version, ..server() },
                    Options { controlling: !controlling, version, ..client() },
                );
                // Who offers either lets the other choose, and then is active, or chooses itself.
                if setup == Setup::ActPass {
                    let to_server = world.client.description(Setup::ActPass, true);
                    let to_client = world.server.description(Setup::Passive, true);
                    world.server.transport.set_remote(world.now, &to_server).unwrap();
                    world.client.transport.set_remote(world.now, &to_client).unwrap();
                } else {
                    world.introduce(setup, true);
                }
                world.connect();
                assert_keys_fit(&world);
                assert!(world.elapsed() < Duration::from_millis(400), "{version:?} {setup:?} {:?}", world.elapsed());
                let status = world.server.transport.status();
                let expected = if version == DtlsVersion::V1_2 { "1.2" } else { "1.3" };
                assert_eq!((status.phase, status.dtls), (Phase::Connected, Some(expected)));
                assert!(status.pairs[0].selected && status.pairs[0].rtt.is_some(), "{status:#?}");
            }
        }
    }
}

#[test]
fn one_version_each_has_no_common_one_but_auto_has() {
    let mut world = World::new(2, server(), Options { version: DtlsVersion::Auto, ..client() });
    world.introduce(Setup::Active, true);
    world.connect();
    assert_keys_fit(&world);
    let mut world = World::new(2, server(), Options { version: DtlsVersion::V1_3, ..client() });
    world.introduce(Setup::Active, true);
    let ended = world.run(40_000, |world| !world.server.closed.is_empty());
    assert!(ended && world.server.connection.is_none());
    assert!(
        matches!(world.server.closed[0], CloseReason::DtlsParameters | CloseReason::DtlsTimeout),
        "{:?}",
        world.server.closed
    );
}

#[test]
fn the_client_needs_no_candidates_of_its_own() {
    let mut world = World::new(3, server(), client());
    world.introduce(Setup::Active, false);
    world.connect();
    let ice = &world.server.connection.as_ref().unwrap().ice;
    assert_eq!(ice.tuples, [address("198.51.100.7:5000")]);
}

#[test]
fn checks_before_the_answer_are_kept() {
    let mut world =
        World::new(4, Options { controlling: true, ..server() }, Options { controlling: false, ..client() });
    let to_client = world.server.description(Setup::Passive, true);
    world.client.transport.set_remote(world.now, &to_client).unwrap();
    assert!(!world.run(300, |_| false));
    assert_eq!(world.server.transport.status().phase, Phase::New);
    let to_server = world.client.description(Setup::Active, false);
    world.server.transport.set_remote(world.now, &to_server).unwrap();
    let told = world.now;
    world.connect();
    assert_keys_fit(&world);
    assert!(world.now - told < Duration::from_millis(300), "{:?}", world.now - told);
}

#[test]
fn equal_roles_are_settled() {
    for controlling in [false, true] {
        for (ours, theirs) in [(1, 2), (2, 1)] {
            let mut world = World::new(
                5,
                Options { controlling, tie_breaker: ours, ..server() },
                Options { controlling, tie_breaker: theirs, ..client() },
            );
            world.introduce(Setup::Active, true);
            world.connect();
            world.run(1_000, |_| false);
            assert_ne!(world.server.transport.status().controlling, world.client.transport.status().controlling);
            assert_eq!(world.server.transport.status().controlling, ours > theirs);
        }
    }
}

#[test]
fn the_candidate_that_works_is_found_among_dead_ones() {
    let addresses = vec!["198.51.100.7:5000", "203.0.113.9:5001", "[2001:db8::7]:5002"];
    for alive in 0..3 {
        for controlling in [false, true] {
            let servers = vec!["192.0.2.1:4000", "[2001:db8::1]:4000"];
            let mut world = World::new(
                6,
                Options { controlling, addresses: servers, ..server() },
                Options { controlling: !controlling, addresses: addresses.clone(), ..client() },
            );
            world.dead = (0..3).filter(|at| *at != alive).map(|at| address(addresses[at])).collect();
            world.introduce(Setup::Active, true);
            world.connect();
            assert_eq!(world.server.connection.as_ref().unwrap().ice.tuples, [address(addresses[alive])]);
            let expected = if alive == 2 { "server1" } else { "server0" };
            assert_eq!(world.server.connection.as_ref().unwrap().endpoint.as_str(), expected);
        }
    }
}

#[test]
fn loss_duplicates_and_reordering() {
    for seed in 0..60 {
        let version = if seed % 2 == 0 { DtlsVersion::V1_2 } else { DtlsVersion::V1_3 };
        let mut world = World::new(seed, Options { version, ..server() }, Options { version, ..client() });
        world.impairment = Impairment { loss: 20, duplicate: 10, delay: (5, 60), garbage: 0 };
        world.introduce(if seed % 3 == 0 { Setup::Passive } else { Setup::Active }, true);
        world.connect();
        assert_keys_fit(&world);
    }
}

#[test]
fn the_last_flight_waits_for_the_leg_but_not_for_ever() {
    let mut world = World::new(7, server(), client());
    world.server.release = false;
    world.introduce(Setup::Active, true);
    assert!(world.run(2_000, |world| world.server.connection.is_some()));
    let (keyed, sent) = (world.now, world.server.datagrams);
    assert!(!world.run(80, |world| world.server.datagrams > sent), "released before the leg was there");
    assert!(world.client.connection.is_none());
    world.server.transport.release();
    world.connect();
    assert!(world.now - keyed < Duration::from_millis(150));

    let mut world = World::new(8, server(), client());
    world.server.release = false;
    world.introduce(Setup::Active, true);
    assert!(world.run(2_000, |world| world.server.connection.is_some()));
    let keyed = world.now;
    world.connect();
    let waited = world.now - keyed;
    assert!((100..200).contains(&waited.as_millis()), "{waited:?}");
}

#[test]
fn giving_up_says_why() {
    let limits = Limits { establish: Duration::from_secs(5), ..Limits::default() };
    let mut world = World::new(9, Options { limits, ..server() }, client());
    world.introduce(Setup::Active, true);
    world.dead = vec![address("192.0.2.1:4000")];
    world.run(6_000, |_| false);
    assert_eq!(world.server.closed, [CloseReason::Unreachable]);
    assert_eq!(world.server.transport.next_timeout(), None);

    // Everything to the client is lost: it asks and hears nothing.
    let mut world = World::new(10, Options { limits, ..server() }, client());
    world.introduce(Setup::Active, true);
    world.nat = Some((address("198.51.100.7:5000"), address("198.51.100.7:5001")));
    world.dead = vec![];
    let mut world_end = false;
    for _ in 0..600 {
        world.in_flight.retain(|datagram| datagram.to == address("192.0.2.1:4000"));
        world_end = world.run(10, |world| !world.server.closed.is_empty());
        if world_end {
            break;
        }
    }
    assert!(world_end);
    assert_eq!(world.server.closed, [CloseReason::NoAnswer]);
}

#[test]
fn descriptions_that_cannot_work_are_refused() {
    let mut world = World::new(11, server(), client());
    let good = world.client.description(Setup::Active, true);
    let now = world.now;
    let mut bad = good.clone();
    bad.fingerprints.clear();
    assert_eq!(world.server.transport.set_remote(now, &bad), Err(TransportError::NoFingerprint));
    let mut bad = good.clone();
    bad.credentials.password.truncate(21);
    assert_eq!(world.server.transport.set_remote(now, &bad), Err(TransportError::Credentials));
    world.server.transport.set_remote(now, &good).unwrap();
    world.server.transport.set_remote(now, &good).unwrap();
    let mut other = good.clone();
    other.fingerprints[0].bytes[0] ^= 1;
    assert_eq!(world.server.transport.set_remote(now, &other), Err(TransportError::FingerprintChanged));
    world.server.transport.close(now);
    assert_eq!(world.server.transport.set_remote(now, &good), Err(TransportError::Closed));
}
