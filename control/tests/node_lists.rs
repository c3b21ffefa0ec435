//! Clients with real transports at a node, in simulated time: packets that arrive together, and lists of participants for
//! one that does not keep up.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod wire_support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_control::conference::ParticipantId;
use sluice_control::dialect::wire::{Wire, WireConfig};
use sluice_control::http::Request;
use sluice_control::link::LinkEvent;
use sluice_control::node::{Context, Count, Node, Output, Settings};
use sluice_control::sdp::SessionDescription;
use sluice_control::transport::{
    Credentials, DtlsVersion, HashFunction, Identity, Limits, LocalCandidate, Output as Told, RemoteDescription, Setup,
    Transport, TransportConfig,
};
use sluice_table::Name;
use sluice_table::protocol::{PacketInReason, PacketMessage};
use wire_support::{CONV, Seeded, answer_to, confconn, response};

const SERVER: &str = "192.0.2.1:3480";
/// Between an event and what follows from it at the other end.
const STEP: Duration = Duration::from_millis(1);

struct Client {
    address: SocketAddr,
    transport: Transport,
    /// Nothing from the node reaches it while it is deaf.
    deaf: bool,
    open: Option<Instant>,
    lists: Vec<Value>,
}

struct World {
    node: Node,
    now: Instant,
    random: Seeded,
    identity: Arc<Identity>,
    clients: Vec<Client>,
    /// On their way to the node.
    up: Vec<PacketMessage>,
    commits: Vec<u64>,
}

impl World {
    fn new() -> World {
        let identity = Arc::new(Identity::generate().unwrap());
        let address: SocketAddr = SERVER.parse().unwrap();
        let fingerprint = identity.fingerprint(HashFunction::Sha256);
        let mut wire = WireConfig::new("https://sft.example", fingerprint, vec![address]);
        wire.limits.allocations_per_source = 1_000;
        // Nobody says PING here.
        wire.limits.alive = Duration::from_mins(10);
        let local = LocalCandidate { endpoint: Name::new("media0").unwrap(), address, advertised: address };
        let settings = Settings {
            identity: identity.clone(),
            locals: vec![(local, "eth0".to_owned())],
            dtls: DtlsVersion::V1_2,
            limits: Limits::default(),
            orphan_timeout: Duration::from_mins(1),
            first_transaction: 1,
        };
        let mut world = World {
            node: Node::new(settings, Wire::new(wire)),
            now: Instant::now(),
            random: Seeded(1),
            identity,
            clients: Vec::new(),
            up: Vec::new(),
            commits: Vec::new(),
        };
        world.with(|node, context| node.link(context, LinkEvent::Up(Box::default())));
        world.pass(STEP);
        world
    }

