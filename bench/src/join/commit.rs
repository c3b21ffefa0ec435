//! From a commit to the first packet it lets through: takes a stream away that a client hears, brings it back, and looks
//! when the client hears again. The speaker sends all the while. Never measures beside joins.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sluice_table::protocol::{Client, Request, Response};
use sluice_table::{Change, Egress, EntryKind, Name};

use super::client::World;
use crate::error::BenchError;
use crate::latency::Latency;

/// Streams looked at.
const STREAMS: usize = 100;
/// How long a stream is away at least, so that what was under way has arrived.
const AWAY: Duration = Duration::from_millis(20);
/// How long the first packet may take.
const PATIENCE: Duration = Duration::from_secs(1);
const WHAT: &str = "measuring commits";

/// A stream that is waited for.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    ssrc: u32,
    heard: Option<Instant>,
}

/// The stream all clients look out for.
pub(super) type Watch = RefCell<Option<Awaited>>;

/// Notes a packet.
pub(super) fn note(watch: &Watch, packet: &[u8]) {
    if let Some(awaited) = &mut *watch.borrow_mut()
        && awaited.heard.is_none()
        && packet[8..12] == awaited.ssrc.to_be_bytes()
    {
        awaited.heard = Some(Instant::now());
    }
}

/// Measures on a connection of its own.
pub(super) async fn measure(world: &Rc<World>, mut client: Client) -> Result<Latency, BenchError> {
    let mut taken = Latency::new();
    let heard = world.tally.borrow().heard_ssrcs.clone();
    let (rows, back) = blocking(client, Request::Snapshot).await?;
    client = back;
    let Response::Snapshot(snapshot) = rows else {
        return Err(BenchError::refused(WHAT)(client.unexpected("snapshot")));
    };
    let rows = snapshot.egress.into_iter().filter(|(_, row)| heard.contains(&row.ssrc.0));
    // Ids of control's transactions are far below, those of the probe lie between.
    let mut id = u64::MAX / 4 * 3;
    for (at, (name, row)) in rows.take(STREAMS).enumerate() {
        // At another place between two packets of the speaker each time.
        let away = AWAY + Duration::from_micros(700 * at as u64 % 20_000);
        let (since, back) = replace(world, client, &mut id, (name, row), away).await?;
        client = back;
        let end = Instant::now() + PATIENCE;
        let first = loop {
            let first = world.watch_for.borrow().as_ref().and_then(|awaited| awaited.heard);
            if first.is_some() || Instant::now() > end {
                break first;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        // One that hears before the acknowledgement arrived here did not wait at all.
        let first = first.map_or(PATIENCE, |first| first.saturating_duration_since(since));
        taken.record(first.as_nanos() as i64);
    }
    *world.watch_for.borrow_mut() = None;
    Ok(taken)
}

/// Takes a stream away and brings it back; when that was acknowledged.
async fn replace(
    world: &Rc<World>,
    mut client: Client,
    id: &mut u64,
    (name, row): (Name, Egress),
    away: Duration,
) -> Result<(Instant, Client), BenchError> {
    let ssrc = row.ssrc.0;
    let changes =
        [Change::Remove(EntryKind::Egress, name.clone()), Change::Put(name, sluice_table::Entry::Egress(row))];
    let mut since = Instant::now();
    for (at, change) in changes.into_iter().enumerate() {
        *id += 1;
        if at == 1 {
            tokio::time::sleep(away).await;
            *world.watch_for.borrow_mut() = Some(Awaited { ssrc, heard: None });
        }
        let (answer, back) = blocking(client, Request::Transaction { id: *id, changes: vec![change] }).await?;
        client = back;
        since = Instant::now();
        if !matches!(answer, Response::Committed { .. }) {
            return Err(BenchError::refused(WHAT)(client.unexpected("transaction")));
        }
    }
    Ok((since, client))
}

/// Asks without holding up the clients.
async fn blocking(mut client: Client, request: Request) -> Result<(Response, Client), BenchError> {
    let asked = tokio::task::spawn_blocking(move || client.call(request).map(|response| (response, client))).await;
    asked.map_err(BenchError::refused(WHAT))?.map_err(BenchError::refused(WHAT))
}
