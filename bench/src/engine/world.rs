//! A table and prepared packets around one engine.

use std::net::SocketAddr;

use sluice_forwarder::engine::Capacity;
use sluice_forwarder::manage::local::{self, Local, UNLIMITED};
use sluice_forwarder::wire::template::{Hop, Template};
use sluice_srtp::job::SealJob;
use sluice_srtp::{
    AnyProvider, MasterKey, PacketIndex, Profile, Provider, ProviderError, ProviderKind, SentWindow, SessionKeys, Ssrc,
};
use sluice_table::protocol::Refused;
use sluice_table::{Egress, Ingress, Kind, LegKind, Name, Table};

/// The endpoint everything talks to.
pub(super) const LOCAL: &str = "10.0.0.1:5000";

/// Why a bench did not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The provider does not work here.
    #[error("provider {0}")]
    Provider(#[from] ProviderError),
    /// The table was refused.
    #[error("table refused: {0}")]
    Table(#[from] Refused),
    /// A name or key could not be made.
    #[error("cannot make {0}")]
    Make(&'static str),
    /// The engine did not do what it should.
    #[error("the engine sent {got} packets instead of {wanted}; drops: {drops}")]
    Short {
        /// Packets sent.
        got: u64,
        /// Packets expected.
        wanted: u64,
        /// Where they went.
        drops: String,
    },
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Output(String),
}

/// Peer number `n`.
pub(super) fn peer(n: u32) -> SocketAddr {
    let [_, a, b, c] = (n + 2).to_be_bytes();
    SocketAddr::from(([10, 64 + a, b, c], 6_000))
}

pub(super) fn name(text: &str) -> Result<Name, BenchError> {
    Name::new(text).map_err(|_| BenchError::Make("a name"))
}

/// A key of its own for every `n`.
pub(super) fn key(profile: Profile, n: u32) -> Result<MasterKey, BenchError> {
    let mut state = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = (0..profile.key_len() + profile.salt_len())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    MasterKey::from_bytes(profile, &bytes).map_err(|_| BenchError::Make("a key"))
}

/// A table being put together.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub table: Table,
    pub profile: Option<Profile>,
    /// Whether legs negotiate what every browser does and the forwarder writes itself.
    pub numbered: bool,
}

impl Builder {
    pub(super) fn new(profile: Option<Profile>) -> Result<Self, BenchError> {
        let mut table = Table::default();
        let address = LOCAL.parse().map_err(|_| BenchError::Make("an address"))?;
        table.endpoints.insert(name("media")?, local::endpoint(address));
        Ok(Builder { table, profile, numbered: false })
    }

    /// A leg with keys both ways.
    pub(super) fn leg(&mut self, n: u32) -> Result<(), BenchError> {
        let mut leg = local::leg(&name("media")?, peer(n));
        leg.limits = UNLIMITED;
        if self.numbered {
            (leg.extensions.transport_cc, leg.extensions.abs_send_time) = (Some(3), Some(2));
        }
        match self.profile {
            Some(profile) => {
                leg.inbound = Some(key(profile, n * 2)?);
                leg.outbound = Some(key(profile, n * 2 + 1)?);
            }
            None => leg.kind = LegKind::Plain,
        }
        self.table.legs.insert(name(&format!("leg{n}"))?, leg);
        Ok(())
    }

    pub(super) fn ingress(&mut self, leg: u32, ssrc: u32, kind: Kind) -> Result<Name, BenchError> {
        let stream = name(&format!("in{ssrc}"))?;
        let row = Ingress {
            leg: name(&format!("leg{leg}"))?,
            ssrc: Ssrc(ssrc),
            kind,
            clock_rate: if kind == Kind::Audio { 48_000 } else { 90_000 },
            payload_types: vec![100],
            role: sluice_table::StreamRole::default(),
        };
        self.table.ingress.insert(stream.clone(), row);
        Ok(stream)
    }

    pub(super) fn egress(&mut self, leg: u32, ssrc: u32, source: &Name) -> Result<(), BenchError> {
        let row = Egress {
            leg: name(&format!("leg{leg}"))?,
            ssrc: Ssrc(ssrc),
            source: source.clone(),
            payload_types: vec![(100, 101)],
            first_sequence: Some(1),
            mid: None,
            csrc: false,
            dscp: None,
            layer: None,
            rtx: None,
            history: 0,
        };
        self.table.egress.insert(name(&format!("out{leg}-{ssrc}"))?, row);
        Ok(())
    }

    /// An engine with this table.
    pub(super) fn build(self, kind: ProviderKind) -> Result<Local, BenchError> {
        let t = &self.table;
        let capacity = Capacity {
            endpoints: 1,
            legs: t.legs.len(),
            tuples: t.legs.len(),
            ingress: t.ingress.len(),
            learned: 0,
            egress: t.egress.len(),
            lists: t.ingress.len() + t.sources.len(),
            cells: 1_024,
        };
        let mut local = Local::new(kind, 1, capacity)?;
        local.apply(self.table)?;
        Ok(local)
    }
}

/// Seals the packets of one stream.
#[derive(Debug)]
pub(super) struct Source {
    crypto: AnyProvider,
    keys: Option<SessionKeys>,
    window: SentWindow,
    next: u64,
    ssrc: Ssrc,
    template: Template,
    tag: usize,
}

impl Source {
    pub(super) fn new(kind: ProviderKind, profile: Option<Profile>, leg: u32, ssrc: u32) -> Result<Self, BenchError> {
        let mut crypto = AnyProvider::new(kind)?;
        let keys = match profile {
            Some(profile) => Some(crypto.expand(&key(profile, leg * 2)?)),
            None => None,
        };
        let hop = Hop { source_mac: [2; 6], destination_mac: [4; 6], vlan: None };
        let local = LOCAL.parse().map_err(|_| BenchError::Make("an address"))?;
        let template = Template::new(hop, peer(leg), local).ok_or(BenchError::Make("headers"))?;
        let tag = profile.map_or(0, Profile::rtp_tag_len);
        Ok(Source {
            crypto,
            keys,
            window: SentWindow::new(PacketIndex::new(0, sluice_srtp::Seq(1))),
            next: 1,
            ssrc: Ssrc(ssrc),
            template,
            tag,
        })
    }

    /// The next packet as a frame.
    pub(super) fn frame(&mut self, payload: &[u8]) -> Result<Vec<u8>, BenchError> {
        let index = PacketIndex::from_u64(self.next).ok_or(BenchError::Make("an index"))?;
        let index = self.window.issue(index).map_err(|_| BenchError::Make("an index"))?;
        let start = self.template.len();
        let mut frame = vec![0u8; start + 12 + payload.len() + self.tag];
        frame[start] = 0x80;
        frame[start + 1] = 100;
        frame[start + 2..start + 4].copy_from_slice(&index.index().seq().0.to_be_bytes());
        frame[start + 4..start + 8].copy_from_slice(&((self.next * 960) as u32).to_be_bytes());
        frame[start + 8..start + 12].copy_from_slice(&self.ssrc.0.to_be_bytes());
        self.next += 1;
        match &self.keys {
            Some(keys) => {
                let mut jobs = [SealJob {
                    keys,
                    ssrc: self.ssrc,
                    index,
                    plain: payload,
                    frame: &mut frame[start..],
                    header_len: 12,
                }];
                self.crypto.seal(&mut jobs);
            }
            None => frame[start + 12..].copy_from_slice(payload),
        }
        let len = frame.len() - start;
        self.template.write(&mut frame, len, 0, true);
        Ok(frame)
    }
}

/// A seeded generator.
#[derive(Debug)]
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n.max(1))) as u32
    }
}
