//! What connected transports hold on to. Alone in its process, because it reads the allocator's own figures.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "transport/link.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod link;

use sluice_control::transport::{Setup, Transport};

use link::{World, client, server};

fn allocated() -> usize {
    // SAFETY: reads figures of the allocator, no argument.
    unsafe { libc::mallinfo2() }.uordblks
}

#[test]
fn a_connected_transport_with_a_channel_stays_small() {
    const PAIRS: usize = 50;
    let warm = connected(0);
    let before = allocated();
    let fresh: Vec<World> = (0..PAIRS as u64).map(|seed| World::new(seed, server(), client())).collect();
    let new = (allocated() - before) / (2 * PAIRS);
    drop(fresh);
    let before = allocated();
    let worlds: Vec<World> = (1..=PAIRS as u64).map(connected).collect();
    let each = (allocated() - before) / (2 * PAIRS);
    println!("size_of {}, heap new {new}, heap connected {each} bytes", size_of::<Transport>());
    assert!(size_of::<Transport>() + each < 40 << 10, "{each} bytes");
    assert!(size_of::<Transport>() + new < 8 << 10, "{new} bytes");
    drop((warm, worlds));
}

fn connected(seed: u64) -> World {
    let mut world = World::new(seed, server(), client());
    world.introduce(Setup::Active, true);
    world.client.transport.open_channel("calling-3.0").unwrap();
    world.connect();
    assert!(world.run(10_000, |world| !world.client.channels.is_empty()));
    world.run(10_000, |_| false);
    world.log = Vec::new();
    world.in_flight = Vec::new();
    world
}
