//! `top`: rates of workers, legs and streams, redrawn until stopped. Never changes anything.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_table::protocol::{Client, ClientError, LegRow, Status, StreamRows};

use super::error::CliError;
use super::output::{Output, bits, duration};
use super::show::{ask_legs, ask_status, ask_streams};

/// Rows of each kind on the screen; JSON has all.
const SHOWN: usize = 15;

struct Sample {
    at: Instant,
    status: Status,
    legs: Vec<LegRow>,
    streams: StreamRows,
}

#[derive(Serialize)]
struct Update {
    seconds: f64,
    uptime_ms: u64,
    workers: Vec<WorkerRate>,
    legs: Vec<LegRate>,
    streams: Vec<StreamRate>,
}

#[derive(Serialize)]
struct WorkerRate {
    worker: u16,
    cpu_share: f64,
    rx_packets_per_second: f64,
    tx_packets_per_second: f64,
    rx_bits_per_second: f64,
    tx_bits_per_second: f64,
    opened_per_second: f64,
    sealed_per_second: f64,
    dropped_per_second: f64,
}

#[derive(Serialize)]
struct LegRate {
    leg: String,
    owner: u16,
    state: &'static str,
    rx_packets_per_second: f64,
    tx_packets_per_second: f64,
    rx_bits_per_second: f64,
    tx_bits_per_second: f64,
    dropped_per_second: f64,
}

#[derive(Serialize)]
struct StreamRate {
    direction: &'static str,
    name: String,
    leg: String,
    ssrc: u32,
    packets_per_second: f64,
    bits_per_second: f64,
    lost_per_second: f64,
}

pub(super) fn run(
    client: &mut Client,
    output: &mut Output<'_>,
    interval: Duration,
    count: Option<u64>,
) -> Result<(), CliError> {
    let screen = !output.json && std::io::stdout().is_terminal();
    let mut last = sample(client)?;
    let mut updates = 0;
    while count.is_none_or(|count| updates < count) {
        std::thread::sleep(interval);
        let now = sample(client)?;
        let update = rates(&last, &now);
        if output.json {
            output.json_line(&update)?;
        } else {
            draw(&update, output, screen)?;
        }
        last = now;
        updates += 1;
    }
    Ok(())
}

fn sample(client: &mut Client) -> Result<Sample, ClientError> {
    let status = ask_status(client)?;
    let at = Instant::now();
    Ok(Sample { at, status, legs: ask_legs(client)?, streams: ask_streams(client)? })
}

