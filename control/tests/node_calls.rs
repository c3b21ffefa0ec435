//! The node with clients that really connect, in simulated time, and a forwarder that may refuse or be asked in vain.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_control::dialect::wire::{Reason, Wire};
use sluice_control::http::Request;
use sluice_control::link::LinkEvent;
use sluice_control::node::{Context, Count, Node, Output};
use sluice_control::sdp::SessionDescription;
use sluice_control::transport::{
    ChannelId, Credentials, DtlsVersion, Limits, LocalCandidate, Output as TransportOutput, Payload, RemoteDescription,
    Setup, Transport, TransportConfig,
};
use sluice_table::protocol::{PacketInReason, PacketMessage, Refusal, Refused, Snapshot};
use sluice_table::validate::Problem;
use sluice_table::{Change, EntryKind, Name, Store, Table};
use support::client::{answer, confconn, message};
use support::node::{Counting, MEDIA, node};

const CONV: &str = support::CONV;

struct Client {
    user: &'static str,
    address: SocketAddr,
    transport: Transport,
    channel: Option<ChannelId>,
    pongs: usize,
    closed: bool,
    /// When it pings next, every 5 s; `None` while it is silent.
    pings: Option<Instant>,
}

enum Order {
    Transaction(u64, Vec<Change>),
    Table,
}

type Judge = Box<dyn FnMut(&Table, &[Change]) -> Option<Refused>>;

