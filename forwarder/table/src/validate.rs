//! Whether a table means something: references, unique wire identities, ranges and keys. Never looks at
//! what a machine has (interfaces, capacity); the forwarder does that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Egress, EntryKind, ExtensionIds, Ice, Learn, Leg, LegKind, Name, Remote, Source, Table};

mod sources;

/// One thing wrong with one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Kind of the row.
    pub kind: EntryKind,
    /// Its name.
    pub name: Name,
    /// The field, as table files spell it.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.kind, self.name, self.key, self.message)
    }
}

/// Clock rates an RTP stream may have, in Hz.
pub const CLOCK_RATES: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// First sequence numbers a static stream may start with (RFC 3711 §3.3.1: the first half is safe for a late joiner).
pub const FIRST_SEQUENCES: std::ops::RangeInclusive<u16> = 1..=16_384;
/// Most payload types, or pairs of them, a stream may list.
pub const MAX_PAYLOAD_TYPES: usize = 128;
/// Pairs of payload types of a repair stream.
pub const MAX_REPAIR_TYPES: usize = 4;
/// Packets an egress stream keeps at most, to send them again.
pub const MAX_HISTORY: u16 = 1_024;
/// Longest mid, rid or repaired rid, in bytes: what a one-byte-header extension element carries (RFC 8285 §4.2).
pub const MAX_SDES: usize = 16;

impl Table {
    /// Checks the whole table and reports everything wrong with it, ordered by kind and name.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut check = Check { table: self, problems: Vec::new() };
        check.endpoints();
        check.legs();
        check.ingress();
        check.learn();
        check.sources();
        check.egress();
        if check.problems.is_empty() { Ok(()) } else { Err(check.problems) }
    }

    /// Kind of the row an egress stream or a source would carry under this name.
    fn carried(&self, name: &Name) -> Option<(EntryKind, crate::Kind, u32)> {
        let ingress = self.ingress.get(name).map(|r| (EntryKind::Ingress, r.kind, r.clock_rate));
        let learn = || self.learn.get(name).map(|r| (EntryKind::Learn, r.kind, r.clock_rate));
        let source = || self.sources.get(name).map(|r| (EntryKind::Source, r.kind, r.clock_rate));
        ingress.or_else(learn).or_else(source)
    }
}

struct Check<'a> {
    table: &'a Table,
    problems: Vec<Problem>,
}

/// Reports every second and later user of an identity that must be unique.
fn first_users<'a, K: Hash + Eq>(users: impl Iterator<Item = (K, &'a Name)>) -> Vec<(&'a Name, &'a Name)> {
    let mut first: HashMap<K, &Name> = HashMap::new();
    let mut again = Vec::new();
    for (identity, name) in users {
        match first.entry(identity) {
            std::collections::hash_map::Entry::Occupied(holder) => again.push((name, *holder.get())),
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(name);
            }
        }
    }
    again
}

