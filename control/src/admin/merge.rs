//! Adds to a participant's report what only the forwarder knows, and says what both together mean. Never asks anybody.

use std::collections::HashMap;

use sluice_table::protocol::{EgressRow, IngressRow, IoMode, LegRow, Status, StreamRows};

use super::query::{LegPath, ShowReport, StreamNote, StreamRow};

/// How packets come in, and why not all the fast way.
pub(super) fn leg(report: &mut ShowReport, legs: &[LegRow], status: Option<&Status>) {
    let Some(row) = report.leg.as_deref().and_then(|name| legs.iter().find(|row| row.leg.as_str() == name)) else {
        return;
    };
    let endpoints = status.map_or(&[][..], |status| &status.endpoints);
    let local = report.pair.as_ref().map(|pair| pair.local);
    let endpoint = endpoints.iter().find(|one| Some(one.address) == local).or(match endpoints {
        [only] => Some(only),
        _ => None,
    });
    let mut why = Vec::new();
    if let Some(endpoint) = endpoint {
        let refused: Vec<_> = endpoint.refused.iter().map(|step| format!("{}: {}", step.mode, step.reason)).collect();
        let refused = if refused.is_empty() { "so configured".to_owned() } else { refused.join("; ") };
        match endpoint.mode {
            IoMode::Udp => why.push(format!("slow: endpoint {} uses kernel sockets ({refused})", endpoint.endpoint)),
            IoMode::XdpGeneric => {
                why.push(format!("endpoint {} uses AF_XDP above the driver ({refused})", endpoint.endpoint));
            }
            _ if row.slow > 0 => why.push(
                "slow: came by the kernel socket: from this host or a tunnel, by a queue without AF_XDP, or while it \
                 was bound"
                    .to_owned(),
            ),
            _ => {}
        }
    }
    if row.stray > 0 {
        why.push("stray: came to another worker's queue and were handed over; steering by flow would avoid it".into());
    }
    report.path = Some(LegPath {
        state: row.state.name().to_owned(),
        worker: row.owner,
        fast: row.fast,
        slow: row.slow,
        stray: row.stray,
        io: endpoint.map(|endpoint| endpoint.mode.name().to_owned()),
        why,
        drops: row.drops.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
    });
}