struct World {
    node: Node,
    now: Instant,
    random: Counting,
    clients: Vec<Client>,
    /// The forwarder's table, and whether it takes a transaction.
    store: Store,
    judge: Judge,
    orders: VecDeque<Order>,
    /// Packets for the node, as while it is stopped.
    held: Vec<PacketMessage>,
    stopped: bool,
    requests: u64,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    fn new() -> World {
        let (settings, mut wire) = node(1);
        wire.limits.conference.settle = Duration::ZERO;
        let mut world = World {
            node: Node::new(settings, Wire::new(wire)),
            now: Instant::now(),
            random: Counting(1),
            clients: Vec::new(),
            store: Store::new(),
            judge: Box::new(|_, _| None),
            orders: VecDeque::new(),
            held: Vec::new(),
            stopped: false,
            requests: 0,
        };
        world.link(LinkEvent::Up(Box::default()));
        world.settle();
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
                Output::Transaction { id, changes } => self.orders.push_back(Order::Transaction(id, changes)),
                Output::AskTable => self.orders.push_back(Order::Table),
                Output::Packet(PacketMessage::PacketOut { to, bytes, .. }) => {
                    let client = self.clients.iter_mut().find(|client| client.address == to);
                    if let Some(client) = client {
                        client.transport.handle_datagram(self.now, &name("me"), MEDIA.parse().unwrap(), &bytes);
                    }
                }
                Output::Packet(other) => panic!("{other:?}"),
            }
        }
        answer
    }

    fn link(&mut self, event: LinkEvent) {
        self.with(|node, context| node.link(context, event));
    }

    /// The forwarder does what it was told.
    fn forwarder(&mut self) -> bool {
        let Some(order) = self.orders.pop_front() else { return false };
        match order {
            Order::Table => self.link(LinkEvent::Table(Box::new(Snapshot::of(self.store.table(), 0, 0)))),
            Order::Transaction(id, changes) => {
                let refused = (self.judge)(self.store.table(), &changes);
                let result = match refused {
                    Some(refused) => Err(refused),
                    None => self.store.apply(&changes).map(|()| 1).map_err(Refused::invalid),
                };
                self.link(LinkEvent::Committed { id, result });
            }
        }
        true
    }

    fn post(&mut self, message: &Value) -> (u16, Value) {
        self.requests += 1;
        let request = Request {
            method: "POST".parse().unwrap(),
            path: format!("/sft/{}", message["sessid"].as_str().unwrap()),
            query: String::new(),
            body: message.to_string().into(),
            client: "198.51.100.7".parse().unwrap(),
            content_type: None,
        };
        let id = self.requests;
        let (status, body) = self.with(|node, context| node.request(context, id, request)).unwrap();
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// Asks to come in and answers the offer; the rest follows when time passes.
    fn ask(&mut self, user: &'static str) -> usize {
        let (status, setup) = self.post(&confconn(CONV, user, false));
        assert_eq!((status, &setup["type"]), (200, &json!("SETUP")), "{setup}");
        let offer = setup["sdp"].as_str().unwrap();
        let theirs = SessionDescription::parse(offer).unwrap().remote_description().unwrap();
        let number = self.clients.len() as u16;
        let address = SocketAddr::from(([198, 51, 100, 7], 5_000 + number));
        let ours = Credentials { ufrag: format!("u{number:07}"), password: format!("{number:0>24}") };
        let config = TransportConfig {
            controlling: false,
            tie_breaker: 7,
            credentials: ours.clone(),
            locals: vec![LocalCandidate { endpoint: name("me"), address, advertised: address }],
            identity: support::client::identity(),
            dtls: DtlsVersion::V1_2,
            sctp_connect: true,
            limits: Limits::default(),
        };
        let mut transport = Transport::new(config, self.now);
        transport.set_remote(self.now, &RemoteDescription { setup: Setup::Passive, ..theirs }).unwrap();
        let sdp = answer(offer, &ours, address, 0x1000_0000 + u32::from(number));
        let (status, reply) = self.post(&message(CONV, "SETUP", user, true, &json!({"sdp": sdp, "props": {}})));
        assert_eq!((status, &reply["status"]), (200, &json!(0)), "{reply}");
        self.clients.push(Client { user, address, transport, channel: None, pongs: 0, closed: false, pings: None });
        self.clients.len() - 1
    }

    /// Comes in, all the way to the open channel.
    fn join(&mut self, user: &'static str) -> usize {
        let at = self.ask(user);
        self.pass(Duration::from_secs(1));
        assert!(self.clients[at].channel.is_some(), "{user} has no channel");
        self.clients[at].pings = Some(self.now);
        at
    }

    /// Lets everybody talk until nobody has anything to say now.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = !self.stopped && self.forwarder();
            for at in 0..self.clients.len() {
                let now = self.now;
                let client = &mut self.clients[at];
                if client.transport.next_timeout().is_some_and(|due| due <= now) {
                    client.transport.handle_timeout(now);
                }
                if let (Some(due), Some(channel)) = (client.pings, client.channel)
                    && due <= now
                    && !client.closed
                {
                    client.pings = Some(now + Duration::from_secs(5));
                    let ping = message(CONV, "PING", client.user, false, &json!({})).to_string();
                    let _ = client.transport.send(channel, Payload::Text(ping.into()));
                }
                while let Some(output) = self.clients[at].transport.poll(self.now) {
                    busy = true;
                    self.client_output(at, output);
                }
            }
            if !self.stopped {
                for packet in std::mem::take(&mut self.held) {
                    busy = true;
                    self.link(LinkEvent::Packet(packet));
                }
                if self.node.next_timeout().is_some_and(|due| due <= self.now) {
                    self.with(Node::handle_timeout);
                    assert!(self.node.next_timeout().is_none_or(|due| due > self.now), "a deadline stays due");
                }
            }
            if !busy {
                return;
            }
        }
        panic!("talk without an end");
    }

    fn client_output(&mut self, at: usize, output: TransportOutput) {
        let client = &mut self.clients[at];
        match output {
            TransportOutput::Datagram { bytes, .. } => {
                let reason = if bytes[0] < 4 { PacketInReason::StunUnknown } else { PacketInReason::Dtls };
                let endpoint = name("media0");
                self.held.push(PacketMessage::PacketIn { endpoint, leg: None, from: client.address, reason, bytes });
            }
            TransportOutput::Connected(_) => client.transport.release(),
            TransportOutput::ChannelOpen { channel, .. } => client.channel = Some(channel),
            TransportOutput::Message { bytes, .. } => {
                let message: Value = serde_json::from_slice(&bytes).unwrap();
                client.pongs += usize::from(message["type"] == "PING");
            }
            TransportOutput::Closed(_) => client.closed = true,
            TransportOutput::Moved(_) | TransportOutput::ChannelClosed(_) => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            self.settle();
            let node = self.node.next_timeout().filter(|_| !self.stopped);
            let clients = self.clients.iter().flat_map(|c| [c.transport.next_timeout(), c.pings.filter(|_| !c.closed)]);
            match clients.chain([node]).flatten().min() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ if self.now == end => return,
                _ => self.now = end,
            }
        }
        panic!("deadlines do not end");
    }

    fn present(&self) -> Vec<u64> {
        self.node.wire().participants(self.now, None).iter().map(|view| view.participant).collect()
    }

    /// The forwarder holds what the conference is made of, and nothing else.
    #[track_caller]
    fn assert_in_step(&self) {
        let rows = |table: &Table| -> Vec<(EntryKind, Name)> {
            let rows = Table::default().diff(table);
            rows.iter().map(|c| (c.row().0, c.row().1.clone())).filter(|(k, _)| *k != EntryKind::Endpoint).collect()
        };
        let wanted = self.node.wire().numbered(500).map(|conference| conference.table().clone()).unwrap_or_default();
        assert_eq!(rows(self.store.table()), rows(&wanted));
        for (name, leg) in &wanted.legs {
            assert_eq!(self.store.table().legs.get(name), Some(leg));
        }
    }

    fn count(&self, count: Count) -> u64 {
        self.node.counters().get(count)
    }
}

fn puts_leg(changes: &[Change], leg: &str) -> bool {
    changes.iter().any(
        |change| matches!(change, Change::Put(name, _) if change.row().0 == EntryKind::Leg && name.as_str() == leg),
    )
}

