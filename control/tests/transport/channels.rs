//! Data channels: both sides open, large messages, limits, orderly and abrupt ends.

use bytes::Bytes;
use sluice_control::transport::{CloseReason, Limits, Payload, SendError, Setup};

use crate::link::{Impairment, Options, World, client, server};

fn connected(seed: u64, impairment: Impairment) -> World {
    let mut world = World::new(seed, server(), client());
    world.impairment = impairment;
    world.introduce(Setup::Active, true);
    world.client.transport.open_channel("calling-3.0").unwrap();
    world.server.transport.open_channel("from-sluice").unwrap();
    world.connect();
    assert!(world.run(60_000, |world| world.client.channels.len() == 2 && world.server.channels.len() == 2));
    world
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

#[test]
fn both_sides_open_and_large_messages_arrive_whole_and_in_order() {
    let impairments = [
        Impairment::default(),
        Impairment { loss: 20, duplicate: 5, delay: (5, 40), garbage: 0 },
        Impairment { loss: 2, duplicate: 2, delay: (5, 10), garbage: 5 },
    ];
    for (seed, impairment) in impairments.into_iter().enumerate() {
        let mut world = connected(seed as u64 + 20, impairment);
        let labels = |channels: &[(_, String)]| {
            let mut labels: Vec<_> = channels.iter().map(|(_, label)| label.clone()).collect();
            labels.sort();
            labels
        };
        assert_eq!(labels(&world.server.channels), ["calling-3.0", "from-sluice"]);
        assert_eq!(labels(&world.client.channels), ["calling-3.0", "from-sluice"]);
        let find = |channels: &[(_, String)]| channels.iter().find(|(_, l)| l == "calling-3.0").unwrap().0;
        let (at_server, at_client) = (find(&world.server.channels), find(&world.client.channels));
        let expected = [pattern(60_000, 1), pattern(200_000, 2), Vec::new(), pattern(1, 3), pattern(262_144, 4)];
        for bytes in &expected {
            world.server.transport.send(at_server, Payload::Binary(bytes.clone().into())).unwrap();
            world.client.transport.send(at_client, Payload::Binary(bytes.clone().into())).unwrap();
        }
        world.server.transport.send(at_server, Payload::Text("hello".into())).unwrap();
        world.client.transport.send(at_client, Payload::Text("".into())).unwrap();
        let done = world.run(600_000, |world| world.client.messages.len() == 6 && world.server.messages.len() == 6);
        assert!(done, "{impairment:?} {} {}", world.client.messages.len(), world.server.messages.len());
        for (at, bytes) in expected.iter().enumerate() {
            assert!(world.client.messages[at] == (at_client, false, bytes.clone()), "message {at} to the client");
            assert!(world.server.messages[at] == (at_server, false, bytes.clone()), "message {at} to the server");
        }
        assert_eq!(world.client.messages[5], (at_client, true, b"hello".to_vec()));
        assert_eq!(world.server.messages[5], (at_server, true, Vec::new()));
        assert!(world.server.closed.is_empty() && world.client.closed.is_empty());
    }
}

#[test]
fn what_many_are_sent_is_kept_once_and_only_until_it_arrived() {
    let mut world = connected(7, Impairment::default());
    let find = |channels: &[(_, String)]| channels.iter().find(|(_, l)| l == "calling-3.0").unwrap().0;
    let (at_server, at_client) = (find(&world.server.channels), find(&world.client.channels));
    world.run(1_000, |_| false);
    let list = Bytes::from(pattern(30_000, 5));
    let short = Bytes::from(pattern(100, 6));
    world.server.transport.send(at_server, Payload::Text(list.clone())).unwrap();
    for _ in 0..300 {
        world.server.transport.send(at_server, Payload::Text(short.clone())).unwrap();
    }
    assert_eq!(world.server.transport.buffered(at_server), 30_000 + 300 * 100);
    assert!(!list.is_unique() && !short.is_unique(), "no copies");
    assert!(world.run(600_000, |world| world.client.messages.len() == 301));
    assert!(world.client.messages[0] == (at_client, true, list.to_vec()));
    assert!(world.client.messages[300] == (at_client, true, short.to_vec()));
    world.run(1_000, |_| false);
    assert_eq!(world.server.transport.buffered(at_server), 0);
    assert!(list.is_unique() && short.is_unique(), "given back once acknowledged");
}

#[test]
fn limits_are_errors_that_pass() {
    let mut world = connected(30, Impairment::default());
    let channel = world.server.channels[0].0;
    let send =
        |world: &mut World, length| world.server.transport.send(channel, Payload::Binary(pattern(length, 0).into()));
    assert_eq!(send(&mut world, 262_145), Err(SendError::TooLarge { length: 262_145, limit: 262_144 }));
    let sent = (0..10).take_while(|_| send(&mut world, 200_000).is_ok()).count();
    assert!((5..10).contains(&sent), "{sent}");
    assert!(matches!(send(&mut world, 200_000), Err(SendError::Full { limit: 1_048_576, .. })));
    assert!(world.run(60_000, |world| world.client.messages.len() == sent));
    assert_eq!(send(&mut world, 200_000), Ok(()));
    for at in 2..8 {
        world.server.transport.open_channel(&format!("number {at}")).unwrap();
    }
    assert_eq!(world.server.transport.open_channel("one more"), Err(SendError::TooManyChannels(8)));
}

#[test]
fn a_peer_that_opens_too_many_gets_those_reset() {
    let limits = Limits { channels: 20, ..Limits::default() };
    let mut world = World::new(31, server(), Options { limits, ..client() });
    world.introduce(Setup::Active, true);
    for at in 0..12 {
        world.client.transport.open_channel(&format!("number {at}")).unwrap();
    }
    world.connect();
    world.run(20_000, |world| world.client.closed_channels.len() == 4);
    assert_eq!(world.server.channels.len(), 8);
    assert_eq!(world.client.closed_channels.len(), 4);
    assert!(world.server.closed.is_empty() && world.client.closed.is_empty());
}

#[test]
fn a_closed_channel_is_closed_on_both_sides_and_its_stream_can_be_used_again() {
    let mut world = connected(32, Impairment::default());
    for round in 0..3 {
        let channel = world.server.channels.last().unwrap().0;
        world.server.transport.close_channel(channel).unwrap();
        let closed = |world: &World| (world.server.closed_channels.len(), world.client.closed_channels.len());
        assert!(world.run(10_000, |world| closed(world) == (round + 1, round + 1)), "{:?}", closed(&world));
        assert_eq!(
            world.server.transport.send(channel, Payload::Text("late".into())),
            Err(SendError::NotOpen(channel))
        );
        world.server.transport.open_channel("again").unwrap();
        assert!(world.run(10_000, |world| world.server.channels.len() == 3 + round), "{round}");
    }
}

#[test]
fn an_end_is_told_once_and_heard() {
    let mut world = connected(33, Impairment::default());
    let now = world.now;
    world.client.transport.close(now);
    world.client.transport.close(now);
    assert!(world.run(2_000, |world| !world.server.closed.is_empty()));
    world.run(2_000, |_| false);
    assert_eq!(world.client.closed, [CloseReason::Local]);
    assert_eq!(world.server.closed, [CloseReason::Peer]);
    let channel = world.server.channels[0].0;
    assert_eq!(world.server.transport.send(channel, Payload::Text("x".into())), Err(SendError::Closed));
    assert_eq!((world.server.transport.next_timeout(), world.client.transport.next_timeout()), (None, None));
}
