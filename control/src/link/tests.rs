//! The link against a fake forwarder over real Unix sockets.

use std::time::Duration;

use sluice_table::protocol::{Call, Event, PacketMessage, Refusal, Refused, Request, Response, StreamRows};
use sluice_table::{Change, EntryKind, Name};

use super::fake::Fake;
use super::*;

fn config(fake: &Fake) -> LinkConfig {
    LinkConfig {
        retry_least: Duration::from_millis(5),
        timeout: Duration::from_millis(400),
        table_queue: 64,
        packet_queue: 16,
        event_queue: 64,
        ..LinkConfig::new(fake.socket.clone())
    }
}

fn change() -> Vec<Change> {
    vec![Change::Remove(EntryKind::Leg, Name::new("p1").unwrap())]
}

fn packet(len: usize) -> PacketMessage {
    let to = "192.0.2.1:9".parse().unwrap();
    PacketMessage::PacketOut { endpoint: Name::new("lan").unwrap(), to, bytes: vec![7; len] }
}

async fn next(events: &mut Events) -> LinkEvent {
    tokio::time::timeout(Duration::from_secs(20), events.recv()).await.expect("no event").expect("the link ended")
}

#[track_caller]
fn up(event: &LinkEvent) -> u64 {
    match event {
        LinkEvent::Up(snapshot) => snapshot.event_sequence,
        other => panic!("not up: {other:?}"),
    }
}

#[tokio::test]
async fn transactions_are_pipelined_and_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let (mut table, _packets) = fake.session(0).await;
    assert_eq!(up(&next(&mut events).await), 0);
    assert!(link.is_up());
    for id in 10..13 {
        link.transaction(id, change());
    }
    let mut calls = Vec::new();
    for id in 10..13 {
        let call: Call = table.read().await;
        let Request::Transaction { id: sent, changes } = &call.request else { panic!("{call:?}") };
        assert_eq!((*sent, changes), (id, &change()));
        calls.push(call);
    }
    let refused = Refused::new(Refusal::Capacity, "no more legs", "raise capacity.legs");
    table.reply(&calls[0], Response::Committed { id: 10, generation: 1 }).await;
    table.reply(&calls[1], Response::Refused(refused.clone())).await;
    table.reply(&calls[2], Response::Committed { id: 12, generation: 2 }).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        match next(&mut events).await {
            LinkEvent::Committed { id, result } => seen.push((id, result)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, [(10, Ok(1)), (11, Err(refused)), (12, Ok(2))]);
    assert_eq!(link.counters().get(Count::Refused), 1);
}

#[tokio::test]
async fn lost_events_make_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let (mut table, _packets) = fake.session(5).await;
    assert_eq!(up(&next(&mut events).await), 5);
    // 5 is part of the snapshot, 6 follows, 7 and 8 are lost.
    table.event(5).await;
    table.event(6).await;
    assert!(matches!(next(&mut events).await, LinkEvent::Event(r) if r.sequence == 6));
    table.event(9).await;
    let call: Call = table.read().await;
    assert_eq!(call.request, Request::Snapshot);
    // 10 is no part of the snapshot, whether it comes before or after it.
    table.event(10).await;
    table.reply(&call, Fake::snapshot(9)).await;
    assert!(matches!(next(&mut events).await, LinkEvent::Gap(s) if s.event_sequence == 9));
    assert!(matches!(next(&mut events).await, LinkEvent::Event(r) if r.sequence == 10));
    table.event(12).await;
    let call: Call = table.read().await;
    table.reply(&call, Fake::snapshot(12)).await;
    assert!(matches!(next(&mut events).await, LinkEvent::Gap(s) if s.event_sequence == 12));
    table.event(13).await;
    let event = next(&mut events).await;
    assert!(matches!(&event, LinkEvent::Event(r) if r.event == Event::TableChanged { generation: 13 }), "{event:?}");
    assert_eq!(link.counters().get(Count::Gaps), 2);
}

#[tokio::test]
async fn packets_go_both_ways_and_questions_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let (mut table, mut packets) = fake.session(0).await;
    up(&next(&mut events).await);
    assert!(link.packet(packet(100)));
    assert_eq!(packets.packet().await, packet(100));
    packets.write(&packet(3)).await;
    assert!(matches!(next(&mut events).await, LinkEvent::Packet(p) if p == packet(3)));
    let asked = tokio::spawn({
        let link = link.clone();
        async move { link.streams().await }
    });
    let call: Call = table.read().await;
    assert_eq!(call.request, Request::Streams);
    table.reply(&call, Response::Streams(StreamRows::default())).await;
    assert_eq!(asked.await.unwrap().unwrap(), StreamRows::default());
}