fn full() -> Refused {
    Refused::new(Refusal::Capacity, "no leg is left", "raise [capacity]")
}

#[test]
fn what_was_refused_once_is_sent_again() {
    let mut world = World::new();
    world.join("alice");
    let mut times = 0;
    world.judge = Box::new(move |_, changes| {
        times += u32::from(puts_leg(changes, "c500/p2"));
        (times == 1 && puts_leg(changes, "c500/p2"))
            .then(|| Refused::new(Refusal::Internal, "a hiccup", "look at its log"))
    });
    world.join("bob");
    assert_eq!(world.present(), [1, 2]);
    assert_eq!((world.count(Count::TransactionsRefused), world.count(Count::Repairs)), (1, 1));
    assert_eq!(world.count(Count::ParticipantsRefused), 0);
    world.assert_in_step();
    world.join("carol");
    world.assert_in_step();
}

#[test]
fn who_cannot_be_programmed_goes_and_the_others_stay() {
    let named = |by_name: bool| {
        move |_: &Table, changes: &[Change]| {
            let problem = Problem {
                kind: EntryKind::Leg,
                name: name("c500/p2"),
                key: "remote".to_owned(),
                message: "is another leg's".to_owned(),
            };
            puts_leg(changes, "c500/p2").then(|| if by_name { Refused::invalid(vec![problem]) } else { full() })
        }
    };
    for by_name in [false, true] {
        let mut world = World::new();
        world.join("alice");
        world.judge = Box::new(named(by_name));
        let bob = world.ask("bob");
        world.pass(Duration::from_secs(1));
        assert_eq!(world.present(), [1]);
        assert!(world.clients[bob].closed, "bob is told that his call is over");
        assert!(!world.clients[0].closed, "alice");
        assert_eq!((world.count(Count::ParticipantsRefused), world.count(Count::RepairsGivenUp)), (1, 0));
        world.assert_in_step();
        // Numbers are never used again, so the next one is taken.
        world.join("carol");
        assert_eq!(world.present(), [1, 3]);
        world.assert_in_step();
        assert!(world.clients[0].pongs > 0);
    }
}

#[test]
fn a_forwarder_that_takes_nothing_is_not_asked_for_ever() {
    let mut world = World::new();
    world.join("alice");
    world.judge = Box::new(|_, _| Some(full()));
    world.ask("bob");
    world.pass(Duration::from_secs(30));
    assert_eq!(world.present(), [] as [u64; 0]);
    assert!(world.count(Count::TransactionsRefused) < 10, "{}", world.count(Count::TransactionsRefused));
    assert_eq!(world.count(Count::RepairsGivenUp), 1);
}

#[test]
fn time_in_which_the_process_was_stopped_does_not_count() {
    let mut world = World::new();
    let (alice, bob) = (world.join("alice"), world.join("bob"));
    world.pass(Duration::from_secs(12));
    // Bob falls silent for good; then the process stops for longer than anybody may be silent.
    world.clients[bob].pings = None;
    world.stopped = true;
    world.pass(Duration::from_secs(45));
    world.stopped = false;
    // The timer is what it notices first; what waits in its sockets comes after.
    world.with(Node::handle_timeout);
    assert_eq!(world.present(), [1, 2]);
    let pongs = world.clients[alice].pongs;
    world.pass(Duration::from_secs(8));
    assert_eq!(world.present(), [1, 2]);
    assert!(world.clients[alice].pongs > pongs, "what waited was answered");
    world.pass(Duration::from_secs(15));
    assert_eq!(world.present(), [1], "20 s of silence while somebody listened");
    assert_eq!((world.node.wire().counters().get(Reason::PingTimeout), world.count(Count::Stalls)), (1, 1));
    world.pass(Duration::from_mins(1));
    assert_eq!(world.present(), [1]);
}

#[test]
fn a_forwarder_that_comes_back_without_endpoints_ends_nobody() {
    let mut world = World::new();
    world.join("alice");
    world.link(LinkEvent::Down("gone".to_owned()));
    world.store = Store::new();
    world.orders.clear();
    let busy = Refused::new(Refusal::Endpoint, "the port is in use", "stop what uses it");
    let ends = world.now + Duration::from_secs(5);
    let start = world.now;
    world.judge = Box::new(move |table, changes| {
        let opens = changes.iter().any(|change| change.row().0 == EntryKind::Endpoint);
        (opens && table.endpoints.is_empty()).then(|| busy.clone())
    });
    world.link(LinkEvent::Up(Box::default()));
    world.pass(ends - start);
    assert_eq!(world.present(), [1]);
    assert_eq!(world.count(Count::ParticipantsRefused), 0);
    world.judge = Box::new(|_, _| None);
    world.pass(Duration::from_secs(3));
    world.assert_in_step();
    world.join("bob");
    world.assert_in_step();
}