impl Check<'_> {
    fn report(&mut self, kind: EntryKind, name: &Name, key: &str, message: impl Into<String>) {
        self.problems.push(Problem { kind, name: name.clone(), key: key.to_owned(), message: message.into() });
    }

    fn endpoints(&mut self) {
        let table = self.table;
        let kind = EntryKind::Endpoint;
        for (name, row) in &table.endpoints {
            // IFNAMSIZ is 16 with the terminating zero.
            let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
            if row.interface.is_empty() || row.interface.len() > 15 || row.interface.contains(bad) {
                self.report(kind, name, "interface", "expected an interface name of 1 to 15 bytes, e.g. \"eth0\"");
            }
            if row.address.ip().is_unspecified() || row.address.ip().is_multicast() || row.address.port() == 0 {
                let message = format!("{} is not a unicast address with a port, e.g. \"192.0.2.1:3478\"", row.address);
                self.report(kind, name, "address", message);
            }
        }
        for (name, holder) in first_users(table.endpoints.iter().map(|(n, r)| (r.address, n))) {
            self.report(kind, name, "address", format!("endpoint {holder} has this address already"));
        }
    }

    fn legs(&mut self) {
        let table = self.table;
        let kind = EntryKind::Leg;
        let sends: BTreeSet<&Name> =
            table.ingress.values().map(|r| &r.leg).chain(table.learn.values().map(|r| &r.leg)).collect();
        let receives: BTreeSet<&Name> = table.egress.values().map(|r| &r.leg).collect();
        for (name, leg) in &table.legs {
            match table.endpoints.get(&leg.endpoint) {
                None => self.report(kind, name, "endpoint", dangling("endpoint", &leg.endpoint)),
                Some(endpoint) => {
                    for peer in peers(leg).filter(|p| p.is_ipv4() != endpoint.address.is_ipv4()) {
                        let message =
                            format!("{peer} and endpoint {} ({}) differ in IP version", leg.endpoint, endpoint.address);
                        self.report(kind, name, "remote", message);
                    }
                }
            }
            for peer in peers(leg).filter(|p| p.ip().is_unspecified() || p.ip().is_multicast() || p.port() == 0) {
                self.report(kind, name, "remote", format!("{peer} is not a unicast address with a port"));
            }
            self.leg_keys(name, leg, sends.contains(name), receives.contains(name));
            self.leg_extensions(name, &leg.extensions);
            self.membership(name, leg);
            for (key, value) in [
                ("bits_per_second", leg.limits.bits_per_second),
                ("packets_per_second", u64::from(leg.limits.packets_per_second)),
                ("audio_bits_per_second", leg.limits.audio_bits_per_second),
                ("video_bits_per_second", leg.limits.video_bits_per_second),
            ] {
                if value == 0 {
                    self.report(
                        kind,
                        name,
                        &format!("limits.{key}"),
                        "is 0 and would drop everything; expected 1 or more",
                    );
                }
            }
            if let Some(ice) = &leg.ice {
                self.leg_ice(name, leg, ice);
            }
            self.leg_feedback(name, leg);
        }
        let tuples = table.legs.iter().flat_map(|(n, l)| peers(l).map(move |p| ((&l.endpoint, p), n)));
        for (name, holder) in first_users(tuples).into_iter().filter(|(name, holder)| name != holder) {
            self.report(kind, name, "remote", format!("leg {holder} of the same endpoint has this address already"));
        }
        let keyed = table.legs.iter().filter_map(|(n, l)| l.outbound.as_ref().map(|k| (k.key_id(), n)));
        for (name, holder) in first_users(keyed) {
            let message = format!("leg {holder} sends under the same master key; every leg needs a key of its own");
            self.report(kind, name, "srtp_out", message);
        }
    }

    fn leg_keys(&mut self, name: &Name, leg: &Leg, sends: bool, receives: bool) {
        let kind = EntryKind::Leg;
        for (key, value, needed, verb) in
            [("srtp_in", &leg.inbound, sends, "sends"), ("srtp_out", &leg.outbound, receives, "receives")]
        {
            match (leg.kind, value) {
                (LegKind::Plain, Some(_)) => self.report(kind, name, key, "a plain leg has no SRTP; expected no key"),
                (LegKind::Plain, None) => {}
                // An established leg may wait for its keys; a static one would wait for ever.
                (_, None) if needed && leg.ice.is_none() => {
                    self.report(kind, name, key, format!("missing although the leg {verb} streams; expected a key"));
                }
                _ => {}
            }
        }
        if let (Some(inbound), Some(outbound)) = (&leg.inbound, &leg.outbound)
            && inbound.key_id() == outbound.key_id()
        {
            self.report(kind, name, "srtp_out", "is also srtp_in; expected a key for each direction");
        }
    }

    fn leg_feedback(&mut self, name: &Name, leg: &Leg) {
        let kind = EntryKind::Leg;
        if leg.feedback == crate::Feedback::default() {
            return;
        }
        if leg.kind != LegKind::Plain && leg.outbound.is_none() && leg.ice.is_none() {
            self.report(kind, name, "srtp_out", "missing although the leg is sent feedback; expected a key");
        }
        if leg.feedback.transport_cc && leg.extensions.transport_cc.is_none() {
            let message = "needs extensions.transport_cc, the id that numbers arrive under";
            self.report(kind, name, "feedback.transport_cc", message);
        }
    }

    /// A stream of the same leg and kind that repairs nothing itself, and payload types in range.
    fn repairs(&mut self, kind: EntryKind, name: &Name, leg: &Name, role: &crate::StreamRole) {
        let Some(repair) = &role.repairs else { return };
        let table = self.table;
        let ingress = table.ingress.get(&repair.stream).map(|row| (&row.leg, &row.role));
        let target = ingress.or_else(|| table.learn.get(&repair.stream).map(|row| (&row.leg, &row.role)));
        match target {
            None => {
                let message = format!("no ingress stream or learn rule is called {}", repair.stream);
                self.report(kind, name, "repairs.stream", message);
            }
            Some((other, _)) if other != leg => {
                let message = format!("{} is a stream of leg {other}; expected one of leg {leg}", repair.stream);
                self.report(kind, name, "repairs.stream", message);
            }
            Some((_, role)) if role.repairs.is_some() => {
                self.report(kind, name, "repairs.stream", format!("{} repairs a stream itself", repair.stream));
            }
            Some(_) => {}
        }
        if repair.payload_types.is_empty() || repair.payload_types.len() > MAX_REPAIR_TYPES {
            self.report(kind, name, "repairs.payload_types", "expected 1 to 4 pairs such as 97 = 96");
        }
        self.payload_map(kind, name, "repairs.payload_types", &repair.payload_types);
    }

    fn payload_map(&mut self, kind: EntryKind, name: &Name, key: &str, map: &[(u8, u8)]) {
        if map.len() > MAX_PAYLOAD_TYPES {
            self.report(kind, name, key, "expected at most 128 pairs");
        }
        let mut seen = [false; 128];
        for (from, to) in map {
            if *from > 127 || *to > 127 {
                let message = format!("{from} -> {to} is out of range; expected payload types 0 to 127");
                self.report(kind, name, key, message);
            } else if std::mem::replace(&mut seen[usize::from(*from)], true) {
                self.report(kind, name, key, format!("{from} is mapped twice; expected once"));
            }
        }
    }

    fn leg_extensions(&mut self, name: &Name, ids: &ExtensionIds) {
        let mut users: BTreeMap<u8, &str> = BTreeMap::new();
        for (key, id) in ids.pairs() {
            let field = format!("extensions.{key}");
            match id {
                None => {}
                Some(0) => self.report(EntryKind::Leg, name, &field, "id 0 is padding; expected 1 to 255"),
                Some(id) => {
                    if let Some(other) = users.insert(id, key) {
                        let message = format!("id {id} is taken by {other}; expected an id of its own");
                        self.report(EntryKind::Leg, name, &field, message);
                    }
                }
            }
        }
    }

    fn leg_ice(&mut self, name: &Name, leg: &Leg, ice: &Ice) {
        let kind = EntryKind::Leg;
        for (key, text, least) in [
            ("ice.local_ufrag", &ice.local_ufrag, 4),
            ("ice.local_password", &ice.local_password, 22),
            ("ice.remote_ufrag", &ice.remote_ufrag, 4),
            ("ice.remote_password", &ice.remote_password, 22),
        ] {
            let ok = (least..=256).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
            if !ok {
                // The text itself stays out of the message: half of these are passwords.
                self.report(
                    kind,
                    name,
                    key,
                    format!("expected {least} to 256 letters, digits, + or / (RFC 8839 §5.4)"),
                );
            }
        }
        if ice.tuples.is_empty() || ice.tuples.len() > Ice::MAX_TUPLES {
            self.report(kind, name, "ice.tuples", format!("{} tuples; expected 1 to 8", ice.tuples.len()));
        }
        match leg.remote {
            Remote::Learn => {
                self.report(kind, name, "ice", "an established leg has tuples; expected `remote`, not `learn_remote`");
            }
            Remote::Fixed(address) if ice.tuples.first().is_some_and(|selected| *selected != address) => {
                self.report(
                    kind,
                    name,
                    "remote",
                    format!("{address} is not the selected tuple, the first of ice.tuples"),
                );
            }
            Remote::Fixed(_) => {}
        }
    }

    fn ingress(&mut self) {
        let table = self.table;
        let kind = EntryKind::Ingress;
        let groups = self.groups();
        for (name, row) in &table.ingress {
            self.stream(kind, name, &row.leg, row.clock_rate, &row.payload_types);
            self.candidate(&groups, (kind, name), (row.kind, row.clock_rate), &row.role);
            self.repairs(kind, name, &row.leg, &row.role);
        }
        for (name, holder) in first_users(table.ingress.iter().map(|(n, r)| ((&r.leg, r.ssrc), n))) {
            self.report(kind, name, "ssrc", format!("ingress {holder} of the same leg has this SSRC already"));
        }
    }

    fn learn(&mut self) {
        let table = self.table;
        let kind = EntryKind::Learn;
        let groups = self.groups();
        for (name, row) in &table.learn {
            self.candidate(&groups, (kind, name), (row.kind, row.clock_rate), &row.role);
            self.stream(kind, name, &row.leg, row.clock_rate, &row.payload_types);
            self.learn_shape(name, row);
            self.repairs(kind, name, &row.leg, &row.role);
            if table.ingress.contains_key(name) {
                self.report(kind, name, "name", "an ingress stream has this name; egress could mean either");
            }
        }
        let rules = table.learn.iter().map(|(n, r)| ((&r.leg, &r.mid, &r.rid, &r.repaired_rid, &r.payload_types), n));
        for (name, holder) in first_users(rules) {
            self.report(kind, name, "rid", format!("rule {holder} of the same leg matches exactly the same packets"));
        }
    }

    fn learn_shape(&mut self, name: &Name, row: &Learn) {
        let kind = EntryKind::Learn;
        if row.rid.is_some() && row.repaired_rid.is_some() {
            self.report(kind, name, "repaired_rid", "a packet carries rid or repaired_rid; expected one of them");
        }
        let ids = self.table.legs.get(&row.leg).map(|l| l.extensions);
        for (key, value, id) in [
            ("mid", &row.mid, ids.map(|i| i.mid)),
            ("rid", &row.rid, ids.map(|i| i.rid)),
            ("repaired_rid", &row.repaired_rid, ids.map(|i| i.repaired_rid)),
        ] {
            let Some(value) = value else { continue };
            self.sdes(kind, name, key, value);
            if id == Some(None) {
                let message = format!("leg {} has no extensions.{key} id, so no packet can carry it", row.leg);
                self.report(kind, name, key, message);
            }
        }
    }

    fn egress(&mut self) {
        let table = self.table;
        let kind = EntryKind::Egress;
        for (name, row) in &table.egress {
            if !table.legs.contains_key(&row.leg) {
                self.report(kind, name, "leg", dangling("leg", &row.leg));
            }
            if table.carried(&row.source).is_none() {
                let message = format!("no ingress stream, learn rule or source is called {}", row.source);
                self.report(kind, name, "source", message);
            }
            self.egress_ranges(name, row);
        }
        let ssrcs = table.egress.iter().flat_map(|(n, r)| {
            let repair = r.rtx.as_ref().map(|rtx| ((&r.leg, rtx.ssrc), n));
            std::iter::once(((&r.leg, r.ssrc), n)).chain(repair)
        });
        for (name, holder) in first_users(ssrcs) {
            self.report(kind, name, "ssrc", format!("egress {holder} of the same leg has this SSRC already"));
        }
    }

    fn egress_ranges(&mut self, name: &Name, row: &Egress) {
        let kind = EntryKind::Egress;
        self.payload_map(kind, name, "payload_types", &row.payload_types);
        if let Some(rtx) = &row.rtx {
            self.payload_map(kind, name, "rtx.payload_types", &rtx.payload_types);
            if rtx.payload_types.is_empty() || rtx.payload_types.len() > MAX_REPAIR_TYPES {
                self.report(kind, name, "rtx.payload_types", "expected 1 to 4 pairs such as 96 = 97");
            }
            if row.history == 0 {
                self.report(kind, name, "history", "is 0, so the repair stream never sends; expected 1 or more");
            }
        }
        if row.history > MAX_HISTORY {
            self.report(kind, name, "history", format!("{} is out of range; expected 0 to 1024", row.history));
        }
        if let Some(first) = row.first_sequence
            && !FIRST_SEQUENCES.contains(&first)
        {
            self.report(kind, name, "first_sequence", format!("{first} is out of range; expected 1 to 16384"));
        }
        if let Some(dscp) = row.dscp
            && dscp > 63
        {
            self.report(kind, name, "dscp", format!("{dscp} is out of range; expected 0 to 63"));
        }
        if let Some(layer) = row.layer.filter(|layer| usize::from(*layer) >= Source::MAX_LAYERS) {
            let message = format!("{layer} is out of range; expected 0 to {}", Source::MAX_LAYERS - 1);
            self.report(kind, name, "layer", message);
        }
        if let Some(mid) = &row.mid {
            self.sdes(kind, name, "mid", mid);
            if self.table.legs.get(&row.leg).is_some_and(|leg| leg.extensions.mid.is_none()) {
                self.report(kind, name, "mid", format!("leg {} has no extensions.mid id to send it under", row.leg));
            }
        }
    }

    fn stream(&mut self, kind: EntryKind, name: &Name, leg: &Name, clock_rate: u32, payload_types: &[u8]) {
        if !self.table.legs.contains_key(leg) {
            self.report(kind, name, "leg", dangling("leg", leg));
        }
        self.clock(kind, name, clock_rate);
        if payload_types.is_empty() || payload_types.len() > MAX_PAYLOAD_TYPES {
            let message = format!("{} payload types; expected 1 to 128 of them", payload_types.len());
            self.report(kind, name, "payload_types", message);
        }
        for payload_type in payload_types.iter().filter(|p| **p > 127) {
            let message = format!("{payload_type} is out of range; expected payload types 0 to 127");
            self.report(kind, name, "payload_types", message);
        }
    }

    fn clock(&mut self, kind: EntryKind, name: &Name, clock_rate: u32) {
        if !CLOCK_RATES.contains(&clock_rate) {
            self.report(kind, name, "clock_rate", format!("{clock_rate} Hz is out of range; expected 1 to 1000000"));
        }
    }

    fn sdes(&mut self, kind: EntryKind, name: &Name, key: &str, value: &str) {
        if value.is_empty() || value.len() > MAX_SDES || !value.bytes().all(|b| b.is_ascii_graphic()) {
            self.report(kind, name, key, "expected 1 to 16 printable ASCII characters without spaces");
        }
    }
}

/// Every address of a peer that is known.
fn peers(leg: &Leg) -> impl Iterator<Item = SocketAddr> {
    let fixed = match leg.remote {
        Remote::Fixed(address) => Some(address),
        Remote::Learn => None,
    };
    let validated = leg.ice.iter().flat_map(|ice| ice.tuples.iter().copied());
    fixed.into_iter().chain(validated.filter(move |t| Some(*t) != fixed))
}

fn dangling(what: &str, name: &Name) -> String {
    format!("no {what} is called {name}")
}
