//! What clients are refused, and that nothing they send breaks anything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod wire_support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_control::conference::ParticipantId;
use sluice_control::dialect::wire::{Event, Pools, Reason, token};
use wire_support::{CONV, Reply, Seeded, World, answer_to, confconn, config, message, propsync, response};

const USER: &str = "dc15687bd1c356eb0ea2a7dd2c2b6ccd";
const OTHER: &str = "b0b5687bd1c356eb0ea2a7dd2c2b6ccd";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn get(world: &mut World, path: &str) -> Reply {
    world.request("GET", path, b"", CLIENT)
}

#[test]
fn paths_and_methods() {
    let mut world = World::new(config());
    for path in ["/sft/status", "/a/b/sft/status", "/x/status/"] {
        assert_eq!(get(&mut world, path).body, "Debug\n", "{path}");
    }
    assert_eq!(get(&mut world, "/sft/url").body, "https://sft.example\r\n");
    assert_eq!(get(&mut world, "/sft_servers_all.json").json(), json!({"sft_servers_all": ["https://sft.example"]}));
    for path in ["", "/", "/sft", "/sft/", "sft", "/status", "/xyz/abc", "/sft/a/b", "/sft/a b", "/sft/\u{e9}"] {
        assert_eq!(get(&mut world, path).status, 404, "{path}");
    }
    for (method, path) in [("GET", "/sft/abc"), ("DELETE", "/sft/abc"), ("POST", "/sft_servers_all.json")] {
        assert_eq!(world.request(method, path, b"", CLIENT).status, 405, "{method} {path}");
    }
    let body = confconn(CONV, USER, false).to_string();
    for prefix in ["", "/sfts/sft-0", "/a/b/c"] {
        let path = format!("{prefix}/sft/{CONV}");
        assert_eq!(world.request("POST", &path, body.as_bytes(), CLIENT).status, 200, "{path}");
    }
    assert_eq!(world.wire.counters().get(Reason::NotFound), 10);
}

#[test]
fn garbage_is_told_what_is_wrong_with_it() {
    let mut config = config();
    config.limits.description.bytes = 32_000;
    let mut world = World::new(config);
    let open = world.join(CONV, OTHER, false);
    let mut bad = |body: &str, reason: Reason, says: &str| {
        let before = world.wire.counters().get(reason);
        let reply = world.request("POST", &format!("/sft/{CONV}"), body.as_bytes(), CLIENT);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.body.contains(says), "{}", reply.body);
        assert_eq!(world.wire.counters().get(reason), before + 1, "{body}");
    };
    bad("", Reason::Malformed, "not a message");
    bad("{\"version\":\"3.0\"}", Reason::Malformed, "type");
    bad(&confconn(CONV, USER, false).to_string().replace("3.0", "2.0"), Reason::Malformed, "3.0");
    bad(&confconn("other", USER, false).to_string(), Reason::Session, "sessid");
    bad(&confconn(CONV, "", false).to_string(), Reason::Malformed, "src_userid");
    bad(&confconn(CONV, &"x".repeat(128), false).to_string(), Reason::Malformed, "src_userid");
    bad(&message("CONFPART", USER, true, &json!({})).to_string(), Reason::Unexpected, "CONFCONN");
    bad(&message("SETUP", USER, false, &json!({"sdp": ""})).to_string(), Reason::Unexpected, "answer");
    bad(&response(CONV, USER, "v=0\r\n", false).to_string(), Reason::NoOffer, "CONFCONN");
    bad(&response(CONV, OTHER, "v=0\r\n", false).to_string(), Reason::NoOffer, "CONFCONN");

    let offer = world.offer(CONV, USER, false);
    let offered = world.last.unwrap();
    let good = answer_to(offer["sdp"].as_str().unwrap(), 5);
    let mut bad = |body: &Value| {
        let reply = world.post(body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.body.contains("sdp"), "{}", reply.body);
    };
    bad(&message("SETUP", USER, true, &json!({})));
    bad(&response(CONV, USER, "", false));
    bad(&response(CONV, USER, "garbage", false));
    bad(&response(CONV, USER, &good[..good.len() / 8], false));
    bad(&response(CONV, USER, &good.replace("ice-ufrag:peer", "ice-ufrag:p e"), false));
    bad(&response(CONV, USER, &good.replace("extmap:2 ", "extmap:1 "), false));
    let long = format!("{good}a=x:{}\r\n", "y".repeat(32_000));
    let reply = world.post(&response(CONV, USER, &long, false));
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("at most 32000 are taken"), "{}", reply.body);
    assert_eq!(world.wire.counters().get(Reason::AnswerSize), 1);
    // The call is as good as before, and an answer said twice is taken once.
    for _ in 0..2 {
        assert_eq!(world.post(&response(CONV, USER, &good, false)).status_field(), 0);
    }
    world.connect(offered);
    world.event(Event::ChannelOpen { participant: offered });
    assert!(!world.peers[&open].closed);
    assert_eq!(world.listed(offered), [OTHER, USER]);
}

