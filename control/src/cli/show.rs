//! `status`, `legs`, `streams`, `counters`: one question, one screen. Never changes anything.

use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_table::DropReason;
use sluice_table::protocol::{
    Client, ClientError, CounterGroup, LegRow, Polling, Request, Response, Status, StreamRows,
};

use super::error::CliError;
use super::output::{Output, Tone, duration, number};
use crate::admin;
use crate::doctor::Running;

pub(super) fn ask_status(client: &mut Client) -> Result<Status, ClientError> {
    match client.call(Request::Status)? {
        Response::Status(status) => Ok(*status),
        _ => Err(client.unexpected("status")),
    }
}

pub(super) fn ask_legs(client: &mut Client) -> Result<Vec<LegRow>, ClientError> {
    match client.call(Request::Legs)? {
        Response::Legs(legs) => Ok(legs),
        _ => Err(client.unexpected("legs")),
    }
}

pub(super) fn ask_streams(client: &mut Client) -> Result<StreamRows, ClientError> {
    match client.call(Request::Streams)? {
        Response::Streams(streams) => Ok(streams),
        _ => Err(client.unexpected("streams")),
    }
}

pub(super) fn ask_doctor(client: &mut Client) -> Result<Running, ClientError> {
    Ok(Running { status: ask_status(client)?, legs: ask_legs(client)? })
}

/// How long workers are watched to say what is left of them.
const WATCH: Duration = Duration::from_millis(200);

/// Both processes; `control` says why there is nothing of control.
#[derive(Serialize)]
struct Both<'a> {
    #[serde(flatten)]
    forwarder: &'a Status,
    headroom: Vec<Headroom>,
    control: Option<&'a admin::Status>,
    control_error: Option<&'a str>,
}

/// What is left of a worker.
#[derive(Serialize)]
struct Headroom {
    worker: u16,
    /// Share of its time it had nothing to do, 0 to 1.
    share: f64,
}

/// A worker that polls without pause uses all of its CPU: there, steps that found nothing are what is left.
fn headroom(before: &Status, after: &Status, elapsed: Duration) -> Vec<Headroom> {
    let rows = after.workers.iter().filter_map(|new| {
        let old = before.workers.iter().find(|old| old.worker == new.worker)?;
        let used = match new.polling {
            Polling::Busy => {
                let steps = new.steps.saturating_sub(old.steps);
                if steps == 0 { 1.0 } else { new.busy_steps.saturating_sub(old.busy_steps) as f64 / steps as f64 }
            }
            Polling::Adaptive | Polling::Interrupt => {
                new.cpu_us.saturating_sub(old.cpu_us) as f64 / elapsed.as_micros().max(1) as f64
            }
        };
        Some(Headroom { worker: new.worker, share: (1.0 - used).clamp(0.0, 1.0) })
    });
    rows.collect()
}