/// What `key` says about each row.
fn index<'a, T, K: Hash + Eq>(rows: &'a [T], key: impl Fn(&'a T) -> K) -> HashMap<K, &'a T> {
    rows.iter().map(|row| (key(row), row)).collect()
}

fn rates(old: &Sample, new: &Sample) -> Update {
    let seconds = new.at.duration_since(old.at).as_secs_f64().max(1e-6);
    // A row that is new, or counts that went back because the forwarder restarted, start from 0.
    let rate = |old: Option<u64>, new: u64| new.saturating_sub(old.filter(|o| *o <= new).unwrap_or(0)) as f64 / seconds;
    let before = index(&old.status.workers, |w| w.worker);
    let workers = new.status.workers.iter().map(|w| {
        let o = before.get(&w.worker);
        WorkerRate {
            worker: w.worker,
            cpu_share: rate(o.map(|o| o.cpu_us), w.cpu_us) / 1e6,
            rx_packets_per_second: rate(o.map(|o| o.io.rx_frames), w.io.rx_frames),
            tx_packets_per_second: rate(o.map(|o| o.io.tx_frames), w.io.tx_frames),
            rx_bits_per_second: rate(o.map(|o| o.io.rx_bytes), w.io.rx_bytes) * 8.0,
            tx_bits_per_second: rate(o.map(|o| o.io.tx_bytes), w.io.tx_bytes) * 8.0,
            opened_per_second: rate(o.map(|o| o.opened), w.opened),
            sealed_per_second: rate(o.map(|o| o.sealed), w.sealed),
            dropped_per_second: rate(o.map(|o| o.dropped), w.dropped),
        }
    });
    let before = index(&old.legs, |l| &l.leg);
    let drops = |l: &LegRow| l.drops.iter().map(|(_, n)| n).sum::<u64>();
    let mut legs: Vec<LegRate> = new
        .legs
        .iter()
        .map(|l| {
            let o = before.get(&l.leg);
            LegRate {
                leg: l.leg.to_string(),
                owner: l.owner,
                state: l.state.name(),
                rx_packets_per_second: rate(o.map(|o| o.rx_packets), l.rx_packets),
                tx_packets_per_second: rate(o.map(|o| o.tx_packets), l.tx_packets),
                rx_bits_per_second: rate(o.map(|o| o.rx_bytes), l.rx_bytes) * 8.0,
                tx_bits_per_second: rate(o.map(|o| o.tx_bytes), l.tx_bytes) * 8.0,
                dropped_per_second: rate(o.map(|o| drops(o)), drops(l)),
            }
        })
        .collect();
    legs.sort_by(|a, b| {
        let load = |l: &LegRate| l.rx_packets_per_second + l.tx_packets_per_second;
        load(b).total_cmp(&load(a)).then_with(|| a.leg.cmp(&b.leg))
    });
    let before_in = index(&old.streams.ingress, |s| (&s.leg, s.ssrc));
    let before_out = index(&old.streams.egress, |s| &s.name);
    let ingress = new.streams.ingress.iter().map(|s| {
        let o = before_in.get(&(&s.leg, s.ssrc));
        StreamRate {
            direction: "in",
            name: s.name.to_string(),
            leg: s.leg.to_string(),
            ssrc: s.ssrc.0,
            packets_per_second: rate(o.map(|o| o.packets), s.packets),
            bits_per_second: rate(o.map(|o| o.bytes), s.bytes) * 8.0,
            lost_per_second: rate(o.map(|o| o.lost), s.lost),
        }
    });
    let egress = new.streams.egress.iter().map(|s| {
        let o = before_out.get(&s.name);
        StreamRate {
            direction: "out",
            name: s.name.to_string(),
            leg: s.leg.to_string(),
            ssrc: s.ssrc.0,
            packets_per_second: rate(o.map(|o| o.packets), s.packets),
            bits_per_second: rate(o.map(|o| o.bytes), s.bytes) * 8.0,
            lost_per_second: rate(o.map(|o| o.dropped), s.dropped),
        }
    });
    let mut streams: Vec<StreamRate> = ingress.chain(egress).collect();
    streams.sort_by(|a, b| b.packets_per_second.total_cmp(&a.packets_per_second).then_with(|| a.name.cmp(&b.name)));
    Update { seconds, uptime_ms: new.status.uptime_ms, workers: workers.collect(), legs, streams }
}

fn draw(update: &Update, output: &mut Output<'_>, screen: bool) -> Result<(), CliError> {
    if screen {
        // Home, then clear what the last update left.
        write!(output.out, "\x1b[H\x1b[2J")?;
    }
    output.line(&format!(
        "sluice top: up {}, rates of the last {:.1} s (Ctrl-C ends)",
        duration(update.uptime_ms),
        update.seconds
    ))?;
    output.line("")?;
    let whole = |value: f64| format!("{value:.0}");
    let rows: Vec<Vec<String>> = update
        .workers
        .iter()
        .map(|w| {
            vec![
                w.worker.to_string(),
                format!("{:.0} %", w.cpu_share * 100.0),
                whole(w.rx_packets_per_second),
                bits(w.rx_bits_per_second),
                whole(w.tx_packets_per_second),
                bits(w.tx_bits_per_second),
                whole(w.opened_per_second),
                whole(w.sealed_per_second),
                whole(w.dropped_per_second),
            ]
        })
        .collect();
    output.table(&["worker", ">cpu", ">rx/s", ">rx", ">tx/s", ">tx", ">opened/s", ">sealed/s", ">dropped/s"], &rows)?;
    output.line("")?;
    let rows: Vec<Vec<String>> = update
        .legs
        .iter()
        .take(SHOWN)
        .map(|l| {
            vec![
                l.leg.clone(),
                l.owner.to_string(),
                l.state.to_owned(),
                whole(l.rx_packets_per_second),
                bits(l.rx_bits_per_second),
                whole(l.tx_packets_per_second),
                bits(l.tx_bits_per_second),
                whole(l.dropped_per_second),
            ]
        })
        .collect();
    output.table(&["leg", ">owner", "state", ">rx/s", ">rx", ">tx/s", ">tx", ">dropped/s"], &rows)?;
    rest(output, update.legs.len(), "legs")?;
    output.line("")?;
    let rows: Vec<Vec<String>> = update
        .streams
        .iter()
        .take(SHOWN)
        .map(|s| {
            vec![
                s.direction.to_owned(),
                s.name.clone(),
                s.leg.clone(),
                format!("{:08x}", s.ssrc),
                whole(s.packets_per_second),
                bits(s.bits_per_second),
                whole(s.lost_per_second),
            ]
        })
        .collect();
    output.table(&["way", "stream", "leg", "ssrc", ">packets/s", ">rate", ">lost/s"], &rows)?;
    rest(output, update.streams.len(), "streams")?;
    output.out.flush()?;
    Ok(())
}

fn rest(output: &mut Output<'_>, count: usize, what: &str) -> Result<(), CliError> {
    match count.checked_sub(SHOWN) {
        Some(more) if more > 0 => output.line(&format!("... and {more} quieter {what}")),
        _ => Ok(()),
    }
}