#[tokio::test]
async fn a_broken_connection_is_made_anew_and_old_transactions_are_void() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let (table, packets) = fake.session(0).await;
    up(&next(&mut events).await);
    drop((table, packets));
    let down = next(&mut events).await;
    assert!(matches!(&down, LinkEvent::Down(why) if why.contains("broke")), "{down:?}");
    let (mut table, _packets) = fake.session(3).await;
    // Connected again, but the node has not heard of it: what it sends is for the table it knew.
    while !link.is_up() {
        tokio::task::yield_now().await;
    }
    link.transaction(1, change());
    assert_eq!(up(&next(&mut events).await), 3);
    link.transaction(2, change());
    let call: Call = table.read().await;
    assert!(matches!(call.request, Request::Transaction { id: 2, .. }), "{call:?}");
    assert_eq!(link.counters().get(Count::Stale), 1);
}

#[tokio::test]
async fn while_down_nothing_blocks_and_questions_fail() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let (link, mut events) = spawn(LinkConfig { table_queue: 4, packet_queue: 4, ..LinkConfig::new(socket) });
    let down = next(&mut events).await;
    assert!(matches!(&down, LinkEvent::Down(why) if why.contains("no forwarder listens at")), "{down:?}");
    for id in 0..100 {
        link.transaction(id, change());
        link.packet(packet(1));
    }
    assert!(matches!(link.status().await, Err(LinkError::Down)));
}

/// What a stopped process looks like: the kernel takes connections and bytes, nobody answers.
#[tokio::test]
async fn a_stopped_forwarder_costs_the_session_and_never_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let session = fake.session(0).await;
    up(&next(&mut events).await);
    let mut dropped = 0;
    for id in 0..20 {
        link.transaction(id, change());
    }
    // Far more than the sockets and the queue hold.
    for _ in 0..2000 {
        dropped += u64::from(!link.packet(packet(4000)));
        tokio::task::yield_now().await;
    }
    assert!(dropped > 0);
    assert_eq!(link.counters().get(Count::PacketsOutDropped), dropped);
    let down = next(&mut events).await;
    assert!(matches!(&down, LinkEvent::Down(why) if why.contains("did not answer")), "{down:?}");
    drop(session);
    // It goes on without a word at the next handshake too, then wakes up.
    let silent = fake.accept_silent().await;
    drop(silent);
    let _session = fake.session(0).await;
    loop {
        match next(&mut events).await {
            LinkEvent::Up(_) => break,
            LinkEvent::Down(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_table_queue_costs_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let _session = fake.session(0).await;
    up(&next(&mut events).await);
    // More than the queue holds, in one go: the link's task does not run meanwhile.
    for id in 0..100 {
        link.transaction(id, change());
    }
    let down = next(&mut events).await;
    assert!(matches!(&down, LinkEvent::Down(why) if why.contains("programmed anew")), "{down:?}");
    assert_eq!(link.counters().get(Count::Overflow), 36);
    let _again = fake.session(0).await;
    up(&next(&mut events).await);
}

#[tokio::test]
async fn a_slow_node_loses_packets_but_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (link, mut events) = spawn(config(&fake));
    let (mut table, mut packets) = fake.session(0).await;
    up(&next(&mut events).await);
    for _ in 0..200 {
        packets.write(&packet(10)).await;
    }
    while link.counters().get(Count::PacketsIn) < 200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    link.transaction(1, change());
    let call: Call = table.read().await;
    table.reply(&call, Response::Committed { id: 1, generation: 1 }).await;
    let mut taken = 0;
    loop {
        match next(&mut events).await {
            LinkEvent::Packet(_) => taken += 1,
            LinkEvent::Committed { id: 1, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, 48);
    assert_eq!(link.counters().get(Count::PacketsInDropped), 152);
}

#[tokio::test]
async fn garbage_costs_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::listen(dir.path());
    let (_link, mut events) = spawn(config(&fake));
    for (at, bytes) in [&[0xff; 8][..], &[1, 0, 0, 0, 0xff], &[2, 0, 0, 0, 9, 0]].into_iter().enumerate() {
        let (mut table, mut packets) = fake.session(0).await;
        up(&next(&mut events).await);
        if at == 1 {
            packets.garbage(bytes).await;
        } else {
            table.garbage(bytes).await;
        }
        let down = next(&mut events).await;
        assert!(matches!(down, LinkEvent::Down(_)), "{down:?}");
    }
}
