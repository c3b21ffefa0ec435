//! Calls of scripted clients, from CONFCONN to HANGUP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod wire_support;

use std::time::Duration;

use serde_json::json;
use sluice_control::dialect::wire::{Event, Reason};
use sluice_table::{EntryKind, KeyFrameRequest, Name};
use wire_support::{CONV, World, answer_to, config, message, propsync, response};

const ALICE: &str = "dc15687bd1c356eb0ea2a7dd2c2b6ccd";
const BOB: &str = "b0b5687bd1c356eb0ea2a7dd2c2b6ccd";
const CAROL: &str = "ca05687bd1c356eb0ea2a7dd2c2b6ccd";

#[test]
fn two_hold_a_call() {
    let mut world = World::new(config());
    let offer = world.offer(CONV, ALICE, false);
    assert_eq!(offer["url"], "https://sft.example");
    assert_eq!(offer["props"]["videosend"], "true");
    let sdp = offer["sdp"].as_str().unwrap();
    assert!(sdp.contains("a=tool:sftd 5.") && sdp.contains("a=simulcast:recv l;h"), "{sdp}");
    assert!(world.is_clean(), "an allocation has rows");

    let alice = world.last.unwrap();
    let reply = world.post(&response(CONV, ALICE, &answer_to(sdp, 404_135_497), false));
    assert_eq!(reply.json()["type"], "CONFCONN");
    assert_eq!((reply.status_field(), &reply.json()["resp"]), (0, &json!(true)));
    assert!(world.is_clean(), "an answer alone has rows");
    world.connect(alice);
    assert_eq!(world.table().legs.len(), 1);
    world.event(Event::ChannelOpen { participant: alice });
    let list = world.list(alice);
    assert_eq!((&list["should_start"], &list["sessid"], &list["resp"]), (&json!(true), &json!(""), &json!(false)));
    assert_eq!(list["sfts"], json!(["https://sft.example"]));
    assert_eq!(list["timestamp"], wire_support::WALL.to_string());
    assert_eq!(list["participants"][0]["ssrc_audio"], "404135497");
    world.agree(alice, ALICE);
    world.say(alice, &propsync(ALICE, true));

    world.pass(Duration::from_secs(4));
    let bob = world.join(CONV, BOB, false);
    assert_eq!(world.listed(bob), [ALICE, BOB]);
    assert_eq!(world.list(bob)["should_start"], false);
    assert_eq!(world.list(bob)["participants"][0]["muted"], true);
    assert_eq!(world.listed(alice), [ALICE], "alice was told before the broadcast was due");
    world.pass(Duration::from_millis(50));
    assert_eq!(world.listed(alice), [ALICE, BOB]);
    assert_eq!(world.list(alice), world.list(bob), "two texts for one list");

    world.watch(bob, &[(ALICE, 2)]);
    assert!(world.table().egress.keys().all(|name| !name.as_str().contains("/to/v")));
    world.agree(bob, BOB);
    assert!(world.peer(bob).of("PROPSYNC").is_empty(), "only one of them agreed");
    world.agree(alice, ALICE);
    let props = world.peer(bob).of("PROPSYNC");
    assert_eq!((props.len(), &props[0]["src_userid"], &props[0]["resp"]), (1, &json!(ALICE), &json!(true)));
    assert_eq!(props[0]["props"]["muted"], "true");

    let table = world.table();
    let (one, two) = (&table.legs[&name("c1/p1")], &table.legs[&name("c1/p2")]);
    assert!(one.hears.as_ref().unwrap().contains(two.member.unwrap()));
    assert!(two.hears.as_ref().unwrap().contains(one.member.unwrap()));
    assert_eq!(one.feedback.key_frame, Some(KeyFrameRequest::Pli));
    assert!(one.feedback.transport_cc && one.feedback.reports);
    assert_eq!((one.extensions.audio_level, one.extensions.rid), (Some(1), Some(4)));
    let egress = &table.egress[&name("c1/p2/to/v0")];
    assert_eq!((egress.source.as_str(), egress.layer, egress.csrc), ("c1/p1/v", None, true));
    assert!(egress.rtx.is_some() && egress.history > 0);
    let picture: u32 = world.list(bob)["participants"][0]["ssrc_video"].as_str().unwrap().parse().unwrap();
    let table = world.table();
    for layer in ["c1/p1/v0", "c1/p1/v1"] {
        assert_eq!(table.learn[&name(layer)].role.announced.map(|ssrc| ssrc.0), Some(picture));
    }
    assert_eq!(table.learn[&name("c1/p1/v0")].rid.as_deref(), Some("l"));
    assert_eq!(table.sources[&name("c1/p1/v")].layers, [name("c1/p1/v0"), name("c1/p1/v1")]);
    assert_eq!(table.ingress[&name("c1/p1/a")].role.candidate, Some(name("c1/a")));
    assert_eq!(table.sources.values().filter(|source| source.select == Some(name("c1/a"))).count(), 5);
    assert_eq!(table.egress.keys().filter(|name| name.as_str().contains("/to/a")).count(), 10);

    world.watch(bob, &[(ALICE, 1)]);
    assert_eq!(world.table().egress[&name("c1/p2/to/v0")].layer, Some(0));
    world.say(alice, &message("PING", ALICE, false, &json!({})));
    let ping = world.peer(alice).of("PING").pop().unwrap();
    assert_eq!((&ping["resp"], &ping["sessid"]), (&json!(true), &json!(CONV)));

    world.say(alice, &message("HANGUP", ALICE, false, &json!({})));
    assert!(world.peers[&alice].closed);
    assert_eq!(world.peers[&alice].of("HANGUP").len(), 1);
    assert!(world.table().egress.keys().all(|name| !name.as_str().contains("/to/v")));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.listed(bob), [BOB]);
    assert_eq!(world.list(bob)["should_start"], false);
    world.event(Event::Closed { participant: bob, reason: "peer" });
    assert!(world.is_clean());
    assert_eq!(world.wire.next_deadline(), None);
    assert_eq!(world.wire.counters().get(Reason::Hangup), 1);
}

