//! What the fuzz targets of control check: no panic, and what was understood is true of the input. Shared by libFuzzer's
//! binaries and by the test that runs the corpora; reads and writes nothing.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sluice_control::dialect::Random;
use sluice_control::dialect::wire::offer::Offered;
use sluice_control::dialect::wire::{Action, Event, RequestId, Wire, WireConfig, answer};
use sluice_control::sdp::SessionDescription;
use sluice_control::transport::{
    Credentials, DtlsVersion, HashFunction, Identity, Limits, LocalCandidate, Output, RemoteDescription, Setup,
    Transport, TransportConfig,
};
use sluice_table::Name;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Names are those of the binaries and of the directories below `corpus`.
pub const TARGETS: &[Target] = &[("sdp", sdp), ("wire", wire), ("transport", transport)];

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
