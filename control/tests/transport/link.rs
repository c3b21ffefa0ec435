//! Two transports and a seeded link between them in simulated time: loss, duplicates, reordering, a NAT, an observer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sluice_control::transport::{
    Candidate, CandidateKind, ChannelId, CloseReason, Connection, Credentials, DtlsVersion, HashFunction, Identity,
    Limits, LocalCandidate, Output, Path, Protocol, RemoteDescription, Setup, Transport, TransportConfig, protocol,
};
use sluice_table::Name;

/// Who sent or receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn credentials(text: &str) -> Credentials {
    Credentials { ufrag: format!("ufrag{text}"), password: format!("password{text:0>20}") }
}

/// A transport, and what it said.
pub(crate) struct Peer {
    pub(crate) transport: Transport,
    pub(crate) identity: Arc<Identity>,
    pub(crate) locals: Vec<LocalCandidate>,
    pub(crate) credentials: Credentials,
    pub(crate) release: bool,
    pub(crate) connection: Option<Connection>,
    pub(crate) moved: Vec<Path>,
    pub(crate) channels: Vec<(ChannelId, String)>,
    pub(crate) messages: Vec<(ChannelId, bool, Vec<u8>)>,
    pub(crate) closed_channels: Vec<ChannelId>,
    pub(crate) closed: Vec<CloseReason>,
    pub(crate) datagrams: usize,
}

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) name: &'static str,
    pub(crate) addresses: Vec<&'static str>,
    pub(crate) controlling: bool,
    pub(crate) tie_breaker: u64,
    pub(crate) version: DtlsVersion,
    pub(crate) sctp_connect: bool,
    pub(crate) limits: Limits,
}

impl Peer {
    pub(crate) fn new(now: Instant, setup: &Options) -> Peer {
        static IDENTITIES: [OnceLock<Arc<Identity>>; 2] = [const { OnceLock::new() }; 2];
        let identity = &IDENTITIES[usize::from(setup.name == "client")];
        let identity = identity.get_or_init(|| Arc::new(Identity::generate().unwrap())).clone();
        let local = |(at, text): (usize, &&str)| LocalCandidate {
            endpoint: Name::new(&format!("{}{at}", setup.name)).unwrap(),
            address: address(text),
            advertised: address(text),
        };
        let locals: Vec<_> = setup.addresses.iter().enumerate().map(local).collect();
        let credentials = credentials(setup.name);
        let config = TransportConfig {
            controlling: setup.controlling,
            tie_breaker: setup.tie_breaker,
            credentials: credentials.clone(),
            locals: locals.clone(),
            identity: identity.clone(),
            dtls: setup.version,
            sctp_connect: setup.sctp_connect,
            limits: setup.limits,
        };
        Peer {
            transport: Transport::new(config, now),
            identity,
            locals,
            credentials,
            release: true,
            connection: None,
            moved: Vec::new(),
            channels: Vec::new(),
            messages: Vec::new(),
            closed_channels: Vec::new(),
            closed: Vec::new(),
            datagrams: 0,
        }
    }

    pub(crate) fn description(&self, setup: Setup, with_candidates: bool) -> RemoteDescription {
        let candidate = |local: &LocalCandidate| Candidate {
            address: local.advertised,
            kind: CandidateKind::Host,
            priority: 126 << 24 | 0xffff,
            foundation: "1".into(),
        };
        RemoteDescription {
            credentials: self.transport.credentials().clone(),
            fingerprints: vec![self.identity.fingerprint(HashFunction::Sha256)],
            setup,
            ice_lite: false,
            candidates: self.locals.iter().filter(|_| with_candidates).map(candidate).collect(),
            max_message_size: 262_144,
        }
    }
}

/// What the link does to a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Impairment {
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) delay: (u64, u64),
    pub(crate) garbage: u32,
}

impl Default for Impairment {
    fn default() -> Self {
        Impairment { loss: 0, duplicate: 0, delay: (10, 10), garbage: 0 }
    }
}