/// Every stream with what it carries, and why.
pub(super) fn streams(report: &mut ShowReport, rows: &StreamRows) {
    let Some(leg) = report.leg.clone() else { return };
    // SSRCs are only apart within a leg; of another conference's streams none is carried here.
    let conference = leg.split_once('/').map_or(leg.as_str(), |(conference, _)| conference);
    let within = |row: &&IngressRow| row.leg.as_str().strip_prefix(conference).is_some_and(|r| r.starts_with('/'));
    let arriving: Vec<&IngressRow> = rows.ingress.iter().filter(within).collect();
    let notes: HashMap<&str, &StreamNote> = report.notes.iter().map(|note| (note.stream.as_str(), note)).collect();
    let path_in = report.path.as_ref().and_then(|path| match (path.fast + path.stray, path.slow) {
        (0, 0) => None,
        (_, 0) => Some("fast"),
        (0, _) => Some("slow"),
        _ => Some("mixed"),
    });
    let io = report.path.as_ref().and_then(|path| path.io.as_deref());
    let path_out = io.map(|io| if io == IoMode::Udp.name() { "slow" } else { "fast" });
    let received = rows.ingress.iter().filter(|row| row.leg.as_str() == leg).map(|row| {
        let note = notes.get(row.name.as_str());
        let layer = note.and_then(|note| note.layers.get(note.top)).map(|layer| layer.label.clone());
        StreamRow {
            name: row.name.to_string(),
            direction: "in".to_owned(),
            kind: Some(row.kind.name().to_owned()),
            ssrc: row.ssrc.0,
            carries: None,
            from: None,
            layer: layer.or(row.layer.map(|layer| layer.to_string())),
            path: path_in.map(str::to_owned),
            packets: row.packets,
            bytes: row.bytes,
            lost: row.lost,
            why: note.map(
                |note| if row.packets > 0 { note.what.clone() } else { format!("{}: nothing came yet", note.what) },
            ),
        }
    });
    let sent = rows.egress.iter().filter(|row| row.leg.as_str() == leg).map(|row| {
        let note = notes.get(row.name.as_str());
        let carried = carried(row, note.copied(), &arriving);
        let layer =
            carried.zip(note).and_then(|(from, note)| note.layers.iter().find(|l| l.stream == from.name.as_str()));
        StreamRow {
            name: row.name.to_string(),
            direction: "out".to_owned(),
            kind: note.map(|note| note.kind.clone()),
            ssrc: row.ssrc.0,
            carries: row.current.map(|ssrc| ssrc.0),
            from: carried.and_then(|from| from.leg.as_str().rsplit('/').next()).map(str::to_owned),
            layer: layer.map(|layer| layer.label.clone()),
            path: path_out.filter(|_| row.packets > 0).map(str::to_owned),
            packets: row.packets,
            bytes: row.bytes,
            lost: row.dropped,
            why: note.map(|note| sent_why(note, row, &arriving)),
        }
    });
    let streams: Vec<StreamRow> = received.chain(sent).collect();
    let learned = |name: &str| streams.iter().any(|row| row.name == name);
    let missing = report.notes.iter().filter(|note| !learned(&note.stream)).map(|note| {
        let layer = note.layers.get(note.top).map(|layer| format!(" as layer {}", layer.label));
        format!("{} ({}): nothing came{} yet", note.stream, note.what, layer.unwrap_or_default())
    });
    let missing: Vec<String> = missing.collect();
    report.remarks.extend(missing);
    report.streams = streams;
}

/// The stream whose packets are sent now: of those a layered stream may carry, or of the whole conference.
fn carried<'a>(row: &EgressRow, note: Option<&StreamNote>, arriving: &[&'a IngressRow]) -> Option<&'a IngressRow> {
    let ssrc = row.current?;
    let may = |from: &&&IngressRow| {
        note.is_none_or(|note| note.layers.is_empty() || note.layers.iter().any(|l| l.stream == from.name.as_str()))
    };
    arriving.iter().filter(|from| from.ssrc == ssrc).find(may).copied()
}

fn sent_why(note: &StreamNote, row: &EgressRow, arriving: &[&IngressRow]) -> String {
    let what = &note.what;
    if note.layers.is_empty() {
        return if row.current.is_some() { what.clone() } else { format!("{what}: nobody spoke who may be heard") };
    }
    let comes = |at: usize| {
        let layer = note.layers.get(at);
        layer.is_some_and(|l| arriving.iter().any(|row| row.name.as_str() == l.stream && row.packets > 0))
    };
    let label = |at: usize| note.layers.get(at).map_or("", |layer| layer.label.as_str());
    let now = carried(row, Some(note), arriving);
    let now = now.and_then(|from| note.layers.iter().position(|layer| layer.stream == from.name.as_str()));
    // The highest that may be carried and comes.
    let best = (0..=note.top).rev().find(|at| comes(*at));
    match (now, best) {
        (_, None) => format!("{what}: sends no video yet"),
        (None, Some(best)) => format!("{what}: waits for a key frame of {}", label(best)),
        (Some(now), Some(best)) if now < best => {
            format!("{what}: {} until a key frame of {} comes", label(now), label(best))
        }
        (Some(now), _) if now < note.top => format!("{what}: {} because {} does not come", label(now), label(note.top)),
        (Some(now), _) if now > note.top => {
            format!("{what}: {} until a key frame of {} comes", label(now), label(note.top))
        }
        (Some(_), _) if note.layers.len() == 1 => format!("{what}: it sends only this one"),
        (Some(_), _) => format!("{what}: as wanted"),
    }
}

#[cfg(test)]
mod tests {
    use sluice_srtp::Ssrc;
    use sluice_table::{Kind, Name};