pub(super) fn status(
    client: &mut Client,
    control: &Result<admin::Status, CliError>,
    output: &mut Output<'_>,
) -> Result<(), CliError> {
    let (before, began) = (ask_status(client)?, Instant::now());
    std::thread::sleep(WATCH);
    let status = ask_status(client)?;
    let left = headroom(&before, &status, began.elapsed());
    if output.json {
        let control_error = control.as_ref().err().map(|error| error.message.as_str());
        return output.document(&Both {
            forwarder: &status,
            headroom: left,
            control: control.as_ref().ok(),
            control_error,
        });
    }
    match control {
        Ok(control) => control_line(control, output)?,
        Err(error) => output.line(&output.paint(Tone::Warn, &format!("sluice-control: {}", error.message)))?,
    }
    output.line(&format!(
        "sluice-forwarder {}  pid {}  up {}  table generation {}  crypto {}",
        status.software,
        status.pid,
        duration(status.uptime_ms),
        status.generation,
        status.provider
    ))?;
    if !status.provider_note.is_empty() {
        output.line(&output.paint(Tone::Quiet, &status.provider_note))?;
    }
    output.line("")?;
    let rows: Vec<Vec<String>> = status.workers.iter().map(|w| worker_row(w, &left)).collect();
    output.table(
        &[
            "worker",
            ">cpu",
            "polling",
            ">busy",
            ">headroom",
            ">legs",
            ">opened",
            ">sealed",
            ">strays",
            ">dropped",
            ">rx",
            ">tx",
            ">tx failed",
        ],
        &rows,
    )?;
    output.line("")?;
    let rows: Vec<Vec<String>> = status
        .endpoints
        .iter()
        .map(|e| {
            vec![
                e.endpoint.to_string(),
                e.interface.clone(),
                e.address.to_string(),
                e.mode.to_string(),
                e.queues.to_string(),
                number(e.io.rx_frames),
                number(e.io.tx_frames),
                number(e.io.rx_ring_full + e.io.rx_fill_empty + e.io.rx_dropped),
            ]
        })
        .collect();
    output.table(&["endpoint", "interface", "address", "io", ">queues", ">rx", ">tx", ">rx dropped"], &rows)?;
    for endpoint in &status.endpoints {
        for step in &endpoint.refused {
            let text = format!("  {}: {} refused: {}", endpoint.endpoint, step.mode, step.reason);
            output.line(&output.paint(Tone::Warn, &text))?;
        }
    }
    output.line("")?;
    let rows: Vec<Vec<String>> = status
        .capacity
        .iter()
        .map(|c| {
            let free = c.limit.saturating_sub(c.used);
            vec![c.what.clone(), number(c.used), number(free), number(c.limit), percent(c.used, c.limit)]
        })
        .collect();
    output.table(&["capacity", ">used", ">free", ">limit", ">share"], &rows)?;
    let l = status.ledger;
    let sum = l.free + l.fill + l.held + l.transmit;
    output.line("")?;
    output.line(&format!(
        "frames: {} = {} free + {} fill + {} held + {} transmit",
        number(l.total),
        number(l.free),
        number(l.fill),
        number(l.held),
        number(l.transmit)
    ))?;
    if sum != l.total {
        output.line(&output.paint(Tone::Bad, &format!("  {} frames are unaccounted for", l.total.abs_diff(sum))))?;
    }
    for note in &status.degraded {
        output.line(&output.paint(Tone::Warn, &format!("degraded: {note}")))?;
    }
    Ok(())
}

fn control_line(control: &admin::Status, output: &mut Output<'_>) -> Result<(), CliError> {
    let node = &control.node;
    output.line(&format!(
        "sluice-control {}  pid {}  up {}  conferences {}  participants {}  allocations {}  {}",
        control.software,
        control.pid,
        duration(control.uptime_ms),
        number(node.conferences),
        number(node.participants),
        number(node.allocations),
        node.public_url
    ))?;
    if node.draining {
        output.line(&output.paint(Tone::Warn, "draining: takes no new conferences and participants"))?;
    }
    if !control.forwarder_connected {
        output.line(&output.paint(Tone::Bad, "sluice-control is not connected to the forwarder; look at its log"))?;
    }
    Ok(())
}