pub(crate) struct Datagram {
    pub(crate) at: Instant,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) server: Peer,
    pub(crate) client: Peer,
    pub(crate) impairment: Impairment,
    pub(crate) in_flight: Vec<Datagram>,
    /// The client's address as it is, and as others see it.
    pub(crate) nat: Option<(SocketAddr, SocketAddr)>,
    /// Addresses nothing reaches.
    pub(crate) dead: Vec<SocketAddr>,
    /// Bytes the server sent to an address, and what arrived from it.
    pub(crate) sent: BTreeMap<SocketAddr, u64>,
    pub(crate) received: BTreeMap<SocketAddr, u64>,
    /// Looked at by tests: what the server sent, newest last.
    pub(crate) log: Vec<(SocketAddr, Vec<u8>)>,
    random: u64,
}

impl World {
    #[allow(clippy::needless_pass_by_value, reason = "made where they are given")]
    pub(crate) fn new(seed: u64, server: Options, client: Options) -> World {
        let now = Instant::now();
        World {
            now,
            start: now,
            server: Peer::new(now, &server),
            client: Peer::new(now, &client),
            impairment: Impairment::default(),
            in_flight: Vec::new(),
            nat: None,
            dead: Vec::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            log: Vec::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// Exchanges descriptions: the client is the DTLS client unless it is told otherwise.
    pub(crate) fn introduce(&mut self, client: Setup, candidates: bool) {
        let theirs = if client == Setup::Active { Setup::Passive } else { Setup::Active };
        let to_server = self.client.description(client, candidates);
        let to_client = self.server.description(theirs, true);
        self.server.transport.set_remote(self.now, &to_server).unwrap();
        self.client.transport.set_remote(self.now, &to_client).unwrap();
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below.max(1)
    }

    fn happens(&mut self, percent: u32) -> bool {
        self.random(100) < u64::from(percent)
    }

    pub(crate) fn peer(&mut self, side: Side) -> &mut Peer {
        match side {
            Side::Server => &mut self.server,
            Side::Client => &mut self.client,
        }
    }

    /// Puts a datagram on the link.
    #[allow(clippy::needless_pass_by_value, reason = "it is gone")]
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let copies = if self.happens(self.impairment.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let (least, most) = self.impairment.delay;
            let at = self.now + Duration::from_millis(least + self.random(most - least + 1));
            if self.happens(self.impairment.garbage) {
                let mut broken = bytes.clone();
                let place = self.random(broken.len() as u64) as usize;
                broken[place] ^= 1 << self.random(8);
                // A handshake in clear cannot tell a forged message from its own; checksums catch what is only broken.
                let secured = self.server.connection.is_some() && self.client.connection.is_some();
                if secured || protocol(&bytes) != Protocol::Dtls {
                    self.in_flight.push(Datagram { at, from, to, bytes: broken });
                }
                let length = self.random(300) as usize;
                let first = self.random(80) as u8;
                let mut noise: Vec<u8> = (0..length).map(|_| self.random(256) as u8).collect();
                noise.insert(0, first);
                self.in_flight.push(Datagram { at, from, to, bytes: noise });
            }
            if !self.happens(self.impairment.loss) {
                self.in_flight.push(Datagram { at, from, to, bytes: bytes.clone() });
            }
        }
    }

    fn drain(&mut self, side: Side) {
        let now = self.now;
        while let Some(output) = self.peer(side).transport.poll(now) {
            let peer = self.peer(side);
            match output {
                Output::Datagram { endpoint, to, bytes } => {
                    assert!(bytes.len() <= 1_200, "{} bytes", bytes.len());
                    peer.datagrams += 1;
                    let local = peer.locals.iter().find(|local| local.endpoint == endpoint).unwrap();
                    let mut from = local.address;
                    if side == Side::Server {
                        *self.sent.entry(to).or_default() += bytes.len() as u64;
                        self.log.push((to, bytes.clone()));
                    }
                    if let Some((inner, outer)) = self.nat.filter(|(inner, _)| *inner == from) {
                        debug_assert_eq!(inner, from);
                        from = outer;
                    }
                    self.send(from, to, bytes);
                }
                Output::Connected(connection) => {
                    assert!(peer.connection.is_none(), "connected twice");
                    peer.connection = Some(*connection);
                    if peer.release {
                        peer.transport.release();
                    }
                }
                Output::Moved(path) => peer.moved.push(path),
                Output::ChannelOpen { channel, label } => peer.channels.push((channel, label)),
                Output::Message { channel, text, bytes } => peer.messages.push((channel, text, bytes)),
                Output::ChannelClosed(channel) => peer.closed_channels.push(channel),
                Output::Closed(reason) => peer.closed.push(reason),
            }
        }
    }

    fn deliver(&mut self, datagram: Datagram) {
        let Datagram { from, mut to, bytes, .. } = datagram;
        if self.dead.contains(&to) || self.dead.contains(&from) {
            return;
        }
        if let Some((inner, outer)) = self.nat {
            if to == outer {
                to = inner;
            } else if to == inner {
                return;
            }
        }
        let now = self.now;
        for side in [Side::Server, Side::Client] {
            let peer = self.peer(side);
            let Some(local) = peer.locals.iter().find(|local| local.address == to) else { continue };
            let endpoint = local.endpoint.clone();
            peer.transport.handle_datagram(now, &endpoint, from, &bytes);
            if side == Side::Server {
                *self.received.entry(from).or_default() += bytes.len() as u64;
            }
        }
    }

    /// Runs until the condition holds; whether it did within the time.
    pub(crate) fn run(&mut self, millis: u64, mut until: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + Duration::from_millis(millis);
        for _ in 0..2_000_000 {
            self.drain(Side::Server);
            self.drain(Side::Client);
            if until(self) {
                return true;
            }
            let timers = [self.server.transport.next_timeout(), self.client.transport.next_timeout()];
            let arrivals = self.in_flight.iter().map(|datagram| datagram.at);
            let Some(next) = arrivals.chain(timers.into_iter().flatten()).min() else {
                self.now = end;
                return false;
            };
            if next > end {
                self.now = end;
                return false;
            }
            // Time never stands still for a timer, as it would not for a real one.
            self.now = self.now.max(next) + Duration::from_micros(10);
            let now = self.now;
            let (due, rest): (Vec<_>, Vec<_>) = self.in_flight.drain(..).partition(|datagram| datagram.at <= now);
            self.in_flight = rest;
            for datagram in due {
                self.deliver(datagram);
            }
            for (side, timer) in [Side::Server, Side::Client].into_iter().zip(timers) {
                if timer.is_some_and(|at| at <= now) {
                    self.peer(side).transport.handle_timeout(now);
                }
            }
        }
        panic!("no end of timers");
    }

    pub(crate) fn connect(&mut self) {
        let connected =
            self.run(20_000, |world| world.server.connection.is_some() && world.client.connection.is_some());
        let (server, client) = (self.server.transport.status(), self.client.transport.status());
        assert!(connected, "server {server:#?} {:?}\nclient {client:#?} {:?}", self.server.closed, self.client.closed);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

pub(crate) fn server() -> Options {
    Options {
        name: "server",
        addresses: vec!["192.0.2.1:4000"],
        controlling: false,
        tie_breaker: 1 << 40,
        version: DtlsVersion::V1_2,
        sctp_connect: false,
        limits: Limits::default(),
    }
}

pub(crate) fn client() -> Options {
    Options {
        name: "client",
        addresses: vec!["198.51.100.7:5000"],
        controlling: true,
        tie_breaker: 1 << 41,
        sctp_connect: true,
        ..server()
    }
}

/// A binding request as a peer with the other half of the credentials writes it.
pub(crate) fn binding_request(to: &Credentials, from: &Credentials, controlling: bool, nominate: bool) -> Vec<u8> {
    use is::stun::{StunMessage, TransId};
    let username = format!("{}:{}", to.ufrag, from.ufrag);
    let message = StunMessage::binding_request(&username, TransId::new(), controlling, 1 << 41, 1_000, nominate);
    let mut buffer = [0; 600];
    let length = message.to_bytes(Some(to.password.as_bytes()), &mut buffer, hmac).unwrap();
    buffer[..length].to_vec()
}

pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    use aws_lc_rs::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key};
    let mut context = Context::with_key(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().try_into().unwrap()
}