#[test]
fn tokens() {
    let secret = token::Secret::new(b"a secret of some length").unwrap();
    let mut config = config();
    config.tokens = Some(secret.clone());
    let mut world = World::new(config);
    let now = wire_support::WALL / 1_000;
    let ask = |world: &mut World, conv: &str, user: &str, expires: u64, may_start: bool, forged: bool| {
        let (username, credential) = token::mint(&secret, expires, may_start, &mut Seeded(1));
        let mut body = confconn(conv, user, false);
        body["username"] = json!(username);
        body["credential"] = json!(if forged { credential.to_lowercase() } else { credential });
        let reply = world.post(&body).json();
        if reply["type"] == "SETUP" { 0 } else { reply["status"].as_u64().unwrap() }
    };
    assert_eq!(world.post(&confconn(CONV, USER, false)).status_field(), 2);
    assert_eq!(ask(&mut world, CONV, USER, now + 60, true, true), 2);
    assert_eq!(ask(&mut world, CONV, USER, now - 1, true, false), 3);
    assert_eq!(ask(&mut world, CONV, USER, now + 60, false, false), 5);
    assert_eq!(ask(&mut world, CONV, USER, now + 60, true, false), 0);
    // Who joins needs a valid one as well, but not one that may start.
    assert_eq!(world.post(&confconn(CONV, OTHER, false)).status_field(), 2);
    assert_eq!(ask(&mut world, CONV, OTHER, now - 1, false, false), 3);
    assert_eq!(ask(&mut world, CONV, OTHER, now + 60, false, false), 0);
    // A call outlives its token.
    let id = world.last.unwrap();
    assert_eq!(ask(&mut world, CONV, OTHER, now - 1, false, false), 0);
    assert!(world.peers[&id].closed);
    let counters = world.wire.counters();
    assert_eq!(counters.get(Reason::TokenInvalid), 3);
    assert_eq!((counters.get(Reason::TokenExpired), counters.get(Reason::TokenCannotStart)), (2, 1));
}