#[test]
fn who_comes_late_learns_everything() {
    let mut world = World::new(config());
    let alice = world.join(CONV, ALICE, false);
    let bob = world.join(CONV, BOB, false);
    world.watch(alice, &[(CAROL, 2), (BOB, 1)]);
    world.say(bob, &propsync(BOB, false));
    world.pass(Duration::from_secs(2));
    for (id, user) in [(alice, ALICE), (bob, BOB)] {
        world.agree(id, user);
    }
    let carol = world.join(CONV, CAROL, false);
    world.pass(Duration::from_secs(2));
    assert!(!world.table().egress.contains_key(&name("c1/p1/to/v0")), "nobody agreed to carol");
    for (id, user) in [(alice, ALICE), (bob, BOB), (carol, CAROL)] {
        world.agree(id, user);
    }
    assert_eq!(world.table().egress[&name("c1/p1/to/v0")].source, name("c1/p3/v"));
    assert_eq!(world.table().egress[&name("c1/p1/to/v1")].source, name("c1/p2/v"));
    let from: Vec<_> = world.peer(carol).of("PROPSYNC").iter().map(|m| m["src_userid"].clone()).collect();
    assert_eq!(from, [json!(BOB)]);
    // What is known already is not told again; what changed is told to everyone.
    world.say(bob, &propsync(BOB, false));
    world.say(bob, &propsync(BOB, true));
    assert_eq!(world.peer(carol).of("PROPSYNC").len(), 2);
    assert_eq!(world.peer(bob).of("PROPSYNC").len(), 0);
    // Agreement can be taken back.
    let nobody = json!({"sessid": "", "participants": []});
    world.say(carol, &message("CONFPART", CAROL, true, &nobody));
    assert!(!world.table().egress.contains_key(&name("c1/p1/to/v0")));
    assert!(world.table().legs[&name("c1/p3")].hears.as_ref().unwrap().is_empty());
}

#[test]
fn a_list_entry_with_another_ssrc_is_no_agreement() {
    let mut world = World::new(config());
    let alice = world.join(CONV, ALICE, false);
    let bob = world.join(CONV, BOB, false);
    world.pass(Duration::from_secs(1));
    world.agree(alice, ALICE);
    let mut entry = world.list(bob)["participants"][0].clone();
    entry["authorized"] = json!(true);
    entry["ssrc_audio"] = json!("77");
    world.say(bob, &message("CONFPART", BOB, true, &json!({"participants": [entry]})));
    assert!(world.table().legs.values().all(|leg| leg.hears.as_ref().unwrap().is_empty()));
    world.agree(bob, BOB);
    assert!(world.table().legs.values().all(|leg| leg.hears.as_ref().unwrap().len() == 1));
}

