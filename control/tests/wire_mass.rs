//! Many join at once: what it costs in messages, bytes and rows. Times are printed, never asserted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod wire_support;

use std::time::Duration;

use serde_json::json;
use sluice_control::conference::ParticipantId;
use wire_support::{CONV, World, config, message};

/// Every client agrees to everyone whenever a new list came.
fn answer_lists(world: &mut World, ids: &[(ParticipantId, String)], seen: &mut [usize]) {
    for (at, (id, user)) in ids.iter().enumerate() {
        let lists = world.peers[id].inbox.iter().filter(|text| text.contains("CONFPART")).count();
        if lists > seen[at] {
            seen[at] = lists;
            world.agree(*id, user);
        }
    }
}

fn ping(world: &mut World, ids: &[(ParticipantId, String)]) {
    for (id, user) in ids {
        world.say(*id, &message("PING", user, false, &json!({})));
    }
}

fn mass(conferences: usize, size: usize, between: Duration) -> World {
    let mut config = config();
    config.limits.allocations_per_source = 10_000;
    config.limits.conference.settle = Duration::from_millis(5);
    let mut world = World::new(config);
    let mut ids = Vec::new();
    let mut seen = vec![0; conferences * size];
    for at in 0..conferences * size {
        let user = format!("{at:032x}");
        let conv = if conferences == 1 { CONV.to_owned() } else { format!("{:032x}", at % conferences) };
        let id = world.join(&conv, &user, false);
        ids.push((id, user));
        world.pass(between);
        answer_lists(&mut world, &ids, &mut seen);
        if (at + 1) % 250 == 0 {
            ping(&mut world, &ids);
        }
    }
    for _ in 0..4 {
        world.pass(Duration::from_millis(600));
        ping(&mut world, &ids);
        answer_lists(&mut world, &ids, &mut seen);
    }
    world.pass(Duration::from_millis(5));
    let counters = world.wire.counters().clone();
    let joins = (conferences * size) as u64;
    println!(
        "{conferences} x {size}: {} lists, {} bytes of lists a join, {} transactions, {} changes, {:?} a join, {:?} of it for requests",
        counters.lists,
        counters.list_bytes / joins,
        world.transactions,
        world.changes,
        world.spent / joins as u32,
        world.spent_on_requests / joins as u32,
    );
    for conference in world.wire.conferences() {
        assert_eq!(conference.participants, size);
    }
    for leg in world.table().legs.values() {
        assert_eq!(leg.hears.as_ref().unwrap().len(), size - 1);
    }
    world
}

#[test]
fn three_hundred_in_one() {
    let world = mass(1, 300, Duration::from_millis(10));
    let counters = world.wire.counters();
    // Three seconds of joins at 50 to 848 ms between broadcasts, and each newcomer's own list.
    let most = 300 + 300 * 8;
    assert!(counters.lists <= most, "{} lists; expected at most {most}", counters.lists);
    assert!(counters.list_bytes / counters.lists < 300 * 200, "an entry grew");
    // Rows of a leg: itself, audio in, two rules with their repairs, a source, five slots; and five sources in all.
    assert_eq!(world.table().len(), 300 * 12 + 5 + 1);
}

#[test]
fn a_hundred_of_ten() {
    let world = mass(100, 10, Duration::from_millis(20));
    let counters = world.wire.counters();
    assert!(counters.lists <= 100 * (10 + 45), "{} lists", counters.lists);
}