    use super::*;
    use crate::admin::LayerNote;

    fn ingress(name: &str, ssrc: u32, packets: u64) -> IngressRow {
        let leg = name.rsplit_once('/').unwrap().0;
        IngressRow {
            name: Name::new(name).unwrap(),
            learned: true,
            leg: Name::new(leg).unwrap(),
            ssrc: Ssrc(ssrc),
            kind: Kind::Video,
            packets,
            bytes: packets * 1_000,
            lost: 0,
            index: None,
            roc: 0,
            layer: None,
            receivers: 1,
        }
    }

    fn egress(current: Option<u32>) -> EgressRow {
        EgressRow {
            name: Name::new("c1/p2/to/v0").unwrap(),
            leg: Name::new("c1/p2").unwrap(),
            ssrc: Ssrc(99),
            source: Name::new("c1/p1/v").unwrap(),
            current: current.map(Ssrc),
            packets: 5,
            bytes: 500,
            dropped: 0,
            index: None,
            epoch: 0,
        }
    }

    fn note(top: usize) -> StreamNote {
        let layer = |label: &str, at: u8| LayerNote { label: label.to_owned(), stream: format!("c1/p1/v{at}") };
        StreamNote {
            stream: "c1/p2/to/v0".to_owned(),
            what: "p1 wanted".to_owned(),
            kind: "video".to_owned(),
            layers: vec![layer("l", 0), layer("h", 1)],
            top,
        }
    }

    /// What is said for a top layer, the layers that come and the SSRC carried.
    fn said(top: usize, layers: &[(u8, u64)], current: Option<u32>) -> String {
        let rows: Vec<_> =
            layers.iter().map(|(at, n)| ingress(&format!("c1/p1/v{at}"), 10 + u32::from(*at), *n)).collect();
        sent_why(&note(top), &egress(current), &rows.iter().collect::<Vec<_>>())
    }

    #[test]
    fn why_a_layer() {
        assert_eq!(said(1, &[], None), "p1 wanted: sends no video yet");
        assert_eq!(said(1, &[(0, 0)], None), "p1 wanted: sends no video yet");
        assert_eq!(said(1, &[(0, 7)], None), "p1 wanted: waits for a key frame of l");
        assert_eq!(said(1, &[(0, 7)], Some(10)), "p1 wanted: l because h does not come");
        assert_eq!(said(1, &[(0, 7), (1, 7)], Some(10)), "p1 wanted: l until a key frame of h comes");
        assert_eq!(said(1, &[(0, 7), (1, 7)], Some(11)), "p1 wanted: as wanted");
        assert_eq!(said(0, &[(0, 7), (1, 7)], Some(11)), "p1 wanted: h until a key frame of l comes");
        assert_eq!(said(0, &[(0, 7), (1, 7)], Some(10)), "p1 wanted: as wanted");
    }

    #[test]
    fn whom_a_stream_carries_is_found_in_its_own_conference() {
        let rows = StreamRows {
            // Another conference has a stream of the same SSRC.
            ingress: vec![ingress("c11/p9/v0", 10, 7), ingress("c1/p1/v0", 10, 7)],
            egress: vec![egress(Some(10))],
        };
        let mut report = ShowReport { leg: Some("c1/p2".to_owned()), notes: vec![note(1)], ..empty() };
        streams(&mut report, &rows);
        let [row] = report.streams.as_slice() else { panic!("{:?}", report.streams) };
        assert_eq!((row.from.as_deref(), row.layer.as_deref(), row.carries), (Some("p1"), Some("l"), Some(10)));
        assert_eq!(row.why.as_deref(), Some("p1 wanted: l because h does not come"));
    }

    fn empty() -> ShowReport {
        serde_json::from_value(serde_json::json!({
            "participant": { "id": "p2", "conference": "abc", "user": "u", "state": "joined", "streams_in": 1,
                "streams_out": 1 },
            "local_candidates": [], "remote_candidates": [], "notes": [] }))
        .unwrap()
    }
}