    fn with(&mut self, act: impl FnOnce(&mut Node, &mut Context<'_>)) -> Option<Value> {
        let mut context = Context { now: self.now, wall_ms: 1_795_198_684_238, random: &mut self.random };
        act(&mut self.node, &mut context);
        let mut answer = None;
        for output in self.node.outputs() {
            match output {
                Output::Reply { answer: reply, .. } => answer = Some(serde_json::from_slice(&reply.body).unwrap()),
                Output::Transaction { id, .. } => self.commits.push(id),
                Output::Packet(PacketMessage::PacketOut { to, bytes, .. }) => {
                    let client = self.clients.iter_mut().find(|client| client.address == to && !client.deaf);
                    if let Some(client) = client {
                        let endpoint = Name::new("me").unwrap();
                        client.transport.handle_datagram(self.now, &endpoint, SERVER.parse().unwrap(), &bytes);
                    }
                }
                other @ (Output::Packet(_) | Output::AskTable) => panic!("{other:?}"),
            }
        }
        answer
    }

    fn post(&mut self, message: &Value) -> Value {
        let request = Request {
            method: "POST".parse().unwrap(),
            path: format!("/sft/{CONV}"),
            query: String::new(),
            body: message.to_string().into(),
            client: IpAddr::from([198, 51, 100, 1]),
            content_type: None,
        };
        self.with(|node, context| node.request(context, 1, request)).expect("an answer at once")
    }

    /// Asks and answers; the transport follows as time passes.
    fn join(&mut self) -> usize {
        let at = self.clients.len();
        let user = format!("{at:0>32}");
        let setup = self.post(&confconn(CONV, &user, false));
        let offer = setup["sdp"].as_str().unwrap();
        let address = SocketAddr::from(([198, 51, 100, 1], 10_000 + at as u16));
        let config = TransportConfig {
            controlling: false,
            tie_breaker: at as u64,
            // As the answer says.
            credentials: Credentials { ufrag: "peer".to_owned(), password: "0123456789abcdef01234567".to_owned() },
            locals: vec![LocalCandidate { endpoint: Name::new("me").unwrap(), address, advertised: address }],
            identity: self.identity.clone(),
            dtls: DtlsVersion::V1_2,
            sctp_connect: true,
            limits: Limits::default(),
        };
        let mut transport = Transport::new(config, self.now);
        let theirs = SessionDescription::parse(offer).unwrap().remote_description().unwrap();
        transport.set_remote(self.now, &RemoteDescription { setup: Setup::Passive, ..theirs }).unwrap();
        let fingerprint = self.identity.fingerprint(HashFunction::Sha256).to_string();
        let answer = answer_to(offer, 0x1000_0000 + at as u32);
        let answer = answer.replace(&format!("sha-256 {}", ["AB"; 32].join(":")), &fingerprint);
        self.clients.push(Client { address, transport, deaf: false, open: None, lists: Vec::new() });
        let taken = self.post(&response(CONV, &user, &answer, false));
        assert_eq!(taken["status"], 0, "{taken}");
        at
    }

    /// All that was sent within a step arrives as one batch at its end.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for at in 0..self.clients.len() {
                self.client(at);
            }
            let (packets, commits) = (std::mem::take(&mut self.up), std::mem::take(&mut self.commits));
            self.with(|node, context| {
                for id in commits {
                    node.hear(context, LinkEvent::Committed { id, result: Ok(1) });
                }
                for packet in packets {
                    node.hear(context, LinkEvent::Packet(packet));
                }
                node.settle(context);
            });
            if self.node.next_timeout().is_some_and(|at| at <= self.now) {
                self.with(Node::handle_timeout);
            }
        }
    }

    fn client(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.transport.next_timeout().is_some_and(|at| at <= self.now) {
            client.transport.handle_timeout(self.now);
        }
        while let Some(told) = client.transport.poll(self.now) {
            match told {
                Told::Datagram { bytes, .. } => {
                    let dtls = (20..64).contains(&bytes[0]);
                    let reason = if dtls { PacketInReason::Dtls } else { PacketInReason::StunUnknown };
                    let endpoint = Name::new("media0").unwrap();
                    self.up.push(PacketMessage::PacketIn { endpoint, leg: None, from: client.address, reason, bytes });
                }
                Told::Connected(_) => client.transport.release(),
                Told::ChannelOpen { .. } => client.open = Some(self.now),
                Told::Message { bytes, .. } => {
                    let message: Value = serde_json::from_slice(&bytes).unwrap();
                    if message["type"] == "CONFPART" {
                        client.lists.push(message);
                    }
                }
                Told::Moved(_) => {}
                Told::ChannelClosed(_) | Told::Closed(_) => panic!("client {at}: {told:?}"),
            }
        }
    }
}

fn named(list: &Value) -> usize {
    list["participants"].as_array().unwrap().len()
}

#[test]
fn a_hello_that_arrives_with_the_first_check_is_taken() {
    let mut world = World::new();
    let start = world.now;
    for _ in 0..5 {
        world.join();
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.node.counters().get(Count::DtlsUnknown), 0);
    for client in &world.clients {
        // A hello that got lost would be sent again after 50 ms at least.
        let took = client.open.unwrap() - start;
        assert!(took < Duration::from_millis(50), "{took:?}");
        assert_eq!(named(client.lists.last().unwrap()), 5);
    }
}

#[test]
fn who_does_not_take_lists_gets_the_newest_one_next() {
    const LATER: usize = 130;
    let mut world = World::new();
    let slow = world.join();
    world.pass(Duration::from_millis(100));
    assert_eq!(world.clients[slow].lists.len(), 1, "its own");
    world.clients[slow].deaf = true;
    for _ in 0..LATER {
        world.join();
        world.pass(Duration::from_millis(30));
    }
    world.pass(Duration::from_millis(600));
    let told = world.clients[slow + 1].lists.len();
    assert!(told > 10, "{told} lists for one that takes them");
    assert!(world.node.counters().get(Count::ListsSuperseded) > 0);
    let longest = world.clients[slow + 1].lists.iter().map(|list| list.to_string().len()).max().unwrap();
    let status = world.node.transport_status(ParticipantId(1)).unwrap();
    let waiting = status.channels[0].buffered;
    assert!(waiting <= (16 << 10) + longest, "{waiting} bytes wait in its channel; a list has {longest}");
    world.clients[slow].deaf = false;
    world.pass(Duration::from_secs(10));
    let lists = &world.clients[slow].lists;
    assert_eq!(named(lists.last().unwrap()), LATER + 1, "the newest arrived");
    assert!(lists.len() < told, "{} of {told} lists", lists.len());
    assert!(world.clients[slow + 1].lists.len() == told, "nobody is told twice");
}
