//! What the fuzz targets of control check: no panic, and what was understood is true of the input. Shared by libFuzzer's
//! binaries and by the test that runs the corpora; reads and writes nothing.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sluice_control::conference::{Connection, ParticipantId};
use sluice_control::dialect::Random;
use sluice_control::dialect::wire::offer::Offered;
use sluice_control::dialect::wire::{Action, Event, RequestId, Wire, WireConfig, answer};
use sluice_control::sdp::SessionDescription;
use sluice_control::transport::dcep::{self, Dcep, Reliability};
use sluice_control::transport::{
    Credentials, DtlsVersion, HashFunction, Identity, Limits, LocalCandidate, Output, RemoteDescription, Setup,
    Transport, TransportConfig,
};
use sluice_srtp::{MasterKey, Profile};
use sluice_table::{Change, Endpoint, Entry, Ice, Name, Store};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Names are those of the binaries and of the directories below `corpus`.
pub const TARGETS: &[Target] =
    &[("sdp", sdp), ("wire", wire), ("transport", transport), ("dcep", dcep), ("channel", channel)];

/// Descriptions: what was read is written, and read again as the same; and as an answer of a client.
pub fn sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let offered = Offered { audio: 5, video: 9, simulcast: true };
    if answer::answer(text, &offered, &sluice_control::sdp::Limits::default()).is_ok() {
        assert!(SessionDescription::parse(text).is_ok(), "an answer that is no description");
    }
    let Ok(description) = SessionDescription::parse(text) else { return };
    // Whatever is said about the peer is said without a panic.
    let _ = description.remote_description();
    let written = description.to_string();
    let again = SessionDescription::parse(&written);
    assert_eq!(again.map(|again| again.to_string()), Ok(written));
}

/// Messages that open data channels: what was understood is what the bytes say.
pub fn dcep(data: &[u8]) {
    let Some(Dcep::Open(open)) = dcep::parse(data) else { return };
    let at = 12 + open.label.len();
    assert_eq!(Some(open.label.as_bytes()), data.get(12..at));
    assert_eq!(open.unordered, data[1] & 0x80 != 0);
    // Ours are a part of what may come.
    if !open.unordered && open.reliability == Reliability::Full {
        assert_eq!(dcep::parse(&dcep::open(&open.label)), Some(Dcep::Open(open)));
    }
}

/// Chance without any.
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

fn identity() -> Arc<Identity> {
    static ONE: OnceLock<Arc<Identity>> = OnceLock::new();
    ONE.get_or_init(|| Arc::new(Identity::generate().expect("a certificate"))).clone()
}

/// Bodies of requests: one answer each, and nothing is left once time passed.
pub fn wire(data: &[u8]) {
    let fingerprint = identity().fingerprint(HashFunction::Sha256);
    let mut wire = Wire::new(WireConfig::new("https://sft.example", fingerprint, Vec::new()));
    let (mut random, mut actions, mut now) = (Counting(1), Vec::new(), Instant::now());
    for request in 1..=2 {
        actions.clear();
        let event = Event::Http {
            request: RequestId(request),
            method: http::Method::POST,
            path: "/sft/c0ffee".to_owned(),
            body: data.to_vec(),
            client: [192, 0, 2, 7].into(),
        };
        wire.handle(now, 1_795_198_684_238, event, &mut random, &mut actions);
        let replies: Vec<u16> = actions
            .iter()
            .filter_map(|action| if let Action::Reply { status, .. } = action { Some(*status) } else { None })
            .collect();
        assert!(matches!(replies[..], [200 | 400]), "{replies:?}");
    }
    for _ in 0..64 {
        let Some(due) = wire.next_deadline() else { break };
        now = now.max(due);
        wire.handle(now, 1_795_198_684_238, Event::Tick, &mut random, &mut actions);
    }
    assert_eq!((wire.allocations(), wire.next_deadline()), (0, None));
}

/// A conference of two whose messages are `data`: each behind its length of two bytes, from one and the other in turn.
/// Every change of the table fits, and nothing is left once time passed.
pub fn channel(data: &[u8]) {
    let fingerprint = identity().fingerprint(HashFunction::Sha256);
    let mut call = Call {
        wire: Wire::new(WireConfig::new("https://sft.example", fingerprint, Vec::new())),
        table: Store::new(),
        random: Counting(1),
        now: Instant::now(),
    };
    let row = Endpoint { interface: "eth0".to_owned(), address: SocketAddr::from(([192, 0, 2, 1], 3_480)) };
    let opened = call.table.apply(&[Change::Put(Name::new("media").expect("a name"), Entry::Endpoint(row))]);
    assert!(opened.is_ok());
    for user in [1, 2] {
        call.join(user);
    }
    let mut rest = data;
    for n in 0..64 {
        let [high, low, bytes @ ..] = rest else { break };
        let (text, after) = bytes.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(bytes.len()));
        rest = after;
        call.now += Duration::from_millis(5);
        call.event(Event::Message { participant: ParticipantId(1 + n % 2), text: text.to_vec() });
    }
    for _ in 0..256 {
        let Some(due) = call.wire.next_deadline() else { break };
        call.now = call.now.max(due);
        call.event(Event::Tick);
    }
    assert_eq!((call.wire.conferences().len(), call.wire.next_deadline()), (0, None));
    assert_eq!(call.table.table().len(), 1, "rows of nobody");
}

