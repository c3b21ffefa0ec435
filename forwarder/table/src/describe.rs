//! Rows and changes as an operator reads them: fields as text, keys as fingerprints. Never shows a secret.

use serde::{Deserialize, Serialize};
use sluice_srtp::key::MasterKey;

use crate::model::{Change, Entry, EntryKind, Hears, Leg, Name, Source, Table};

/// What happens to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The row is new.
    Added,
    /// The row goes.
    Removed,
    /// Some fields change.
    Changed,
}

/// A field that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field as table files spell it.
    pub key: String,
    /// Its value before; empty where it had none.
    pub old: String,
    /// Its value after; empty where it has none.
    pub new: String,
}

/// One change for people: no secret, only what differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// What happens.
    pub action: Action,
    /// Kind of the row.
    pub kind: EntryKind,
    /// Its name.
    pub name: Name,
    /// The fields that differ; empty unless `action` is [`Action::Changed`].
    pub fields: Vec<FieldChange>,
}

impl Table {
    /// Says what `changes` would do to this table, one view for each row that would differ, in order.
    pub fn describe(&self, changes: &[Change]) -> Vec<ChangeView> {
        changes.iter().filter_map(|change| self.describe_one(change)).collect()
    }

    fn describe_one(&self, change: &Change) -> Option<ChangeView> {
        let (kind, name) = change.row();
        let old = self.get(kind, name);
        let new = match change {
            Change::Put(_, entry) => Some(entry.clone()),
            Change::Remove(..) => None,
            Change::Switch { input, .. } => match &old {
                Some(Entry::Source(source)) => Some(Entry::Source(Source { input: input.clone(), ..source.clone() })),
                _ => None,
            },
        };
        let (action, fields) = match (&old, &new) {
            (None, None) => return None,
            (None, Some(_)) => (Action::Added, Vec::new()),
            (Some(_), None) => (Action::Removed, Vec::new()),
            (Some(old), Some(new)) => (Action::Changed, field_changes(old, new)),
        };
        if action == Action::Changed && old == new {
            return None;
        }
        Some(ChangeView { action, kind, name: name.clone(), fields })
    }
}

fn field_changes(old: &Entry, new: &Entry) -> Vec<FieldChange> {
    let mut changes: Vec<FieldChange> = old
        .fields()
        .into_iter()
        .zip(new.fields())
        .filter(|((_, old), (_, new))| old != new)
        .map(|((key, old), (_, new))| FieldChange { key: key.to_owned(), old, new })
        .collect();
    if changes.is_empty() {
        // Only a value that has no printable form can differ here: an ICE password or the salt of a key.
        changes.push(FieldChange { key: "secret".to_owned(), old: String::new(), new: "(changed)".to_owned() });
    }
    changes
}

impl Entry {
    /// Every field as text, as table files spell them, always the same ones in the same order for a kind;
    /// a field without a value is empty, keys are their profile and fingerprint.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Entry::Endpoint(row) => {
                vec![("interface", row.interface.clone()), ("address", row.address.to_string())]
            }
            Entry::Leg(row) => leg_fields(row),
            Entry::Ingress(row) => vec![
                ("leg", row.leg.to_string()),
                ("ssrc", row.ssrc.0.to_string()),
                ("kind", row.kind.to_string()),
                ("clock_rate", row.clock_rate.to_string()),
                ("payload_types", list(&row.payload_types)),
                ("announced", text(row.role.announced.map(|ssrc| ssrc.0))),
                ("candidate", text(row.role.candidate.as_ref())),
                ("repairs.stream", text(row.role.repairs.as_ref().map(|r| &r.stream))),
                (
                    "repairs.payload_types",
                    row.role.repairs.as_ref().map(|r| pairs(&r.payload_types)).unwrap_or_default(),
                ),
            ],
            Entry::Learn(row) => vec![
                ("leg", row.leg.to_string()),
                ("mid", text(row.mid.as_ref())),
                ("rid", text(row.rid.as_ref())),
                ("repaired_rid", text(row.repaired_rid.as_ref())),
                ("kind", row.kind.to_string()),
                ("clock_rate", row.clock_rate.to_string()),
                ("payload_types", list(&row.payload_types)),
                ("announced", text(row.role.announced.map(|ssrc| ssrc.0))),
                ("candidate", text(row.role.candidate.as_ref())),
                ("repairs.stream", text(row.role.repairs.as_ref().map(|r| &r.stream))),
                (
                    "repairs.payload_types",
                    row.role.repairs.as_ref().map(|r| pairs(&r.payload_types)).unwrap_or_default(),
                ),
            ],
            Entry::Source(row) => vec![
                ("kind", row.kind.to_string()),
                ("clock_rate", row.clock_rate.to_string()),
                ("input", text(row.input.as_ref())),
                ("layers", names(&row.layers)),
                ("select", text(row.select.as_ref())),
            ],
            Entry::Egress(row) => vec![
                ("leg", row.leg.to_string()),
                ("ssrc", row.ssrc.0.to_string()),
                ("source", row.source.to_string()),
                ("payload_types", pairs(&row.payload_types)),
                ("first_sequence", text(row.first_sequence)),
                ("mid", text(row.mid.as_ref())),
                ("csrc", row.csrc.to_string()),
                ("dscp", text(row.dscp)),
                ("layer", text(row.layer)),
                ("rtx.ssrc", text(row.rtx.as_ref().map(|rtx| rtx.ssrc.0))),
                ("rtx.payload_types", row.rtx.as_ref().map(|rtx| pairs(&rtx.payload_types)).unwrap_or_default()),
                ("history", row.history.to_string()),
            ],
        }
    }
}

