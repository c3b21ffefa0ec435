//! The node in simulated time, between a scripted forwarder and clients that only ever speak HTTP or send garbage.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_control::dialect::Random as _;
use sluice_control::dialect::wire::{Reason, Wire};
use sluice_control::http::Request;
use sluice_control::link::LinkEvent;
use sluice_control::node::{Context, Count, Node, Output};
use sluice_table::protocol::{PacketInReason, PacketMessage, Refusal, Refused, Snapshot};
use sluice_table::{Change, Endpoint, EntryKind, Kind, Name, Source};
use support::node::{Counting, GRACE, node};

const FIRST: u64 = 1_000;
const CONV: &str = "daf7fc78ccf0e1cc96a45c1c08b87607";

struct World {
    node: Node,
    now: Instant,
    random: Counting,
    /// What was sent to the forwarder and not answered.
    transactions: Vec<(u64, Vec<Change>)>,
    packets: Vec<PacketMessage>,
    requests: u64,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    fn new() -> World {
        let (settings, mut wire) = node(FIRST);
        wire.limits.allocations = 1_000;
        World {
            node: Node::new(settings, Wire::new(wire)),
            now: Instant::now(),
            random: Counting(1),
            transactions: Vec::new(),
            packets: Vec::new(),
            requests: 0,
        }
    }

    /// A node that a forwarder with an empty table is connected to.
    fn ready() -> World {
        let mut world = World::new();
        world.up(Snapshot::default());
        world.commit(Ok(1));
        world
    }

    fn with(&mut self, act: impl FnOnce(&mut Node, &mut Context<'_>)) -> Option<(u16, String)> {
        let mut context = Context { now: self.now, wall_ms: 1_795_198_684_238, random: &mut self.random };
        act(&mut self.node, &mut context);
        let mut answer = None;
        for output in self.node.outputs() {
            match output {
                Output::Reply { answer: reply, .. } => {
                    answer = Some((reply.status, String::from_utf8(reply.body.to_vec()).unwrap()));
                }
                Output::Transaction { id, changes } => self.transactions.push((id, changes)),
                Output::AskTable => panic!("nothing was refused"),
                Output::Packet(packet) => self.packets.push(packet),
            }
        }
        answer
    }

    fn link(&mut self, event: LinkEvent) {
        self.with(|node, context| node.link(context, event));
    }

    fn up(&mut self, snapshot: Snapshot) {
        self.link(LinkEvent::Up(Box::new(snapshot)));
    }

    /// Answers the oldest transaction.
    fn commit(&mut self, result: Result<u64, Refused>) -> Vec<Change> {
        let (id, changes) = self.transactions.remove(0);
        self.link(LinkEvent::Committed { id, result });
        changes
    }

    fn post(&mut self, client: &str, message: &Value) -> (u16, String) {
        self.requests += 1;
        let request = Request {
            method: "POST".parse().unwrap(),
            path: format!("/sft/{}", message["sessid"].as_str().unwrap()),
            query: String::new(),
            body: message.to_string().into(),
            client: client.parse::<IpAddr>().unwrap(),
            content_type: None,
        };
        let id = self.requests;
        self.with(|node, context| node.request(context, id, request)).expect("an answer at once")
    }

    fn confconn(&mut self, client: &str, conv: &str, user: &str) -> (u16, String) {
        let message = json!({"version": "3.0", "type": "CONFCONN", "sessid": conv, "src_userid": user,
            "src_clientid": "_", "dest_userid": "SFT", "dest_clientid": "_", "resp": false, "toolver": "10.5.8"});
        self.post(client, &message)
    }

    fn packet(&mut self, reason: PacketInReason, from: &str, bytes: Vec<u8>) {
        let from = from.parse().unwrap();
        self.link(LinkEvent::Packet(PacketMessage::PacketIn {
            endpoint: name("media0"),
            leg: None,
            from,
            reason,
            bytes,
        }));
    }

    /// Lets time pass; a deadline that stays due after its time-out was handled would keep the process busy.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            match self.node.next_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.with(Node::handle_timeout);
                    let next = self.node.next_timeout();
                    assert!(next.is_none_or(|next| next > self.now), "a deadline stays due");
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("deadlines do not end");
    }

    fn reason(&self, reason: Reason) -> u64 {
        self.node.wire().counters().get(reason)
    }
}

fn refused() -> Refused {
    Refused::new(Refusal::InvalidTable, "the port is in use".to_owned(), "stop what uses it")
}

#[test]
fn calls_are_refused_with_a_reason_until_the_forwarder_has_the_endpoints() {
    let mut world = World::new();
    let refusal = world.confconn("198.51.100.1", CONV, "alice");
    assert!(refusal.0 == 503 && refusal.1.contains("ask again"), "{refusal:?}");
    world.up(Snapshot::default());
    assert_eq!(world.confconn("198.51.100.1", CONV, "alice").0, 503, "connected, but nothing is open");
    world.commit(Ok(1));
    assert_eq!(world.confconn("198.51.100.1", CONV, "alice").0, 200);
    world.link(LinkEvent::Down("gone".to_owned()));
    assert_eq!(world.confconn("198.51.100.1", CONV, "bob").0, 503);
    assert_eq!(world.reason(Reason::NotReady), 3);
    assert_eq!(world.node.transports(), 1, "a refused call costs nothing");
}

