//! A dialect, the table it programs and scripted clients, without sockets, clocks or real randomness.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "each test binary uses its part"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_control::conference::{Connection, ParticipantId, Path};
use sluice_control::dialect::Random;
use sluice_control::dialect::wire::{Action, Event, Pools, RequestId, Wire, WireConfig};
use sluice_control::transport::{Fingerprint, HashFunction};
use sluice_srtp::Profile;
use sluice_srtp::key::MasterKey;
use sluice_table::{Change, Endpoint, Entry, EntryKind, Ice, Name, Store, Table};

pub const CONV: &str = "daf7fc78ccf0e1cc96a45c1c08b87607";
pub const ENDPOINT: &str = "public";
pub const WALL: u64 = 1_795_198_684_238;

/// splitmix64.
#[derive(Debug)]
pub struct Seeded(pub u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}

/// What a client's side of a transport has seen.
#[derive(Debug, Default)]
pub struct Peer {
    pub ufrag: String,
    pub answered: bool,
    pub channel: Option<&'static str>,
    pub inbox: Vec<Arc<str>>,
    pub closed: bool,
}

impl Peer {
    /// Messages of a type received so far.
    pub fn of(&self, kind: &str) -> Vec<Value> {
        let all = self.inbox.iter().map(|text| serde_json::from_str::<Value>(text).expect("we send JSON"));
        all.filter(|message| message["type"] == kind).collect()
    }
}

pub struct Reply {
    pub status: u16,
    pub body: String,
    pub location: Option<String>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn status_field(&self) -> u64 {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["status"].as_u64().expect("a status")
    }
}

pub struct World {
    pub wire: Wire,
    pub store: Store,
    pub peers: BTreeMap<ParticipantId, Peer>,
    pub now: Instant,
    pub wall: u64,
    pub random: Seeded,
    pub drained: usize,
    pub transactions: usize,
    /// Changes of all of them.
    pub changes: usize,
    /// Time the dialect itself took; only ever printed.
    pub spent: Duration,
    /// The part of it that requests took.
    pub spent_on_requests: Duration,
    pub last: Option<ParticipantId>,
    requests: u64,
    ports: u16,
}

pub fn config() -> WireConfig {
    let fingerprint = Fingerprint { hash: HashFunction::Sha256, bytes: (0..32).collect() };
    let mut config = WireConfig::new("https://sft.example/", fingerprint, vec!["192.0.2.1:3478".parse().unwrap()]);
    // Rows follow at once.
    config.limits.conference.settle = Duration::ZERO;
    config
}

pub fn endpoint() -> Change {
    let row = Endpoint { interface: "eth0".to_owned(), address: "192.0.2.1:3478".parse().unwrap() };
    Change::Put(Name::new(ENDPOINT).unwrap(), Entry::Endpoint(row))
}

impl World {
    pub fn new(config: WireConfig) -> World {
        let mut store = Store::new();
        store.apply(&[endpoint()]).unwrap();
        World {
            wire: Wire::new(config),
            store,
            peers: BTreeMap::new(),
            now: Instant::now(),
            wall: WALL,
            random: Seeded(7),
            drained: 0,
            transactions: 0,
            changes: 0,
            spent: Duration::ZERO,
            spent_on_requests: Duration::ZERO,
            last: None,
            requests: 0,
            ports: 1_024,
        }
    }

    /// Handles an event and does what follows; returns the reply if there was one.
    pub fn event(&mut self, event: Event) -> Option<Reply> {
        let mut actions = Vec::new();
        let request = matches!(event, Event::Http { .. });
        let start = Instant::now();
        self.wire.handle(self.now, self.wall, event, &mut self.random, &mut actions);
        self.spent += start.elapsed();
        if request {
            self.spent_on_requests += start.elapsed();
        }
        let mut reply = None;
        for action in actions {
            match action {
                Action::Reply { request, status, body, location, .. } => {
                    assert_eq!(request.0, self.requests);
                    assert!(reply.is_none(), "two replies to one request");
                    reply = Some(Reply { status, body, location });
                }
                Action::Open { participant, credentials, controlling } => {
                    assert!(controlling && credentials.ufrag.len() >= 4 && credentials.password.len() >= 22);
                    let peer = Peer { ufrag: credentials.ufrag.clone(), ..Peer::default() };
                    assert!(self.peers.insert(participant, peer).is_none(), "{participant} opened twice");
                    self.last = Some(participant);
                }
                Action::Answer { participant, .. } => self.peer(participant).answered = true,
                Action::OpenChannel { participant, label } => self.peer(participant).channel = Some(label),
                Action::Send { participant, text } | Action::SendList { participant, text } => {
                    let text = std::str::from_utf8(&text).expect("we send text");
                    self.peer(participant).inbox.push(text.into());
                }
                Action::Close { participant } => self.peer(participant).closed = true,
                Action::Table(changes) => {
                    assert!(!changes.is_empty());
                    self.transactions += 1;
                    self.changes += changes.len();
                    if let Err(problems) = self.store.apply(&changes) {
                        panic!("{}\n{changes:#?}", problems[0]);
                    }
                }
                Action::Drained => self.drained += 1,
            }
        }
        reply
    }

