//! The six kinds of rows of a table file. Never validates across rows.

use std::collections::BTreeMap;

use sluice_srtp::Ssrc;
use toml_edit::Item;

use super::read::{Fields, Report, address, fail, integer, name, start, text, unknown_keys};
use super::secret;
use crate::model::{
    Egress, Endpoint, Entry, EntryKind, ExtensionIds, Feedback, Hears, Ingress, KeyFrameRequest, Kind, Learn, Leg,
    LegKind, Limits, Name, Remote, Repair, Rtx, Source, StreamRole, Table,
};

/// Where each row is written.
pub(super) type Places<'d> = BTreeMap<(EntryKind, Name), &'d toml_edit::Table>;

const A_NAME: &str = "1 to 120 printable ASCII characters without spaces";
const AN_ADDRESS: &str = "an address and port such as \"192.0.2.1:3478\" or \"[2001:db8::1]:3478\"";
const A_PAYLOAD_LIST: &str = "a list of payload types 0 to 127 such as [96, 97]";

/// Reads every row that can be read.
pub(super) fn read<'d>(document: &'d toml_edit::Table, report: &mut Report<'_>) -> (Table, Places<'d>) {
    let mut table = Table::default();
    let mut places = Places::new();
    unknown_keys(report, document, "", &EntryKind::ALL.map(EntryKind::name));
    for kind in EntryKind::ALL {
        let Some(item) = document.get(kind.name()) else { continue };
        let Some(rows) = item.as_array_of_tables() else {
            let place = item.span().or_else(|| document.key(kind.name()).and_then(toml_edit::Key::span));
            let message = format!("expected rows that start with [[{kind}]]");
            report.error(start(place), kind.name().to_owned(), message);
            report.failed.nameless = true;
            continue;
        };
        for row in rows {
            let before = report.errors();
            let label = row.get("name").and_then(name);
            let path = label.as_ref().map_or_else(|| kind.to_string(), |n| format!("{kind}.{n}"));
            let mut fields = Fields::new(report, row, start(row.span()), path);
            fields.required("name", A_NAME, name);
            let entry = entry(kind, &mut fields);
            fields.finish();
            if let Some(other) = label.as_ref().and_then(|n| places.get(&(kind, n.clone()))) {
                let first = report.line(start(other.span()));
                let key = label.as_ref().map_or_else(String::new, |n| format!("{kind}.{n}.name"));
                let place = start(row.get("name").and_then(Item::span));
                report.error(place, key, format!("is the name of the {kind} at line {first} already"));
                continue;
            }
            if let Some(n) = &label {
                places.insert((kind, n.clone()), row);
            }
            match (label, entry) {
                (Some(name), Some(entry)) if report.errors() == before => drop(table.put(name, entry)),
                (label, _) => fail(report, kind, label.as_ref()),
            }
        }
    }
    (table, places)
}

fn entry(kind: EntryKind, fields: &mut Fields<'_, '_, '_>) -> Option<Entry> {
    match kind {
        EntryKind::Endpoint => endpoint(fields).map(Entry::Endpoint),
        EntryKind::Leg => leg(fields).map(Entry::Leg),
        EntryKind::Ingress => ingress(fields).map(Entry::Ingress),
        EntryKind::Learn => learn(fields).map(Entry::Learn),
        EntryKind::Source => source(fields).map(Entry::Source),
        EntryKind::Egress => egress(fields).map(Entry::Egress),
    }
}

fn endpoint(fields: &mut Fields<'_, '_, '_>) -> Option<Endpoint> {
    let interface = fields.required("interface", "an interface name such as \"eth0\"", text);
    let address = fields.required("address", AN_ADDRESS, address);
    Some(Endpoint { interface: interface?, address: address? })
}

fn leg(fields: &mut Fields<'_, '_, '_>) -> Option<Leg> {
    let endpoint = fields.required("endpoint", "the name of an endpoint", name);
    let kind = fields.optional("kind", "\"client\", \"trunk\" or \"plain\"", |item| match item.as_str()? {
        "client" => Some(LegKind::Client),
        "trunk" => Some(LegKind::Trunk),
        "plain" => Some(LegKind::Plain),
        _ => None,
    });
    let remote = remote(fields);
    let inbound = secret::key(fields, "srtp_in");
    let outbound = secret::key(fields, "srtp_out");
    let accept_key_reuse = flag(fields, "accept_key_reuse");
    let extensions = extensions(fields);
    let limits = limits(fields);
    let member = fields.optional("member", "a member number 0 to 8191", member);
    let hears = fields.optional("hears", "a list of member numbers such as [0, 7]", |item| {
        item.as_array()?.iter().map(|value| member_number(value.as_integer()?)).collect::<Option<Hears>>()
    });
    let feedback = feedback(fields);
    Some(Leg {
        endpoint: endpoint?,
        kind: kind.unwrap_or(LegKind::Client),
        remote: remote?,
        inbound,
        outbound,
        accept_key_reuse,
        extensions,
        limits,
        ice: None,
        feedback,
        member,
        hears,
    })
}