fn leg_fields(row: &Leg) -> Vec<(&'static str, String)> {
    let ids = row.extensions.pairs();
    let ids: Vec<String> = ids.iter().filter_map(|(name, id)| id.map(|id| format!("{name}={id}"))).collect();
    let ice = row.ice.as_ref().map(|ice| {
        let tuples: Vec<String> = ice.tuples.iter().map(ToString::to_string).collect();
        let role = if ice.controlling { "controlling" } else { "controlled" };
        format!("{}:{} {role} {}", ice.remote_ufrag, ice.local_ufrag, tuples.join(" "))
    });
    vec![
        ("endpoint", row.endpoint.to_string()),
        ("kind", row.kind.to_string()),
        ("remote", row.remote.to_string()),
        ("srtp_in", row.inbound.as_ref().map(show_key).unwrap_or_default()),
        ("srtp_out", row.outbound.as_ref().map(show_key).unwrap_or_default()),
        ("accept_key_reuse", row.accept_key_reuse.to_string()),
        ("extensions", ids.join(" ")),
        ("limits.bits_per_second", row.limits.bits_per_second.to_string()),
        ("limits.packets_per_second", row.limits.packets_per_second.to_string()),
        ("limits.audio_bits_per_second", row.limits.audio_bits_per_second.to_string()),
        ("limits.video_bits_per_second", row.limits.video_bits_per_second.to_string()),
        ("ice", ice.unwrap_or_default()),
        ("member", text(row.member)),
        ("hears", text(row.hears.as_ref().map(heard))),
        ("feedback.reports", row.feedback.reports.to_string()),
        ("feedback.transport_cc", row.feedback.transport_cc.to_string()),
        ("feedback.nack", row.feedback.nack.to_string()),
        ("feedback.key_frame", text(row.feedback.key_frame.map(key_frame))),
    ]
}

fn key_frame(request: crate::KeyFrameRequest) -> &'static str {
    match request {
        crate::KeyFrameRequest::Pli => "pli",
        crate::KeyFrameRequest::Fir => "fir",
    }
}

fn pairs(map: &[(u8, u8)]) -> String {
    map.iter().map(|(from, to)| format!("{from}={to}")).collect::<Vec<_>>().join(" ")
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

fn list(values: &[u8]) -> String {
    values.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

fn names(values: &[Name]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn heard(hears: &Hears) -> String {
    let members: Vec<String> =
        (0..Hears::MEMBERS).filter(|member| hears.contains(*member)).map(|member| member.to_string()).collect();
    if members.is_empty() { "nobody".to_owned() } else { members.join(" ") }
}

/// A key's profile and fingerprint.
fn show_key(key: &MasterKey) -> String {
    format!("{} {}", key.profile().name(), key.fingerprint())
}
