//! `conferences`, `participants`, `show`, `kick`, `drain`: questions and orders to sluice-control.

use std::io::ErrorKind;
use std::time::Duration;

use super::args::Global;
use super::error::{Class, CliError};
use super::output::{Output, Tone, duration, number};
use crate::admin::{ParticipantRow, Query, Reply, Report, SOCKET_ENV, ShowReport, Status, StreamRow, client};

fn ask(global: &Global, query: &Query) -> Result<Reply, CliError> {
    let path = client::socket_path(global.control.as_deref());
    let shown = path.display();
    match client::ask(&path, query, Duration::from_secs(global.timeout)) {
        Ok(Reply::Failed { message, hint }) => Err(CliError::new(Class::Refused, message, hint)),
        Ok(reply) => Ok(reply),
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(unexpected()),
        Err(e) => {
            let hint = match e.kind() {
                ErrorKind::PermissionDenied => format!("{shown} belongs to another user; run this as root"),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    "sluice-control is overloaded or stopped; look at its log".to_owned()
                }
                _ => format!(
                    "is sluice-control running? start it, or name another socket with --control or {SOCKET_ENV}"
                ),
            };
            Err(CliError::new(Class::Unreachable, format!("no sluice-control answers at {shown}: {e}"), hint))
        }
    }
}

fn unexpected() -> CliError {
    let message = "sluice-control and this command misunderstand each other";
    CliError::failed(message, "install sluice and sluice-control from the same release")
}

pub(super) fn status(global: &Global) -> Result<Status, CliError> {
    match ask(global, &Query::Status)? {
        Reply::Status(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

pub(super) fn conferences(global: &Global, output: &mut Output<'_>) -> Result<(), CliError> {
    let Reply::Report(Report::Conferences(rows)) = ask(global, &Query::Conferences)? else { return Err(unexpected()) };
    if output.json {
        return output.document(&rows);
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| vec![row.name, row.dialect, number(row.participants), duration(row.started_ms), row.state])
        .collect();
    output.table(&["conference", "dialect", ">participants", ">for", "state"], &rows)
}

pub(super) fn participants(
    global: &Global,
    conference: Option<String>,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let Reply::Report(Report::Participants(rows)) = ask(global, &Query::Participants { conference })? else {
        return Err(unexpected());
    };
    if output.json {
        return output.document(&rows);
    }
    table(&rows, output)
}

fn table(rows: &[ParticipantRow], output: &mut Output<'_>) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.id.clone(),
                row.conference.clone(),
                row.user.clone(),
                row.state.name().to_owned(),
                or_dash(row.tuple.as_ref()),
                or_dash(row.dtls.as_ref()),
                or_dash(row.profile.as_ref()),
                row.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
                number(row.streams_in),
                number(row.streams_out),
                row.joined_ms.map_or_else(|| "-".to_owned(), duration),
            ]
        })
        .collect();
    let headers =
        ["id", "conference", "user", "state", "address", "dtls", "profile", ">rtt", ">in", ">out", ">joined for"];
    output.table(&headers, &rows)
}

pub(super) fn show(global: &Global, participant: String, output: &mut Output<'_>) -> Result<(), CliError> {
    let Reply::Report(Report::Show(report)) = ask(global, &Query::Show { participant })? else {
        return Err(unexpected());
    };
    if output.json {
        return output.document(&report);
    }
    table(std::slice::from_ref(&report.participant), output)?;
    connection(&report, output)?;
    if report.streams.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let rows: Vec<Vec<String>> = report
        .streams
        .iter()
        .map(|row| {
            vec![
                row.direction.clone(),
                row.name.clone(),
                format!("{:08x}", row.ssrc),
                or_dash(row.kind.as_ref()),
                carried(row),
                or_dash(row.layer.as_ref()),
                or_dash(row.path.as_ref()),
                number(row.packets),
                number(row.bytes),
                number(row.lost),
                row.why.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let headers = ["way", "stream", "ssrc", "kind", "carries", "layer", "path", ">packets", ">bytes", ">lost", "why"];
    output.table(&headers, &rows)
}

/// Whose packets, and their SSRC.
fn carried(row: &StreamRow) -> String {
    match (&row.from, row.carries) {
        (Some(from), Some(ssrc)) => format!("{from} {ssrc:08x}"),
        (None, Some(ssrc)) => format!("{ssrc:08x}"),
        _ => "-".to_owned(),
    }
}

/// Candidates, the chosen pair and the path of packets.
fn connection(report: &ShowReport, output: &mut Output<'_>) -> Result<(), CliError> {
    output.line("")?;
    for (whose, list) in [("local", &report.local_candidates), ("remote", &report.remote_candidates)] {
        for candidate in list {
            output.line(&format!("{whose} candidate  {candidate}"))?;
        }
    }
    match &report.pair {
        Some(pair) => output.line(&format!("chosen pair  {} - {}", pair.local, pair.remote))?,
        None => output.line("chosen pair  none yet")?,
    }
    for remark in &report.remarks {
        output.line(remark)?;
    }
    let Some(leg) = &report.leg else { return Ok(()) };
    let Some(path) = &report.path else {
        let text = format!("leg {leg} is not known to the forwarder, or the forwarder does not answer");
        return output.line(&output.paint(Tone::Warn, &text));
    };
    output.line(&format!(
        "leg {leg}  {}  worker {}  {}  fast {}  slow {}  stray {}",
        path.state,
        path.worker,
        path.io.as_deref().unwrap_or("-"),
        number(path.fast),
        number(path.slow),
        number(path.stray)
    ))?;
    for why in &path.why {
        output.line(&output.paint(Tone::Warn, why))?;
    }
    if path.drops.is_empty() {
        return Ok(());
    }
    let drops: Vec<String> = path.drops.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
    output.line(&format!("drops  {}", drops.join(" ")))
}

pub(super) fn kick(global: &Global, participant: String, output: &mut Output<'_>) -> Result<(), CliError> {
    let reply = ask(global, &Query::Kick { participant })?;
    let Reply::Report(Report::Kicked { participant }) = reply else { return Err(unexpected()) };
    if output.json {
        return output.document(&serde_json::json!({ "kicked": participant }));
    }
    output.line(&format!("{participant} is disconnected"))
}

pub(super) fn drain(global: &Global, output: &mut Output<'_>) -> Result<(), CliError> {
    let Reply::Report(Report::Draining { conferences, participants }) = ask(global, &Query::Drain)? else {
        return Err(unexpected());
    };
    if output.json {
        return output.document(&serde_json::json!({ "conferences": conferences, "participants": participants }));
    }
    output.line(&format!(
        "draining: nothing new is taken; {} conferences with {} participants go on",
        number(conferences),
        number(participants)
    ))
}