    /// The open transport of a participant.
    pub fn peer(&mut self, participant: ParticipantId) -> &mut Peer {
        let peer = self.peers.get_mut(&participant).expect("a transport");
        assert!(!peer.closed, "{participant} was closed");
        peer
    }

    /// Lets time pass, ticking when due.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            match self.wire.next_deadline() {
                Some(due) if due <= end => {
                    let due = due.max(self.now);
                    self.wall += (due - self.now).as_millis() as u64;
                    self.now = due;
                    self.event(Event::Tick);
                }
                _ => {
                    self.wall += (end - self.now).as_millis() as u64;
                    self.now = end;
                    return;
                }
            }
        }
        panic!("ticks do not end");
    }

    pub fn request(&mut self, method: &str, path: &str, body: &[u8], client: IpAddr) -> Reply {
        self.requests += 1;
        let event = Event::Http {
            request: RequestId(self.requests),
            method: method.parse().unwrap(),
            path: path.to_owned(),
            body: body.to_vec(),
            client,
        };
        self.event(event).expect("a reply")
    }

    pub fn post(&mut self, message: &Value) -> Reply {
        let path = format!("/sfts/sft-0/sft/{}", message["sessid"].as_str().unwrap());
        self.request("POST", &path, message.to_string().as_bytes(), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)))
    }

    /// Asks for an offer and returns it.
    pub fn offer(&mut self, conv: &str, user: &str, update: bool) -> Value {
        let reply = self.post(&confconn(conv, user, update));
        assert_eq!(reply.status, 200, "{}", reply.body);
        let setup = reply.json();
        assert_eq!(setup["type"], if update { "UPDATE" } else { "SETUP" }, "{setup}");
        assert_eq!((&setup["sessid"], &setup["resp"]), (&json!(conv), &json!(false)));
        assert_eq!((&setup["src_userid"], &setup["src_clientid"]), (&json!("sft"), &json!("_")));
        setup
    }

    /// Asks for an offer and answers it.
    pub fn answer(&mut self, conv: &str, user: &str, update: bool) -> ParticipantId {
        let setup = self.offer(conv, user, update);
        let id = self.last.unwrap();
        let sdp = answer_to(setup["sdp"].as_str().unwrap(), 0x1000_0000 + id.0 as u32);
        let reply = self.post(&response(conv, user, &sdp, update));
        assert_eq!(reply.status_field(), 0);
        assert!(self.peer(id).answered);
        id
    }

    pub fn connect(&mut self, participant: ParticipantId) {
        self.ports += 1;
        let tuple = SocketAddr::from(([198, 51, 100, 7], self.ports));
        self.connect_at(participant, tuple);
    }

    pub fn connect_at(&mut self, participant: ParticipantId, tuple: SocketAddr) {
        let connection = Box::new(connection(&mut self.random, tuple));
        self.event(Event::Connected { participant, connection });
    }

    pub fn move_to(&mut self, participant: ParticipantId, tuples: &[SocketAddr]) {
        let mut ice = connection(&mut self.random, tuples[0]).ice;
        ice.tuples = tuples.to_vec();
        let path = Box::new(Path { endpoint: Name::new(ENDPOINT).unwrap(), ice });
        self.event(Event::Moved { participant, path });
    }

    /// Everything from CONFCONN to the open channel.
    pub fn join(&mut self, conv: &str, user: &str, update: bool) -> ParticipantId {
        let id = self.answer(conv, user, update);
        self.connect(id);
        assert_eq!(self.peer(id).channel, Some("calling-3.0"));
        self.event(Event::ChannelOpen { participant: id });
        id
    }

    pub fn say(&mut self, participant: ParticipantId, message: &Value) {
        self.event(Event::Message { participant, text: message.to_string().into_bytes() });
    }

    /// Agrees to everyone in the newest list but itself, as a client of user `user` does.
    pub fn agree(&mut self, participant: ParticipantId, user: &str) {
        let list = self.list(participant);
        let entries = list["participants"].as_array().unwrap().iter().filter(|entry| entry["userid"] != user);
        let entries = entries.map(|entry| {
            let mut entry = entry.clone();
            entry["authorized"] = json!(true);
            entry["pstn"] = json!(false);
            entry
        });
        let message = json!({"version": "3.0", "type": "CONFPART", "sessid": "", "src_userid": user,
            "src_clientid": "_", "resp": true, "participants": entries.collect::<Vec<_>>()});
        self.say(participant, &message);
    }

    /// The newest list a client has.
    pub fn list(&mut self, participant: ParticipantId) -> Value {
        self.peer(participant).of("CONFPART").pop().expect("a list")
    }

    /// Users of the newest list, in order.
    pub fn listed(&mut self, participant: ParticipantId) -> Vec<String> {
        let list = self.list(participant);
        let entries = list["participants"].as_array().unwrap().iter();
        entries.map(|entry| entry["userid"].as_str().unwrap().to_owned()).collect()
    }

    pub fn watch(&mut self, participant: ParticipantId, streams: &[(&str, u8)]) {
        let streams: Vec<_> = streams.iter().map(|(user, q)| json!({"userid": user, "quality": q})).collect();
        self.say(participant, &message("CONFSTREAMS", "x", false, &json!({"mode": "list", "streams": streams})));
    }

    pub fn table(&self) -> &Table {
        self.store.table()
    }

    /// Whether nothing but the endpoint is left.
    pub fn is_clean(&self) -> bool {
        if self.wire.participants(self.now, None).is_empty() {
            assert_eq!(*self.wire.reserved(), Pools::default(), "something is kept free for nobody");
        }
        self.table().len() == 1 && self.table().endpoints.len() == 1
    }

    /// Every row's kind and name.
    pub fn rows(&self) -> Vec<(EntryKind, Name)> {
        Table::default()
            .diff(self.table())
            .iter()
            .map(|change| {
                let (kind, name) = change.row();
                (kind, name.clone())
            })
            .collect()
    }
}

