//! The table as it may leave the forwarder: keys replaced by profile and fingerprint, no passwords.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sluice_srtp::Profile;
use sluice_srtp::key::{Fingerprint, MasterKey};

use crate::model::{
    Egress, Endpoint, ExtensionIds, Feedback, Hears, Ice, Ingress, Learn, Leg, LegKind, Limits, Name, Remote, Source,
    Table,
};

/// A key's public side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Its profile.
    pub profile: Profile,
    /// Its fingerprint; 8 hex digits in JSON.
    #[serde(with = "hex")]
    pub fingerprint: Fingerprint,
}

/// A fingerprint as people see it everywhere, and as its number on the wire.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use sluice_srtp::key::Fingerprint;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub(super) fn serialize<S: Serializer>(fingerprint: &Fingerprint, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(fingerprint);
        }
        fingerprint.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return u32::from_str_radix(&text, 16).map(Fingerprint).map_err(D::Error::custom);
        }
        Fingerprint::deserialize(deserializer)
    }
}

impl From<&MasterKey> for KeyView {
    fn from(key: &MasterKey) -> KeyView {
        KeyView { profile: key.profile(), fingerprint: key.fingerprint() }
    }
}

/// ICE state without passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceView {
    /// Our user fragment.
    pub local_ufrag: String,
    /// The peer's user fragment.
    pub remote_ufrag: String,
    /// Whether we are the controlling agent.
    pub controlling: bool,
    /// Validated tuples, selected one first.
    pub tuples: Vec<SocketAddr>,
}

impl From<&Ice> for IceView {
    fn from(ice: &Ice) -> IceView {
        IceView {
            local_ufrag: ice.local_ufrag.clone(),
            remote_ufrag: ice.remote_ufrag.clone(),
            controlling: ice.controlling,
            tuples: ice.tuples.clone(),
        }
    }
}

/// A leg without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegView {
    /// Endpoint the peer talks to.
    pub endpoint: Name,
    /// What the peer is.
    pub kind: LegKind,
    /// Where the peer is.
    pub remote: Remote,
    /// Key of packets from the peer.
    pub inbound: Option<KeyView>,
    /// Key of packets to the peer.
    pub outbound: Option<KeyView>,
    /// Whether a used static outbound key is accepted.
    pub accept_key_reuse: bool,
    /// Header extension ids.
    pub extensions: ExtensionIds,
    /// Policing.
    pub limits: Limits,
    /// ICE state.
    pub ice: Option<IceView>,
    /// Feedback sent.
    pub feedback: Feedback,
    /// The peer's number in its conference.
    pub member: Option<u16>,
    /// Members whose packets virtual sources may bring.
    pub hears: Option<Hears>,
}

impl From<&Leg> for LegView {
    fn from(leg: &Leg) -> LegView {
        LegView {
            endpoint: leg.endpoint.clone(),
            kind: leg.kind,
            remote: leg.remote.clone(),
            inbound: leg.inbound.as_ref().map(KeyView::from),
            outbound: leg.outbound.as_ref().map(KeyView::from),
            accept_key_reuse: leg.accept_key_reuse,
            extensions: leg.extensions,
            limits: leg.limits,
            ice: leg.ice.as_ref().map(IceView::from),
            feedback: leg.feedback,
            member: leg.member,
            hears: leg.hears.clone(),
        }
    }
}

/// The whole table without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The table's generation.
    pub generation: u64,
    /// Sequence number of the last event that is part of this snapshot; later ones come on top.
    pub event_sequence: u64,
    /// Local addresses.
    pub endpoints: BTreeMap<Name, Endpoint>,
    /// Peers.
    pub legs: BTreeMap<Name, LegView>,
    /// Streams received.
    pub ingress: BTreeMap<Name, Ingress>,
    /// Learn rules.
    pub learn: BTreeMap<Name, Learn>,
    /// Switched sources.
    pub sources: BTreeMap<Name, Source>,
    /// Streams sent.
    pub egress: BTreeMap<Name, Egress>,
}

impl Snapshot {
    /// A snapshot of a table.
    pub fn of(table: &Table, generation: u64, event_sequence: u64) -> Snapshot {
        Snapshot {
            generation,
            event_sequence,
            endpoints: table.endpoints.clone(),
            legs: table.legs.iter().map(|(name, leg)| (name.clone(), LegView::from(leg))).collect(),
            ingress: table.ingress.clone(),
            learn: table.learn.clone(),
            sources: table.sources.clone(),
            egress: table.egress.clone(),
        }
    }
}