/// A new process knows no conference. Who says it comes back is let in for a while, as the old process would have.
#[test]
fn clients_come_back_to_a_new_process_with_the_tokens_they_have() {
    let secret = token::Secret::new(b"a secret of some length").unwrap();
    let mut config = config();
    config.tokens = Some(secret.clone());
    let mut world = World::new(config);
    world.wire.set_resumes(world.now + Duration::from_mins(1));
    let now = wire_support::WALL / 1_000;
    let ask = |world: &mut World, conv: &str, expires: u64, update: bool, forged: bool| {
        let (username, credential) = token::mint(&secret, expires, false, &mut Seeded(1));
        let mut body = confconn(conv, USER, update);
        body["username"] = json!(username);
        body["credential"] = json!(if forged { credential.to_lowercase() } else { credential });
        let reply = world.post(&body).json();
        if reply["type"] == "SETUP" || reply["type"] == "UPDATE" { 0 } else { reply["status"].as_u64().unwrap() }
    };
    assert_eq!(ask(&mut world, "first", now + 600, false, false), 5, "it does not come back, it starts");
    assert_eq!(ask(&mut world, "first", now + 600, true, true), 2, "a forged token is one still");
    assert_eq!(ask(&mut world, "first", now + 600, true, false), 0);
    assert_eq!(ask(&mut world, "second", now - 1, true, false), 0, "a call outlives its token");
    assert_eq!(world.wire.counters().resumed, 2);
    world.pass(Duration::from_secs(61));
    assert_eq!(ask(&mut world, "third", now + 600, true, false), 5);
    assert_eq!(ask(&mut world, "third", now - 1, true, false), 3);
}

#[test]
fn nobody_comes_in_beyond_what_the_forwarder_has_room_for() {
    let mut world = World::new(config());
    let pools = |egress: u64| Pools { legs: 100, ingress: 100, learned: 100, egress, lists: 100 };
    // Five audio and nine video slots each.
    world.wire.set_capacity(pools(2 * 14 + 13));
    let one = world.join(CONV, USER, false);
    world.join(CONV, OTHER, false);
    assert_eq!(world.post(&confconn(CONV, "third", false)).status_field(), 4);
    assert_eq!(world.wire.counters().get(Reason::ForwarderFull), 1);
    // Who is in may come back: its old call makes way.
    let again = world.join(CONV, USER, true);
    assert!(world.peers[&one].closed && !world.peers[&again].closed);
    // Whoever leaves makes room, and offers take none: two may get one, one of them gets in.
    world.event(Event::Kick { participant: again });
    let offers = ["third", "fourth"].map(|user| (user, world.offer(CONV, user, false)));
    let [third, fourth] = offers.map(|(user, offer)| {
        let answer = answer_to(offer["sdp"].as_str().unwrap(), 9);
        world.post(&response(CONV, user, &answer, false)).status_field()
    });
    assert_eq!((third, fourth), (0, 4));
    assert_eq!(world.wire.counters().get(Reason::ForwarderFull), 2);
    world.pass(Duration::from_mins(1));
    assert!(world.is_clean());
    // The layers of one picture and what repairs them: a rule each.
    world.wire.set_capacity(Pools { learned: 3, ..pools(100) });
    assert_eq!(world.post(&confconn(CONV, USER, false)).status_field(), 4);
}

#[test]
fn old_clients_and_full_conferences() {
    let mut config = config();
    config.blacklist = "<6.2.9".parse().unwrap();
    config.limits.conference.participants = 2;
    let mut world = World::new(config);
    let mut old = confconn(CONV, USER, false);
    old["toolver"] = json!("6.2.8");
    assert_eq!(world.post(&old).status_field(), 1);
    let mut seven = confconn(CONV, USER, false);
    seven["toolver"] = json!("7.0.1");
    seven["vstreams"] = json!("40");
    let offer = world.post(&seven).json();
    let sdp = offer["sdp"].as_str().unwrap();
    assert!(!sdp.contains("a=simulcast"));
    assert_eq!(sdp.lines().filter(|line| line.starts_with("m=")).count(), 3 + 5 + 32);

    let first = world.join(CONV, USER, false);
    world.join(CONV, OTHER, false);
    assert_eq!(world.post(&confconn(CONV, "third", false)).status_field(), 4);
    assert_eq!(world.wire.counters().get(Reason::ConferenceFull), 1);
    // Who is in may come back.
    let again = world.answer(CONV, USER, true);
    assert!(world.peers[&first].closed && !world.peers[&again].closed);
}

