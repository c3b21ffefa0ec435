//! A connected peer that shows up elsewhere, nominates late, or restarts ICE.

use std::time::Duration;

use sluice_control::transport::{Payload, Setup, is_stun_response};

use crate::link::{Options, Side, World, address, binding_request, client, credentials, server};

const INNER: &str = "198.51.100.7:5000";
const OUTER: &str = "198.51.100.7:6001";
const HERE: &str = "192.0.2.1:4000";

fn world(seed: u64, controlling: bool) -> World {
    let mut world =
        World::new(seed, Options { controlling, ..server() }, Options { controlling: !controlling, ..client() });
    world.introduce(Setup::Active, true);
    world.client.transport.open_channel("x").unwrap();
    world.connect();
    assert!(world.run(10_000, |world| !world.server.channels.is_empty() && !world.client.channels.is_empty()));
    world.run(3_000, |_| false);
    world.server.moved.clear();
    world
}

fn ask(world: &mut World, from: &str, controlling: bool, nominate: bool) {
    let (ours, theirs) = (world.server.transport.credentials().clone(), world.client.transport.credentials().clone());
    let request = binding_request(&ours, &theirs, controlling, nominate);
    world.send(address(from), address(HERE), request);
}

fn exchange(world: &mut World) {
    let (server, client) = (world.server.channels[0].0, world.client.channels[0].0);
    let before = (world.server.messages.len(), world.client.messages.len());
    world.server.transport.send(server, Payload::Binary(vec![1; 30_000].into())).unwrap();
    world.client.transport.send(client, Payload::Binary(vec![2; 30_000].into())).unwrap();
    let arrived =
        |world: &World| world.server.messages.len() == before.0 + 1 && world.client.messages.len() == before.1 + 1;
    assert!(world.run(60_000, arrived));
}

#[test]
fn a_nominated_new_port_is_taken_at_once() {
    let mut world = world(60, false);
    world.nat = Some((address(INNER), address(OUTER)));
    let from = world.now;
    ask(&mut world, OUTER, true, true);
    assert!(world.run(2_000, |world| !world.server.moved.is_empty()));
    assert!((world.now - from).as_millis() < 100);
    assert_eq!(world.server.moved[0].ice.tuples, [address(OUTER), address(INNER)]);
    exchange(&mut world);
    assert_eq!(world.server.connection.as_ref().unwrap().ice.local_ufrag, world.server.moved[0].ice.local_ufrag);
}

#[test]
fn a_new_port_is_let_in_and_then_taken_because_the_old_one_is_silent() {
    for controlling in [false, true] {
        let mut world = world(61, controlling);
        world.nat = Some((address(INNER), address(OUTER)));
        let from = world.now;
        ask(&mut world, OUTER, !controlling, false);
        assert!(world.run(2_000, |world| !world.server.moved.is_empty()));
        assert!((world.now - from).as_millis() < 100);
        assert_eq!(world.server.moved[0].ice.tuples, [address(INNER), address(OUTER)]);
        assert!(world.run(2_000, |world| world.server.moved.len() == 2));
        assert!((world.now - from).as_millis() < 1_500);
        assert_eq!(world.server.moved[1].ice.tuples, [address(OUTER), address(INNER)]);
        exchange(&mut world);
        world.run(10_000, |_| false);
        assert_eq!(world.server.moved.len(), 2, "{:?}", world.server.moved);
    }
}

#[test]
fn a_second_path_beside_one_that_lives_is_let_in_and_taken_only_when_nominated() {
    let second = "203.0.113.5:5003";
    // Which of the two answers first decides nothing.
    for (nominate, old_is_slower) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = world(62, !nominate);
        let mut local = world.client.locals[0].clone();
        local.address = address(second);
        world.client.locals.push(local);
        world.log.clear();
        // Both of the client's addresses lead to its one agent, whose answers leave from the one that was asked.
        ask(&mut world, second, nominate, nominate);
        let (end, mut delayed) = (world.now + Duration::from_secs(5), Vec::new());
        while world.now < end {
            for datagram in &mut world.in_flight {
                if datagram.from != address(INNER) || !is_stun_response(&datagram.bytes) {
                    continue;
                }
                let asked = world.log.iter().rev().find(|(_, sent)| sent.get(8..20) == datagram.bytes.get(8..20));
                if asked.is_some_and(|(to, _)| *to == address(second)) {
                    datagram.from = address(second);
                } else if old_is_slower && !delayed.contains(&datagram.bytes) {
                    delayed.push(datagram.bytes.clone());
                    datagram.at += Duration::from_millis(40);
                }
            }
            world.run(5, |_| false);
        }
        let last = world.server.moved.last().unwrap();
        let expected = if nominate { [address(second), address(INNER)] } else { [address(INNER), address(second)] };
        assert_eq!(last.ice.tuples, expected, "nominate {nominate}: {:?}", world.server.moved);
        assert_eq!(world.server.moved.len(), 1);
    }
}

#[test]
fn moving_often_keeps_eight_tuples() {
    let mut world = world(63, false);
    for round in 0..20_u16 {
        let outer = format!("198.51.100.7:{}", 7_000 + round);
        world.nat = Some((address(INNER), address(&outer)));
        ask(&mut world, &outer, true, true);
        assert!(world.run(2_000, |world| world.server.moved.len() == usize::from(round) + 1));
        let tuples = &world.server.moved[usize::from(round)].ice.tuples;
        assert_eq!((tuples[0], tuples.len()), (address(&outer), (usize::from(round) + 2).min(8)));
    }
    exchange(&mut world);
}

#[test]
fn a_restart_keeps_the_old_path_until_the_new_one_answers() {
    for side in [Side::Server, Side::Client] {
        let mut world = world(64, side == Side::Server);
        world.server.transport.restart(credentials("server2"));
        world.client.transport.restart(credentials("client2"));
        // The descriptions are still on their way.
        exchange(&mut world);
        assert!(world.server.moved.is_empty());
        world.introduce(Setup::Active, true);
        assert!(world.run(5_000, |world| !world.server.moved.is_empty() && !world.client.moved.is_empty()));
        let path = &world.server.moved[0];
        assert_eq!(path.ice.tuples, [address(INNER)]);
        assert_eq!((path.ice.local_ufrag.as_str(), path.ice.remote_ufrag.as_str()), ("ufragserver2", "ufragclient2"));
        exchange(&mut world);
        assert!(world.server.closed.is_empty() && world.client.closed.is_empty());
    }
}

#[test]
fn a_restart_the_peer_never_follows_changes_nothing() {
    let mut world = world(65, true);
    world.server.transport.restart(credentials("server2"));
    world.run(20_000, |_| false);
    exchange(&mut world);
    assert!(world.server.moved.is_empty() && world.server.closed.is_empty());
}

#[test]
fn an_idle_connection_has_nothing_to_do() {
    let mut world = world(66, false);
    world.run(120_000, |_| false);
    let (sent, now) = (world.server.datagrams, world.now);
    world.run(600_000, |_| false);
    assert_eq!(world.server.datagrams, sent);
    let next = world.server.transport.next_timeout();
    assert!(next.is_none_or(|at| at > now + Duration::from_hours(1)), "{:?}", next.map(|at| at - now));
}