fn member(item: &Item) -> Option<u16> {
    member_number(item.as_integer()?)
}

fn member_number(value: i64) -> Option<u16> {
    u16::try_from(value).ok().filter(|member| *member < Hears::MEMBERS)
}

fn remote(fields: &mut Fields<'_, '_, '_>) -> Option<Remote> {
    let written = fields.item("remote").is_some();
    let fixed = fields.optional("remote", AN_ADDRESS, address);
    let learn = flag(fields, "learn_remote");
    match (written, learn) {
        (true, false) => fixed.map(Remote::Fixed),
        (false, true) => Some(Remote::Learn),
        (true, true) => {
            if let Some(item) = fields.item("learn_remote") {
                fields.wrong("learn_remote", item, "remote is given too; expected one of them");
            }
            None
        }
        (false, false) => {
            fields.missing("remote", "remote = \"ip:port\" or learn_remote = true");
            None
        }
    }
}

fn extensions(leg: &mut Fields<'_, '_, '_>) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    let Some(mut fields) = leg.inner("extensions", "a table such as { mid = 4 }") else { return ids };
    for name in ExtensionIds::NAMES {
        let id = fields.optional(name, "an extension id 1 to 255", integer::<u8>);
        if let Some(slot) = ids.slot(name) {
            *slot = id;
        }
    }
    fields.finish();
    ids
}

fn limits(leg: &mut Fields<'_, '_, '_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = leg.inner("limits", "a table such as { packets_per_second = 500 }") else { return limits };
    let rate = "a rate of 1 bit per second or more";
    for (key, slot) in [
        ("bits_per_second", &mut limits.bits_per_second),
        ("audio_bits_per_second", &mut limits.audio_bits_per_second),
        ("video_bits_per_second", &mut limits.video_bits_per_second),
    ] {
        if let Some(value) = fields.optional(key, rate, integer::<u64>) {
            *slot = value;
        }
    }
    let packets = fields.optional("packets_per_second", "a rate of 1 to 4294967295 packets", integer::<u32>);
    limits.packets_per_second = packets.unwrap_or(limits.packets_per_second);
    fields.finish();
    limits
}

fn feedback(leg: &mut Fields<'_, '_, '_>) -> Feedback {
    let Some(mut fields) = leg.inner("feedback", "a table such as { reports = true, key_frame = \"pli\" }") else {
        return Feedback::default();
    };
    let feedback = Feedback {
        reports: flag(&mut fields, "reports"),
        transport_cc: flag(&mut fields, "transport_cc"),
        nack: flag(&mut fields, "nack"),
        key_frame: fields.optional("key_frame", "\"pli\" or \"fir\"", |item| match item.as_str()? {
            "pli" => Some(KeyFrameRequest::Pli),
            "fir" => Some(KeyFrameRequest::Fir),
            _ => None,
        }),
    };
    fields.finish();
    feedback
}

fn repairs(stream: &mut Fields<'_, '_, '_>) -> Option<Repair> {
    let mut fields = stream.inner("repairs", "a table such as { stream = \"video\", payload_types = { 97 = 96 } }")?;
    let stream = fields.required("stream", "the name of an ingress stream or learn rule", name);
    let payload_types = payload_map(&mut fields);
    fields.finish();
    Some(Repair { stream: stream?, payload_types })
}

fn rtx(egress: &mut Fields<'_, '_, '_>) -> Option<Rtx> {
    let mut fields = egress.inner("rtx", "a table such as { ssrc = 71, payload_types = { 96 = 97 } }")?;
    let ssrc = ssrc(&mut fields);
    let payload_types = payload_map(&mut fields);
    fields.finish();
    Some(Rtx { ssrc: ssrc?, payload_types })
}

fn ingress(fields: &mut Fields<'_, '_, '_>) -> Option<Ingress> {
    let leg = fields.required("leg", "the name of a leg", name);
    let ssrc = ssrc(fields);
    let kind = media(fields);
    let clock_rate = clock_rate(fields, kind);
    let payload_types = payload_list(fields);
    let role = role(fields);
    Some(Ingress { leg: leg?, ssrc: ssrc?, kind: kind?, clock_rate: clock_rate?, payload_types: payload_types?, role })
}