/// A dialect and the table it programs.
struct Call {
    wire: Wire,
    table: Store,
    random: Counting,
    now: Instant,
}

impl Call {
    fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.wire.handle(self.now, 1_795_198_684_238, event, &mut self.random, &mut actions);
        for action in actions {
            if let Action::Table(changes) = action {
                let applied = self.table.apply(&changes);
                assert!(applied.is_ok(), "{:?}", applied.err().map(|problems| problems[0].to_string()));
            }
        }
    }

    fn post(&mut self, user: u64, kind: &str, resp: bool, more: &str) {
        let body = format!(
            "{{\"version\":\"3.0\",\"type\":\"{kind}\",\"sessid\":\"c0ffee\",\"src_userid\":\"u{user}\",\"resp\":{resp},{more}}}"
        );
        self.event(Event::Http {
            request: RequestId(user),
            method: http::Method::POST,
            path: "/sft/c0ffee".to_owned(),
            body: body.into_bytes(),
            client: [192, 0, 2, 7].into(),
        });
    }

    /// Comes in, all the way to the open channel.
    fn join(&mut self, user: u64) {
        const ANSWER: &str = include_str!("../../control/tests/sdp/wire-answer.sdp");
        self.post(user, "CONFCONN", false, r#""toolver":"10.5.8","selective_video":true,"vstreams":9"#);
        let sdp = ANSWER.replace('\r', "\\r").replace('\n', "\\n");
        self.post(user, "SETUP", true, &format!("\"sdp\":\"{sdp}\""));
        let key = |fill: u8| MasterKey::from_bytes(Profile::AeadAes128Gcm, &[fill; 28]).expect("28 bytes");
        let connection = Box::new(Connection {
            endpoint: Name::new("media").expect("a name"),
            inbound: key(user as u8),
            outbound: key(user as u8 + 10),
            ice: Ice {
                local_ufrag: "local".to_owned(),
                local_password: "l".repeat(24),
                remote_ufrag: "remote".to_owned(),
                remote_password: "r".repeat(24),
                controlling: true,
                tie_breaker: 1,
                tuples: vec![SocketAddr::from(([192, 0, 2, 7], user as u16))],
            },
        });
        let participant = ParticipantId(user);
        self.event(Event::Connected { participant, connection });
        self.event(Event::ChannelOpen { participant });
        let place = self.wire.participant(self.now, participant).map(|view| view.stage);
        assert_eq!(place, Some("open"));
    }
}

/// STUN and DTLS before a connection exists: datagrams, each behind its length of two bytes, alternately from two
/// addresses. Never more than a few times what came in goes out to an address that answered nothing.
pub fn transport(data: &[u8]) {
    let address = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
    let endpoint = Name::new("media").expect("a name");
    let mut now = Instant::now();
    let credentials = |side: &str| Credentials {
        ufrag: format!("{side}frag"),
        password: format!("password{}{side}", "0".repeat(16)),
    };
    let local = LocalCandidate { endpoint: endpoint.clone(), address: address(1), advertised: address(1) };
    let config = TransportConfig {
        controlling: true,
        tie_breaker: 1,
        credentials: credentials("server"),
        locals: vec![local],
        identity: identity(),
        dtls: DtlsVersion::V1_2,
        sctp_connect: false,
        limits: Limits::default(),
    };
    let mut transport = Transport::new(config, now);
    let remote = RemoteDescription {
        credentials: credentials("client"),
        fingerprints: vec![identity().fingerprint(HashFunction::Sha256)],
        setup: Setup::Active,
        ice_lite: false,
        candidates: Vec::new(),
        max_message_size: 262_144,
    };
    transport.set_remote(now, &remote).expect("a good description");
    let (mut received, mut sent) = (0, 0);
    let mut rest = data;
    for n in 0..32 {
        let [high, low, bytes @ ..] = rest else { break };
        let (datagram, after) = bytes.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(bytes.len()));
        rest = after;
        received += datagram.len();
        transport.handle_datagram(now, &endpoint, address(1_000 + n % 2), datagram);
        sent += drain(&mut transport, now);
    }
    for _ in 0..400 {
        let Some(due) = transport.next_timeout() else { break };
        now = now.max(due) + Duration::from_micros(1);
        transport.handle_timeout(now);
        sent += drain(&mut transport, now);
    }
    assert!(transport.next_timeout().is_none(), "an unanswered transport ends");
    assert!(sent <= received * 3, "{sent} bytes for {received}");
}

fn drain(transport: &mut Transport, now: Instant) -> usize {
    let mut sent = 0;
    while let Some(output) = transport.poll(now) {
        match output {
            Output::Datagram { bytes, .. } => sent += bytes.len(),
            Output::Connected(_) => panic!("connected without our check being answered"),
            _ => {}
        }
    }
    sent
}