#[test]
fn who_comes_back_keeps_its_old_leg_until_the_new_one_carries() {
    let mut world = World::new(config());
    let alice = world.join(CONV, ALICE, false);
    let bob = world.join(CONV, BOB, false);
    world.say(alice, &propsync(ALICE, false));
    world.watch(alice, &[(BOB, 2)]);
    world.watch(bob, &[(ALICE, 2)]);
    world.pass(Duration::from_secs(1));
    world.agree(alice, ALICE);
    world.agree(bob, BOB);

    let again = world.answer(CONV, ALICE, true);
    world.connect(again);
    assert!(!world.peers[&alice].closed);
    assert_eq!(world.table().legs.len(), 3);
    assert_eq!(world.table().egress[&name("c1/p2/to/v0")].source, name("c1/p1/v"));
    world.event(Event::ChannelOpen { participant: again });
    assert!(world.peers[&alice].closed);
    assert_eq!(world.listed(again), [BOB, ALICE], "who comes back goes to the end");
    assert_eq!(world.list(again)["should_start"], false);
    world.pass(Duration::from_secs(1));
    world.agree(again, ALICE);
    world.agree(bob, BOB);
    assert_eq!(world.table().egress[&name("c1/p2/to/v0")].source, name("c1/p3/v"));
    assert_eq!(world.table().egress[&name("c1/p3/to/v0")].source, name("c1/p2/v"), "what it wanted was forgotten");
    assert_eq!(world.peer(bob).of("PROPSYNC").len(), 2);
    assert_eq!(world.wire.counters().get(Reason::Replaced), 1);

    // update=false for a call that exists does the same.
    let third = world.join(CONV, ALICE, false);
    assert!(world.peers[&again].closed);
    assert_eq!(world.listed(third), [BOB, ALICE]);
    // A return that never gets its answer ends alone.
    world.offer(CONV, ALICE, true);
    for _ in 0..3 {
        for (id, user) in [(third, ALICE), (bob, BOB)] {
            world.say(id, &message("PING", user, false, &json!({})));
        }
        world.pass(Duration::from_secs(5));
    }
    assert_eq!(world.wire.counters().get(Reason::SetupTimeout), 1);
    assert!(!world.peers[&third].closed && !world.peers[&bob].closed);
}

#[test]
fn what_is_abandoned_goes() {
    let mut world = World::new(config());
    world.offer(CONV, ALICE, false);
    let offered = world.last.unwrap();
    world.pass(Duration::from_millis(9_999));
    assert!(!world.peers[&offered].closed);
    world.pass(Duration::from_millis(1));
    assert!(world.peers[&offered].closed);

    let answered = world.answer(CONV, ALICE, false);
    world.pass(Duration::from_secs(15));
    assert!(world.peers[&answered].closed);
    assert_eq!(world.wire.counters().get(Reason::ConnectTimeout), 1);

    let open = world.join(CONV, ALICE, false);
    for _ in 0..10 {
        world.pass(Duration::from_secs(19));
        world.say(open, &message("PING", ALICE, false, &json!({})));
    }
    assert!(!world.peers[&open].closed);
    world.pass(Duration::from_secs(20));
    assert!(world.peers[&open].closed);
    assert_eq!(world.wire.counters().get(Reason::PingTimeout), 1);
    assert!(world.is_clean() && world.wire.conferences().is_empty());
    assert_eq!(world.wire.next_deadline(), None);
    assert_eq!(world.wire.allocations(), 0);
}

#[test]
fn an_address_belongs_to_one_leg() {
    let mut world = World::new(config());
    let alice = world.join(CONV, ALICE, false);
    let bob = world.join("0123", BOB, false);
    let here = |port| std::net::SocketAddr::from(([203, 0, 113, 9], port));
    world.move_to(alice, &[here(1_000), here(1_001), here(1_000)]);
    assert_eq!(world.table().legs[&name("c1/p1")].ice.as_ref().unwrap().tuples, [here(1_000), here(1_001)]);
    world.move_to(bob, &[here(1_000)]);
    assert_eq!(world.table().legs[&name("c1/p1")].ice.as_ref().unwrap().tuples, [here(1_001)]);
    world.move_to(bob, &[here(1_001)]);
    assert!(world.peers[&alice].closed);
    assert_eq!(world.wire.counters().get(Reason::TupleTaken), 1);
    let carol = world.answer(CONV, CAROL, false);
    world.connect_at(carol, here(1_000));
    assert!(!world.peers[&bob].closed);
}

#[test]
fn a_forwarder_that_forgot_is_told_again() {
    let mut world = World::new(config());
    for (conv, user) in [(CONV, ALICE), (CONV, BOB), ("0123", CAROL)] {
        world.join(conv, user, false);
    }
    world.pass(Duration::from_secs(1));
    let before = world.table().clone();
    world.store = sluice_table::Store::new();
    world.store.apply(&[wire_support::endpoint()]).unwrap();
    world.event(Event::Reprogram { present: Vec::new(), only: None });
    assert_eq!(*world.table(), before);
    // Rows of our conferences that should not be there go; rows of others, an earlier process's among them, stay.
    let extra = before.legs[&name("c1/p1")].clone();
    let extra = |at: &str| {
        let mut leg = extra.clone();
        leg.outbound = None;
        leg.ice = None;
        leg.feedback = sluice_table::Feedback::default();
        leg.remote = sluice_table::Remote::Learn;
        sluice_table::Change::Put(name(at), sluice_table::Entry::Leg(leg))
    };
    world.store.apply(&[extra("c1/p99"), extra("c77/p1"), extra("static")]).unwrap();
    let present = world.rows();
    world.event(Event::Reprogram { present, only: None });
    let legs = [name("c1/p1"), name("c1/p2"), name("c2/p3"), name("c77/p1"), name("static")];
    assert_eq!(world.table().legs.keys().cloned().collect::<Vec<_>>(), legs);
    world.event(Event::Reprogram { present: vec![(EntryKind::Endpoint, name("public"))], only: None });
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}