fn learn(fields: &mut Fields<'_, '_, '_>) -> Option<Learn> {
    let leg = fields.required("leg", "the name of a leg", name);
    let mid = fields.optional("mid", "a text", text);
    let rid = fields.optional("rid", "a text", text);
    let repaired_rid = fields.optional("repaired_rid", "a text", text);
    let kind = media(fields);
    let clock_rate = clock_rate(fields, kind);
    let payload_types = payload_list(fields);
    let role = role(fields);
    Some(Learn {
        leg: leg?,
        mid,
        rid,
        repaired_rid,
        kind: kind?,
        clock_rate: clock_rate?,
        payload_types: payload_types?,
        role,
    })
}

fn role(fields: &mut Fields<'_, '_, '_>) -> StreamRole {
    let announced = fields.optional("announced", "an SSRC 0 to 4294967295", integer).map(Ssrc);
    let candidate = fields.optional("candidate", "the name of a group", name);
    let repairs = repairs(fields);
    StreamRole { announced, candidate, repairs }
}

fn source(fields: &mut Fields<'_, '_, '_>) -> Option<Source> {
    let kind = media(fields);
    let clock_rate = clock_rate(fields, kind);
    let input = fields.optional("input", "the name of an ingress stream or learn rule", name);
    let layers = fields.optional("layers", "a list of names of ingress streams or learn rules, lowest first", |item| {
        item.as_array()?.iter().map(|value| Name::new(value.as_str()?).ok()).collect::<Option<Vec<_>>>()
    });
    let select = fields.optional("select", "the name of a group", name);
    Some(Source { kind: kind?, clock_rate: clock_rate?, input, layers: layers.unwrap_or_default(), select })
}

fn egress(fields: &mut Fields<'_, '_, '_>) -> Option<Egress> {
    let leg = fields.required("leg", "the name of a leg", name);
    let ssrc = ssrc(fields);
    let source = fields.required("source", "the name of an ingress stream, learn rule or source", name);
    let payload_types = payload_map(fields);
    let first_sequence = fields.optional("first_sequence", "a sequence number 1 to 16384", integer);
    let mid = fields.optional("mid", "a text", text);
    let csrc = flag(fields, "csrc");
    let dscp = fields.optional("dscp", "a DSCP 0 to 63", integer);
    let layer = fields.optional("layer", "a layer 0 to 3", integer);
    let rtx = rtx(fields);
    let history = fields.optional("history", "a number of packets 0 to 1024", integer);
    Some(Egress {
        leg: leg?,
        ssrc: ssrc?,
        source: source?,
        payload_types,
        first_sequence,
        mid,
        csrc,
        dscp,
        layer,
        rtx,
        history: history.unwrap_or(0),
    })
}

fn flag(fields: &mut Fields<'_, '_, '_>, key: &'static str) -> bool {
    fields.optional(key, "true or false", Item::as_bool).unwrap_or(false)
}

fn ssrc(fields: &mut Fields<'_, '_, '_>) -> Option<Ssrc> {
    fields.required("ssrc", "an SSRC 0 to 4294967295", integer).map(Ssrc)
}

fn media(fields: &mut Fields<'_, '_, '_>) -> Option<Kind> {
    fields.required("kind", "\"audio\" or \"video\"", |item| match item.as_str()? {
        "audio" => Some(Kind::Audio),
        "video" => Some(Kind::Video),
        _ => None,
    })
}

/// The clock rate, by default what Opus and every video payload format use.
fn clock_rate(fields: &mut Fields<'_, '_, '_>, kind: Option<Kind>) -> Option<u32> {
    if fields.item("clock_rate").is_some() {
        return fields.optional("clock_rate", "a clock rate of 1 to 1000000 Hz", integer);
    }
    Some(match kind? {
        Kind::Audio => 48_000,
        Kind::Video => 90_000,
    })
}

fn payload_list(fields: &mut Fields<'_, '_, '_>) -> Option<Vec<u8>> {
    fields.required("payload_types", A_PAYLOAD_LIST, |item| {
        item.as_array()?.iter().map(|v| u8::try_from(v.as_integer()?).ok().filter(|p| *p < 128)).collect()
    })
}

/// `payload_types = { 96 = 100 }`: payload types in to payload types out.
fn payload_map(fields: &mut Fields<'_, '_, '_>) -> Vec<(u8, u8)> {
    let mut map = Vec::new();
    let Some(mut inner) = fields.inner("payload_types", "a table such as { 96 = 100 }") else { return map };
    for (from, item) in inner.entries() {
        let valid = |value: i64| u8::try_from(value).ok().filter(|p| *p < 128);
        match (from.parse().ok().and_then(valid), item.as_integer().and_then(valid)) {
            (Some(from), Some(to)) => map.push((from, to)),
            _ => inner.wrong(from, item, "expected payload types 0 to 127 on both sides, such as 96 = 100"),
        }
    }
    map.sort_unstable();
    map
}
