//! kill -9 and SIGSTOP of either process, and clients that move, while a call runs.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use support::client::{Client, call, confconn};
use support::{Lab, wait};

#[test]
fn calls_outlive_control_and_come_back_to_a_new_one() {
    let mut lab = Lab::start("orphan_timeout = 8");
    let old = call(&lab);
    lab.control.kill();
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(5) {
        for client in &old {
            client.hears_on(10);
        }
    }
    lab.restart_control();
    lab.wait_ready();
    let restarted = Instant::now();
    // The old legs still carry media beside the new control.
    for client in &old {
        client.hears_on(50);
    }
    assert_eq!(lab.snapshot().legs.len(), 2, "the old legs stay for a while");
    let new = ["alice", "bob"].map(|user| Client::join(&lab, user, true));
    for client in &new {
        client.wait("the list of the new control", |inner| inner.listed.len() == 2);
        client.hears_on(20);
    }
    println!("back after {:?}", restarted.elapsed());
    wait("the old legs to go", || lab.snapshot().legs.len() == 2);
    println!("old legs gone after {:?}", restarted.elapsed());
    for client in &new {
        client.hears_on(50);
        client.assert_unharmed();
    }
    // Nobody hears an old leg any more, and every leg is a new one.
    let heard = old.each_ref().map(Client::heard);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(heard, old.each_ref().map(Client::heard));
    for client in &old {
        let inner = client.inner();
        let ear = inner.ear.as_ref().unwrap();
        assert_eq!((ear.unopened, ear.twice), (0, 0));
    }
    lab.assert_alive();
}

#[test]
fn a_new_forwarder_goes_on_with_the_same_keys() {
    let mut lab = Lab::start("");
    let clients = call(&lab);
    for kill in 0..3 {
        lab.forwarder.kill();
        let refused = lab.post(&confconn("other", "dave", false));
        // Either the link did not notice yet, or it says so.
        assert!(refused.status == 200 || refused.status == 503 && refused.body.contains("ask again"), "{refused:?}");
        wait("a refusal that says why", || lab.post(&confconn("other", "dave", false)).status == 503);
        lab.restart_forwarder();
        let start = Instant::now();
        for client in &clients {
            client.hears_on(25);
            client.assert_unharmed();
        }
        println!("kill {kill}: 25 packets each after {:?}", start.elapsed());
    }
    lab.wait_ready();
    let late = Client::join(&lab, "carol", false);
    late.wait("a place in the list", |inner| inner.listed.len() == 3);
    late.hears_on(10);
    lab.assert_alive();
}

#[test]
fn a_new_forwarder_knows_layers_that_name_themselves_no_more() {
    let mut lab = Lab::start("");
    let [alice, bob] = call(&lab);
    alice.film();
    bob.watch("alice", 2);
    bob.sees_on(1, 20);
    alice.inner().camera.as_mut().unwrap().announces = false;
    // A forwarder that began at rollover 0 would open nothing.
    alice.wait("sequence numbers that begin anew", |inner| inner.camera.as_ref().unwrap().rollovers() == [1, 1]);
    bob.sees_on(1, 20);
    for kill in 0..3 {
        lab.forwarder.kill();
        lab.restart_forwarder();
        let start = Instant::now();
        for client in [&alice, &bob] {
            client.hears_on(25);
        }
        bob.sees_on(1, 25);
        bob.watch("alice", 1);
        bob.sees_on(0, 25);
        bob.watch("alice", 2);
        bob.sees_on(1, 25);
        for client in [&alice, &bob] {
            client.assert_unharmed();
        }
        println!("kill {kill}: both layers again after {:?}", start.elapsed());
    }
    // Another encoder under other SSRCs: the rules follow it.
    alice.film();
    bob.sees_on(1, 50);
    for client in [&alice, &bob] {
        client.assert_unharmed();
    }
    lab.assert_alive();
}

#[test]
fn a_stopped_forwarder_does_not_stop_control() {
    let mut lab = Lab::start("");
    let clients = call(&lab);
    lab.forwarder.signal(libc::SIGSTOP);
    // The link gives it 2 s; until then offers are made, then the refusal says why.
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut statuses = Vec::new();
    while start.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        statuses.push(lab.post(&confconn("meanwhile", "dave", false)).status);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.forwarder.signal(libc::SIGCONT);
    statuses.dedup();
    println!("answers {statuses:?}, the slowest after {slowest:?}");
    assert_eq!(statuses, [200, 503], "offers until it is noticed, then a reason");
    for client in &clients {
        client.hears_on(50);
        client.assert_unharmed();
    }
    lab.wait_ready();
    let late = Client::join(&lab, "carol", false);
    late.wait("a place in the list", |inner| inner.listed.len() == 3);
    late.hears_on(10);
    lab.assert_alive();
}

#[test]
fn a_stopped_control_does_not_stop_media() {
    let mut lab = Lab::start("");
    let clients = call(&lab);
    lab.control.signal(libc::SIGSTOP);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        for client in &clients {
            client.hears_on(10);
        }
    }
    lab.control.signal(libc::SIGCONT);
    for client in &clients {
        let pongs = client.inner().pongs;
        client.wait("an answer to a PING", |inner| inner.pongs > pongs);
        client.hears_on(50);
        client.assert_unharmed();
    }
    lab.wait_ready();
    lab.assert_alive();
}

#[test]
fn a_client_whose_port_changes_keeps_its_call() {
    let mut lab = Lab::start("");
    let clients = call(&lab);
    for n in 0..4 {
        let start = Instant::now();
        clients[n % 2].move_away();
        for client in &clients {
            client.hears_on(5);
        }
        println!("move {n}: both hear again after {:?}", start.elapsed());
        for client in &clients {
            client.hears_on(50);
            client.assert_unharmed();
            let pongs = client.inner().pongs;
            client.wait("an answer to a PING", |inner| inner.pongs > pongs);
        }
        assert_eq!(lab.snapshot().legs.len(), 2);
    }
    lab.assert_alive();
}