pub fn connection(random: &mut Seeded, tuple: SocketAddr) -> Connection {
    let mut key = || {
        let mut bytes = [0; 44];
        random.fill(&mut bytes);
        MasterKey::from_bytes(Profile::AeadAes256Gcm, &bytes).unwrap()
    };
    Connection {
        endpoint: Name::new(ENDPOINT).unwrap(),
        inbound: key(),
        outbound: key(),
        ice: Ice {
            local_ufrag: "local".to_owned(),
            local_password: "l".repeat(24),
            remote_ufrag: "remote".to_owned(),
            remote_password: "r".repeat(24),
            controlling: true,
            tie_breaker: 1,
            tuples: vec![tuple],
        },
    }
}

pub fn message(kind: &str, user: &str, resp: bool, more: &Value) -> Value {
    let mut message = json!({"version": "3.0", "type": kind, "sessid": CONV, "src_userid": user, "src_clientid": "_",
        "dest_userid": "SFT", "dest_clientid": "_", "resp": resp});
    for (key, value) in more.as_object().unwrap() {
        message[key] = value.clone();
    }
    message
}

pub fn confconn(conv: &str, user: &str, update: bool) -> Value {
    message(
        "CONFCONN",
        user,
        false,
        &json!({"sessid": conv, "update": update, "tool": "avs 10.5.8 (?/?)",
        "toolver": "10.5.8", "env": 0, "status": 0, "selective_audio": true, "selective_video": true, "vstreams": 9,
        "ice_servers": [{"urls": "turn:127.0.0.1:3478", "username": "u", "credential": "p"}]}),
    )
}

pub fn response(conv: &str, user: &str, sdp: &str, update: bool) -> Value {
    let kind = if update { "UPDATE" } else { "SETUP" };
    let props = json!({"videosend": "true", "screensend": "false", "audiocbr": "true", "muted": "false"});
    message(kind, user, true, &json!({"sessid": conv, "sdp": sdp, "props": props}))
}

pub fn propsync(user: &str, muted: bool) -> Value {
    let muted = muted.to_string();
    let props = json!({"videosend": "true", "screensend": "false", "audiocbr": "true", "muted": muted});
    message("PROPSYNC", user, false, &json!({"props": props}))
}

/// An answer that takes everything offered.
pub fn answer_to(offer: &str, ssrc: u32) -> String {
    let mut answer = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let mut section = "";
    for line in offer.lines() {
        if line.starts_with("a=group:BUNDLE") {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
        if line.starts_with("m=") {
            section = line;
            answer.push_str(line);
            answer.push_str("\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:peer\r\na=ice-pwd:0123456789abcdef01234567\r\n");
            answer.push_str("a=setup:active\r\na=fingerprint:sha-256 ");
            answer.push_str(&["AB"; 32].join(":"));
            answer.push_str("\r\n");
        }
        if section.is_empty() {
            continue;
        }
        let kept =
            ["a=mid:", "a=rtpmap:", "a=fmtp:", "a=extmap:", "a=rtcp-fb:", "a=rtcp-mux", "a=sctp-port", "a=sctpmap"];
        if kept.iter().any(|prefix| line.starts_with(prefix)) {
            answer.push_str(line);
            answer.push_str("\r\n");
        }
        match line {
            "a=sendonly" => answer.push_str("a=recvonly\r\n"),
            "a=rid:l recv" | "a=rid:h recv" | "a=simulcast:recv l;h" => {
                answer.push_str(&line.replace("recv", "send"));
                answer.push_str("\r\n");
            }
            "a=mid:audio" => {
                use std::fmt::Write as _;
                let _ = write!(answer, "a=sendrecv\r\na=ssrc:{ssrc} cname:x\r\n");
            }
            "a=mid:video" => answer.push_str("a=sendrecv\r\n"),
            _ => {}
        }
    }
    answer
}