#[test]
fn draining() {
    let mut config = config();
    config.redirect = Some("https://other.example/".to_owned());
    let mut world = World::new(config);
    let id = world.join(CONV, USER, false);
    world.event(Event::Drain);
    assert_eq!(world.drained, 0);
    for (conv, user) in [(CONV, OTHER), ("0123", USER)] {
        let reply = world.post(&confconn(conv, user, false));
        assert_eq!(reply.status, 303);
        assert_eq!(reply.location, Some(format!("https://other.example/sft/{conv}")));
    }
    let again = world.join(CONV, USER, true);
    assert!(world.peers[&id].closed);
    assert_eq!(world.drained, 0);
    world.event(Event::Kick { participant: again });
    assert_eq!(world.drained, 1);
    world.event(Event::Tick);
    assert_eq!(world.drained, 1);
    assert!(world.is_clean() && world.wire.is_draining());
}

#[test]
fn allocations_are_bounded_and_the_oldest_goes() {
    let mut config = config();
    config.limits.allocations = 200;
    let mut world = World::new(config);
    let ask = |world: &mut World, net: u8, user: usize| {
        let body = confconn(CONV, &format!("u{user}"), false).to_string();
        let client = IpAddr::V4(Ipv4Addr::new(203, 0, net, user as u8));
        assert_eq!(world.request("POST", &format!("/sft/{CONV}"), body.as_bytes(), client).status, 200);
    };
    for user in 0..100 {
        ask(&mut world, 1, user);
    }
    assert_eq!(world.wire.allocations(), 64);
    assert_eq!(world.wire.counters().get(Reason::SourceLimit), 36);
    assert!(world.peers[&ParticipantId(36)].closed && !world.peers[&ParticipantId(37)].closed);
    for user in 100..300 {
        ask(&mut world, (user % 10) as u8 + 2, user);
    }
    assert_eq!(world.wire.allocations(), 200);
    assert_eq!(world.wire.counters().get(Reason::AllocationLimit), 64);
    // 25 a second for a minute, all abandoned.
    for user in 300..1_800 {
        ask(&mut world, (user % 100) as u8 + 20, user);
        world.pass(Duration::from_millis(40));
        assert!(world.wire.allocations() <= 250);
    }
    world.pass(Duration::from_secs(10));
    assert_eq!(world.wire.allocations(), 0);
    assert!(world.is_clean() && world.wire.conferences().is_empty());
}

#[test]
fn channels_are_bounded() {
    let mut world = World::new(config());
    let calm = world.join(CONV, OTHER, false);
    let ping = message("PING", USER, false, &json!({}));
    let flood = world.join(CONV, USER, false);
    for _ in 0..100 {
        world.say(flood, &ping);
    }
    assert!(!world.peers[&flood].closed);
    world.say(flood, &ping);
    assert!(world.peers[&flood].closed);
    let long = world.join(CONV, USER, false);
    let big = message("PROPSYNC", USER, false, &json!({"props": {"x": "y".repeat(5_000)}}));
    world.say(long, &big);
    assert!(!world.peers[&long].closed);
    world.event(Event::Message { participant: long, text: vec![b' '; 70_000] });
    assert!(world.peers[&long].closed && !world.peers[&calm].closed);
    let garbage = [&b"{"[..], b"\xff\xfe", b"[]", b"null", b"{\"version\":\"3.0\"}"];
    for text in garbage {
        world.event(Event::Message { participant: calm, text: text.to_vec() });
    }
    world.say(calm, &message("SETUP", OTHER, false, &json!({})));
    world.say(calm, &message("CONFSTREAMS", OTHER, false, &json!({"mode": "level"})));
    let counters = world.wire.counters();
    let counted = [
        (Reason::MessageRate, 1),
        (Reason::MessageSize, 1),
        (Reason::PropertiesSize, 1),
        (Reason::MessageMalformed, garbage.len() as u64),
        (Reason::MessageUnexpected, 2),
    ];
    for (reason, count) in counted {
        assert_eq!(counters.get(reason), count, "{}", reason.name());
    }
    assert!(!world.peers[&calm].closed);
}