fn worker_row(w: &sluice_table::protocol::WorkerStatus, left: &[Headroom]) -> Vec<String> {
    let left = left.iter().find(|row| row.worker == w.worker);
    vec![
        w.worker.to_string(),
        w.cpu.map_or_else(|| "-".to_owned(), |c| c.to_string()),
        format!("{:?}", w.polling).to_lowercase(),
        percent(w.busy_steps, w.steps),
        left.map_or_else(|| "-".to_owned(), |row| format!("{:.0} %", row.share * 100.0)),
        number(w.legs),
        number(w.opened),
        number(w.sealed),
        number(w.strays),
        number(w.dropped),
        number(w.io.rx_frames),
        number(w.io.tx_frames),
        number(w.io.tx_failed + w.io.tx_invalid),
    ]
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

pub(super) fn legs(client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let legs = ask_legs(client)?;
    if output.json {
        return output.document(&legs);
    }
    let rows: Vec<Vec<String>> = legs
        .iter()
        .map(|l| {
            let drops: u64 = l.drops.iter().map(|(_, n)| n).sum();
            let mut worst: Vec<_> = l.drops.iter().filter(|(_, n)| *n > 0).collect();
            worst.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
            let worst: Vec<String> = worst.iter().take(3).map(|(r, n)| format!("{r}={n}")).collect();
            vec![
                l.leg.to_string(),
                l.owner.to_string(),
                l.state.name().to_owned(),
                l.remote.map_or_else(|| "-".to_owned(), |r| r.to_string()),
                number(l.fast),
                number(l.slow),
                number(l.stray),
                number(l.rx_packets),
                number(l.tx_packets),
                number(drops),
                l.last_packet_ms.map_or_else(|| "-".to_owned(), duration),
                worst.join(" "),
            ]
        })
        .collect();
    output.table(
        &[
            "leg",
            ">owner",
            "state",
            "remote",
            ">fast",
            ">slow",
            ">stray",
            ">rx",
            ">tx",
            ">drops",
            ">last",
            "most drops",
        ],
        &rows,
    )
}

pub(super) fn streams(client: &mut Client, output: &mut Output<'_>) -> Result<(), CliError> {
    let streams = ask_streams(client)?;
    if output.json {
        return output.document(&streams);
    }
    let optional = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let rows: Vec<Vec<String>> = streams
        .ingress
        .iter()
        .map(|s| {
            vec![
                if s.learned { format!("{} (learned)", s.name) } else { s.name.to_string() },
                s.leg.to_string(),
                format!("{:08x}", s.ssrc.0),
                s.kind.to_string(),
                number(s.packets),
                number(s.bytes),
                number(s.lost),
                optional(s.index),
                s.roc.to_string(),
                optional(s.layer.map(u64::from)),
                s.receivers.to_string(),
            ]
        })
        .collect();
    let heads =
        ["ingress", "leg", "ssrc", "kind", ">packets", ">bytes", ">lost", ">index", ">roc", ">layer", ">workers"];
    output.table(&heads, &rows)?;
    output.line("")?;
    let rows: Vec<Vec<String>> = streams
        .egress
        .iter()
        .map(|s| {
            vec![
                s.name.to_string(),
                s.leg.to_string(),
                format!("{:08x}", s.ssrc.0),
                s.source.to_string(),
                s.current.map_or_else(|| "-".to_owned(), |c| format!("{:08x}", c.0)),
                number(s.packets),
                number(s.bytes),
                number(s.dropped),
                optional(s.index),
                s.epoch.to_string(),
            ]
        })
        .collect();
    let heads = ["egress", "leg", "ssrc", "source", "carries", ">packets", ">bytes", ">dropped", ">index", ">switches"];
    output.table(&heads, &rows)
}

pub(super) fn counters(client: &mut Client, output: &mut Output<'_>, all: bool) -> Result<(), CliError> {
    let groups: Vec<CounterGroup> = match client.call(Request::Counters)? {
        Response::Counters(groups) => groups,
        _ => return Err(client.unexpected("counters").into()),
    };
    if output.json {
        let map: serde_json::Map<String, serde_json::Value> = groups
            .into_iter()
            .map(|g| {
                let counters: serde_json::Map<String, serde_json::Value> =
                    g.counters.into_iter().map(|(name, value)| (name, value.into())).collect();
                (g.group, counters.into())
            })
            .collect();
        return output.document(&map);
    }
    let mut rows = Vec::new();
    for group in &groups {
        for (name, value) in group.counters.iter().filter(|(_, v)| all || *v > 0) {
            let meaning = name.parse::<DropReason>().ok().filter(|_| group.group == "drops");
            let meaning = meaning.map_or("", DropReason::description);
            rows.push(vec![group.group.clone(), name.clone(), number(*value), meaning.to_owned()]);
        }
    }
    if rows.is_empty() {
        return output.line("every counter is 0; `sluice counters --all` lists them");
    }
    output.table(&["group", "counter", ">value", "meaning"], &rows)
}
