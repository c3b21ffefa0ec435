//! A node to test without sockets, and its chance.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sluice_control::dialect::Random;
use sluice_control::dialect::wire::WireConfig;
use sluice_control::node::Settings;
use sluice_control::transport::{DtlsVersion, HashFunction, Identity, Limits, LocalCandidate};
use sluice_table::Name;

/// Where its media arrives.
pub const MEDIA: &str = "192.0.2.1:3480";
/// How long it leaves the rows of an earlier process alone.
pub const GRACE: Duration = Duration::from_mins(1);

pub struct Counting(pub u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&(self.0 ^ (self.0 >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}

/// Settings of a node with one endpoint, and of its dialect; conferences are numbered from 500.
pub fn node(first_transaction: u64) -> (Settings, WireConfig) {
    let identity = Arc::new(Identity::generate().unwrap());
    let address: SocketAddr = MEDIA.parse().unwrap();
    let fingerprint = identity.fingerprint(HashFunction::Sha256);
    let mut wire = WireConfig::new("https://sft.example", fingerprint, vec![address]);
    wire.first_conference = 500;
    let local = LocalCandidate { endpoint: Name::new("media0").unwrap(), address, advertised: address };
    let settings = Settings {
        identity,
        locals: vec![(local, "eth0".to_owned())],
        dtls: DtlsVersion::V1_2,
        limits: Limits::default(),
        orphan_timeout: GRACE,
        first_transaction,
    };
    (settings, wire)
}