#[test]
fn no_conference_is_so_large_that_messages_have_no_bound() {
    let mut config = config();
    config.limits.message_most = 2_000;
    let mut world = World::new(config);
    let id = world.join(CONV, USER, false);
    let ping = |bytes: usize| {
        let mut text = message("PING", USER, false, &json!({})).to_string();
        text.push_str(&" ".repeat(bytes - text.len()));
        Event::Message { participant: id, text: text.into_bytes() }
    };
    world.event(ping(2_000));
    assert_eq!(world.peer(id).of("PING").len(), 1);
    world.event(ping(2_001));
    assert!(world.peers[&id].closed);
    assert_eq!(world.wire.counters().get(Reason::MessageSize), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Conn {
        conv: usize,
        user: usize,
        update: bool,
    },
    Answer {
        conv: usize,
        user: usize,
    },
    Connect(usize),
    Open(usize),
    Agree(usize),
    Watch(usize, Vec<(usize, u8)>),
    Props(usize, bool),
    Bytes(usize, Vec<u8>),
    Http(String, Vec<u8>),
    /// A valid message with some of its bytes changed.
    Bent(usize, Vec<(usize, u8)>),
    Hangup(usize),
    Kick(usize),
    Closed(usize),
    Move(usize, u16),
    Reprogram,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..8;
    let bends = || prop::collection::vec((0_usize..400, any::<u8>()), 1..4);
    prop_oneof![
        6 => (0_usize..2, 0_usize..4, any::<bool>())
            .prop_map(|(conv, user, update)| Step::Conn { conv, user, update }),
        6 => (0_usize..2, 0_usize..4).prop_map(|(conv, user)| Step::Answer { conv, user }),
        8 => at().prop_map(Step::Connect),
        8 => at().prop_map(Step::Open),
        8 => at().prop_map(Step::Agree),
        4 => (at(), prop::collection::vec((0_usize..5, 0_u8..4), 0..4)).prop_map(|(a, b)| Step::Watch(a, b)),
        2 => (at(), any::<bool>()).prop_map(|(a, b)| Step::Props(a, b)),
        1 => (at(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(a, b)| Step::Bytes(a, b)),
        1 => ("[/a-z]{0,12}", prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(a, b)| Step::Http(a, b)),
        3 => (at(), bends()).prop_map(|(a, b)| Step::Bent(a, b)),
        1 => at().prop_map(Step::Hangup),
        1 => at().prop_map(Step::Kick),
        1 => at().prop_map(Step::Closed),
        1 => (at(), 1_u16..4).prop_map(|(a, b)| Step::Move(a, b)),
        1 => Just(Step::Reprogram),
        3 => (0_u64..6_000).prop_map(Step::Pass),
    ]
}

const CONVS: [&str; 2] = [CONV, "0123456789abcdef"];

struct Script {
    world: World,
    /// Last offers.
    offers: BTreeMap<(usize, usize), String>,
    /// Who each participant is.
    users: Vec<(ParticipantId, usize, usize)>,
}

impl Script {
    fn one(&self, at: usize) -> Option<(ParticipantId, usize, usize)> {
        let live: Vec<_> = self.users.iter().filter(|(id, ..)| !self.world.peers[id].closed).collect();
        (!live.is_empty()).then(|| *live[at % live.len()])
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Conn { conv, user, update } => {
                let offer = world.offer(CONVS[*conv], &format!("u{user}"), *update);
                self.offers.insert((*conv, *user), offer["sdp"].as_str().unwrap().to_owned());
                self.users.push((world.last.unwrap(), *conv, *user));
            }
            Step::Answer { conv, user } => {
                let Some(sdp) = self.offers.get(&(*conv, *user)) else { return };
                let answer = answer_to(sdp, 1_000 + *user as u32);
                let reply = world.post(&response(CONVS[*conv], &format!("u{user}"), &answer, false));
                assert!(matches!(reply.status, 200 | 400), "{}", reply.body);
            }
            Step::Http(path, body) => {
                let reply = world.request("POST", path, body, CLIENT);
                assert!((400..500).contains(&reply.status) || reply.body == "Debug\n");
            }
            Step::Reprogram => {
                let present = world.rows();
                world.event(Event::Reprogram { present, only: None });
            }
            Step::Pass(ms) => world.pass(Duration::from_millis(*ms)),
            Step::Connect(at)
            | Step::Open(at)
            | Step::Agree(at)
            | Step::Watch(at, _)
            | Step::Props(at, _)
            | Step::Bytes(at, _)
            | Step::Bent(at, _)
            | Step::Hangup(at)
            | Step::Kick(at)
            | Step::Closed(at)
            | Step::Move(at, _) => {
                if let Some(one) = self.one(*at) {
                    self.call_step(step, one);
                }
            }
        }
    }

    #[allow(clippy::collapsible_match, reason = "a step that cannot be done is left out")]
    fn call_step(&mut self, step: &Step, (id, conv, user): (ParticipantId, usize, usize)) {
        let world = &mut self.world;
        let name = format!("u{user}");
        match step {
            Step::Connect(_) => {
                if world.peer(id).answered {
                    world.connect(id);
                }
            }
            Step::Open(_) => drop(world.event(Event::ChannelOpen { participant: id })),
            Step::Agree(_) => {
                if !world.peer(id).of("CONFPART").is_empty() {
                    world.agree(id, &name);
                }
            }
            Step::Watch(_, streams) => {
                let names: Vec<_> = streams.iter().map(|(user, q)| (format!("u{user}"), *q)).collect();
                let names: Vec<_> = names.iter().map(|(user, q)| (user.as_str(), *q)).collect();
                world.watch(id, &names);
            }
            Step::Props(_, muted) => world.say(id, &propsync(&name, *muted)),
            Step::Bytes(_, text) => drop(world.event(Event::Message { participant: id, text: text.clone() })),
            Step::Bent(_, bends) => {
                let list = json!({"participants": [{"userid": "u1", "authorized": true, "ssrc_audio": "1001"}]});
                let mut text = message("CONFPART", &name, true, &list).to_string().into_bytes();
                for (at, byte) in bends {
                    let at = at % text.len();
                    text[at] = *byte;
                }
                world.event(Event::Message { participant: id, text: text.clone() });
                world.request("POST", &format!("/sft/{}", CONVS[conv]), &text, CLIENT);
            }
            Step::Hangup(_) => world.say(id, &message("HANGUP", &name, false, &json!({}))),
            Step::Kick(_) => drop(world.event(Event::Kick { participant: id })),
            Step::Closed(_) => drop(world.event(Event::Closed { participant: id, reason: "peer" })),
            Step::Move(_, port) => {
                world.move_to(id, &[([203, 0, 113, 1], *port).into(), ([203, 0, 113, 2], *port).into()]);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(5), ..ProptestConfig::default() })]

    /// The table is checked after every transaction.
    #[test]
    fn whatever_clients_do_the_table_is_valid_and_empty_in_the_end(steps in prop::collection::vec(step(), 1..150)) {
        let mut script = Script { world: World::new(config()), offers: BTreeMap::default(), users: Vec::new() };
        for step in &steps {
            script.step(step);
        }
        let mut world = script.world;
        world.table().validate().unwrap();
        let rows = world.rows();
        world.event(Event::Reprogram { present: rows.clone(), only: None });
        prop_assert_eq!(world.rows(), rows);
        world.pass(Duration::from_secs(40));
        prop_assert!(world.is_clean());
        prop_assert!(world.peers.values().all(|peer| peer.closed));
        prop_assert_eq!(world.wire.next_deadline(), None);
        prop_assert_eq!(world.wire.allocations(), 0);
        prop_assert!(world.wire.conferences().is_empty());
    }
}