#[test]
fn endpoints_come_first_and_are_tried_again_when_refused() {
    let mut world = World::new();
    world.up(Snapshot::default());
    assert_eq!(world.transactions[0].0, FIRST, "numbers of an earlier process do not come again");
    assert!(matches!(world.transactions[0].1[..], [Change::Put(..)]));
    assert_eq!(world.transactions[0].1[0].row(), (EntryKind::Endpoint, &name("media0")));
    world.commit(Err(refused()));
    assert!(world.node.endpoints_refused().is_some());
    assert_eq!(world.confconn("198.51.100.1", CONV, "alice").0, 503);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.transactions.len(), 1);
    assert_ne!(world.transactions[0].0, FIRST, "never the same number again");
    world.commit(Ok(1));
    assert_eq!(world.confconn("198.51.100.1", CONV, "alice").0, 200);
    assert_eq!(world.node.counters().get(Count::TransactionsRefused), 1);
}

/// A table with rows of an earlier process, whose conferences have lower numbers.
fn earlier() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let row = Endpoint { interface: "eth0".into(), address: "192.0.2.1:3480".parse().unwrap() };
    snapshot.endpoints.insert(name("media0"), row);
    for at in 0..5_000 {
        let source = Source { kind: Kind::Video, clock_rate: 90_000, input: None, layers: Vec::new(), select: None };
        snapshot.sources.insert(name(&format!("c7/p{at}/v")), source);
    }
    snapshot
}

#[test]
fn rows_of_an_earlier_process_stay_for_the_grace_time() {
    let mut world = World::new();
    world.up(earlier());
    assert_eq!(world.transactions.len(), 1, "only the endpoints: calls of the earlier process go on");
    world.commit(Ok(2));
    world.pass(GRACE / 2);
    // The forwarder goes away and comes back with its table: the time goes on, and is not over while it is away.
    world.link(LinkEvent::Down("gone".to_owned()));
    world.pass(GRACE);
    assert!(world.transactions.is_empty());
    world.up(earlier());
    world.commit(Ok(2));
    world.pass(Duration::from_millis(1));
    let removed: Vec<_> = world.transactions.iter().map(|(_, changes)| changes.len()).collect();
    assert_eq!(removed, [4_096, 904], "in slices");
    assert!(
        world.transactions.iter().flat_map(|(_, changes)| changes).all(|change| matches!(change, Change::Remove(..)))
    );
    world.transactions.clear();
    world.pass(GRACE * 2);
    assert!(world.transactions.is_empty());
}

#[test]
fn abandoned_calls_are_limited_counted_and_expire() {
    let mut world = World::ready();
    // 25 a second for a minute, from 20 networks.
    for n in 0..1_500 {
        let (status, body) = world.confconn(&format!("198.51.{}.9", n % 20), &format!("conv{n}"), &format!("user{n}"));
        assert_eq!(status, 200, "{body}");
        world.pass(Duration::from_millis(40));
        assert!(world.node.transports() <= 251, "10 s of 25 a second: {}", world.node.transports());
    }
    assert!(world.transactions.is_empty() && world.packets.is_empty(), "the forwarder hears of none of them");
    world.pass(Duration::from_secs(11));
    assert_eq!((world.node.transports(), world.node.wire().conferences().len()), (0, 0));
    assert_eq!(world.reason(Reason::SetupTimeout), 1_500);
    // All at once from one network, then from many.
    for n in 0..500 {
        world.confconn("203.0.113.9", &format!("conv{n}"), "eve");
    }
    assert_eq!((world.node.transports(), world.reason(Reason::SourceLimit)), (64, 436));
    for n in 0..2_000 {
        world.confconn(&format!("10.{}.{}.1", n / 250, n % 250), &format!("many{n}"), "eve");
    }
    assert_eq!((world.node.transports(), world.reason(Reason::AllocationLimit)), (1_000, 1_064));
    world.pass(Duration::from_secs(11));
    assert_eq!(world.node.transports(), 0);
    assert_eq!(world.node.counters().get(Count::TransportsOpened), 4_000);
    assert!(world.node.next_timeout().is_none(), "nothing is left that wants to be woken");
}

#[test]
fn packets_of_nobody_are_counted_and_not_answered() {
    let mut world = World::ready();
    world.confconn("198.51.100.1", CONV, "alice");
    let mut random = Counting(3);
    for n in 0..1_000_usize {
        let mut bytes = vec![0; 1 + n * 7 % 1_500];
        random.fill(&mut bytes);
        bytes[0] %= 4;
        world.packet(PacketInReason::StunUnknown, "198.51.100.1:4000", bytes.clone());
        bytes[0] = 22;
        world.packet(PacketInReason::Dtls, "198.51.100.1:4000", bytes);
    }
    assert!(world.packets.is_empty());
    let counters = world.node.counters();
    assert_eq!((counters.get(Count::StunUnknown), counters.get(Count::DtlsUnknown)), (1_000, 1_000));
    assert_eq!(world.node.transports(), 1);
}
