//! Adds to a participant's report what only the forwarder knows. Never asks anybody.

use sluice_table::protocol::{LegRow, StreamRows};

use super::query::{LegPath, ShowReport, StreamRow};

pub(super) fn leg(report: &mut ShowReport, legs: &[LegRow]) {
    let row = report.leg.as_deref().and_then(|name| legs.iter().find(|row| row.leg.as_str() == name));
    report.path = row.map(|row| LegPath {
        state: row.state.name().to_owned(),
        worker: row.owner,
        fast: row.fast,
        slow: row.slow,
        stray: row.stray,
        drops: row.drops.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
    });
}

pub(super) fn streams(report: &mut ShowReport, rows: &StreamRows) {
    let Some(leg) = report.leg.as_deref() else { return };
    let why = |name: &str| report.notes.iter().find(|note| note.stream == name).map(|note| note.why.clone());
    let received = rows.ingress.iter().filter(|row| row.leg.as_str() == leg).map(|row| StreamRow {
        name: row.name.to_string(),
        direction: "in".to_owned(),
        kind: Some(row.kind.name().to_owned()),
        ssrc: row.ssrc.0,
        carries: None,
        layer: row.layer,
        packets: row.packets,
        bytes: row.bytes,
        lost: row.lost,
        why: why(row.name.as_str()),
    });
    let sent = rows.egress.iter().filter(|row| row.leg.as_str() == leg).map(|row| StreamRow {
        name: row.name.to_string(),
        direction: "out".to_owned(),
        kind: None,
        ssrc: row.ssrc.0,
        carries: row.current.map(|ssrc| ssrc.0),
        layer: None,
        packets: row.packets,
        bytes: row.bytes,
        lost: row.dropped,
        why: why(row.name.as_str()),
    });
    report.streams = received.chain(sent).collect();
}
