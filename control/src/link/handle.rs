//! The node's side of the link: a handle that never blocks, and the events. Never touches a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sluice_table::Change;
use sluice_table::protocol::{CounterGroup, LegRow, PacketMessage, Request, Response, Snapshot, Status, StreamRows};
use tokio::sync::{Notify, mpsc, oneshot};

use super::counters::{Count, Counters};
use super::error::LinkError;
use super::{LinkConfig, LinkEvent};

/// What waits to be written to the table connection.
pub(super) enum Command {
    /// A transaction with the session it was made for.
    Transaction { session: u64, id: u64, changes: Vec<Change> },
    /// The table as it is behind all earlier transactions, for the session it was asked in.
    Table { session: u64 },
    /// A question.
    Question { request: Request, answer: oneshot::Sender<Result<Response, LinkError>> },
}

/// What handle, events and task share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) up: AtomicBool,
    /// The session the node knows of: set when it takes an [`LinkEvent::Up`].
    known: AtomicU64,
    /// The last session for which a transaction found the queue full.
    overflowed: AtomicU64,
    overflow: Notify,
}

impl Shared {
    /// Waits until the queue overflowed in this session.
    pub(super) async fn overflow(&self, session: u64) {
        // A wake-up may be left over from an earlier session.
        while self.overflowed.load(Ordering::Acquire) != session {
            self.overflow.notified().await;
        }
    }
}

/// The task's ends of the queues.
pub(super) struct Inside {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) packets: mpsc::Receiver<PacketMessage>,
    pub(super) events: mpsc::Sender<(u64, LinkEvent)>,
    pub(super) shared: Arc<Shared>,
}

pub(super) fn pair(config: &LinkConfig) -> (Link, Events, Inside) {
    let (commands_in, commands) = mpsc::channel(config.table_queue);
    let (packets_in, packets) = mpsc::channel(config.packet_queue);
    let (events, events_out) = mpsc::channel(config.event_queue);
    let shared = Arc::new(Shared::default());
    let link =
        Link { commands: commands_in, packets: packets_in, shared: Arc::clone(&shared), timeout: config.timeout };
    let events_out = Events { events: events_out, shared: Arc::clone(&shared) };
    (link, events_out, Inside { commands, packets, events, shared })
}

/// What the node hears, in order.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<(u64, LinkEvent)>,
    shared: Arc<Shared>,
}

impl Events {
    /// The next event; `None` when the link's task has ended.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        let taken = self.events.recv().await;
        taken.map(|event| self.seen(event))
    }

    /// The next event if one is there.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        let taken = self.events.try_recv().ok();
        taken.map(|event| self.seen(event))
    }

    fn seen(&self, (session, event): (u64, LinkEvent)) -> LinkEvent {
        if matches!(event, LinkEvent::Up(_)) {
            // From here on the node's transactions are made for this session.
            self.shared.known.store(session, Ordering::Release);
        }
        event
    }
}

/// A handle of the link; cheap to clone, never blocks.
#[derive(Clone)]
pub struct Link {
    commands: mpsc::Sender<Command>,
    packets: mpsc::Sender<PacketMessage>,
    shared: Arc<Shared>,
    timeout: Duration,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

impl Link {
    /// Sends a transaction behind all earlier ones. [`LinkEvent::Committed`] answers it, or the link goes down first.
    /// One that belongs to an earlier session, or is sent while the link is down, is dropped: after the next
    /// [`LinkEvent::Up`] the table is programmed anyway. A full queue costs the connection for the same reason.
    /// To be called by the task that takes the [`Events`].
    pub fn transaction(&self, id: u64, changes: Vec<Change>) {
        let session = self.shared.known.load(Ordering::Acquire);
        self.order(session, Command::Transaction { session, id, changes });
    }

    /// Asks for the table behind all earlier transactions. [`LinkEvent::Table`] answers, or the link goes down first.
    pub fn ask_table(&self) {
        let session = self.shared.known.load(Ordering::Acquire);
        self.order(session, Command::Table { session });
    }

    /// Queues what may not get lost while the session lives.
    fn order(&self, session: u64, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.shared.counters.add(Count::Overflow);
            self.shared.overflowed.store(session, Ordering::Release);
            self.shared.overflow.notify_one();
        }
    }

    /// Sends a packet; `false` if it was dropped because the queue is full.
    pub fn packet(&self, packet: PacketMessage) -> bool {
        let sent = self.packets.try_send(packet).is_ok();
        if !sent {
            self.shared.counters.add(Count::PacketsOutDropped);
        }
        sent
    }

    /// Whether the forwarder is connected.
    pub fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::Acquire)
    }

    /// What the link counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Process, workers, endpoints and capacity of the forwarder.
    pub async fn status(&self) -> Result<Status, LinkError> {
        match self.ask(Request::Status).await? {
            Response::Status(status) => Ok(*status),
            _ => Err(LinkError::Unexpected("status")),
        }
    }

    /// A row for each leg.
    pub async fn legs(&self) -> Result<Vec<LegRow>, LinkError> {
        match self.ask(Request::Legs).await? {
            Response::Legs(legs) => Ok(legs),
            _ => Err(LinkError::Unexpected("legs")),
        }
    }

    /// A row for each stream.
    pub async fn streams(&self) -> Result<StreamRows, LinkError> {
        match self.ask(Request::Streams).await? {
            Response::Streams(streams) => Ok(streams),
            _ => Err(LinkError::Unexpected("streams")),
        }
    }

    /// Counters of the forwarder.
    pub async fn forwarder_counters(&self) -> Result<Vec<CounterGroup>, LinkError> {
        match self.ask(Request::Counters).await? {
            Response::Counters(groups) => Ok(groups),
            _ => Err(LinkError::Unexpected("counters")),
        }
    }

    /// The table without keys.
    pub async fn snapshot(&self) -> Result<Snapshot, LinkError> {
        match self.ask(Request::Snapshot).await? {
            Response::Snapshot(snapshot) => Ok(*snapshot),
            _ => Err(LinkError::Unexpected("snapshot")),
        }
    }

    async fn ask(&self, request: Request) -> Result<Response, LinkError> {
        if !self.is_up() {
            return Err(LinkError::Down);
        }
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(Command::Question { request, answer }).map_err(|_| LinkError::Busy)?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(Ok(Response::Refused(refused)))) => Err(LinkError::Refused(refused)),
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(LinkError::Down),
            Err(_) => Err(LinkError::Timeout(self.timeout)),
        }
    }
}
