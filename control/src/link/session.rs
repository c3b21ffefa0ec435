//! One session with the forwarder: its three connections from handshake to the first failure. Never reconnects.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_table::protocol::{
    Call, EventRecord, PACKET_LIMIT, PacketMessage, Reply, Request, Response, Role, Snapshot, TABLE_LIMIT, append,
};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::counters::Count;
use super::error::LinkError;
use super::handle::{Command, Inside, Shared};
use super::wire::{BATCH, Batch, Reader, connect};
use super::{LinkConfig, LinkEvent};

/// Most events kept while a snapshot is under way.
const KEPT: usize = 8192;

/// Connections that have shaken hands, subscribed and with a snapshot. A connection that subscribes serves nothing
/// else, so events have one of their own.
pub(super) struct Open {
    events: Reader<UnixStream>,
    table: Reader<OwnedReadHalf>,
    table_out: OwnedWriteHalf,
    packets: UnixStream,
    snapshot: Box<Snapshot>,
    next_call: u32,
}

/// Connects, subscribes, then takes the snapshot that events come on top of.
pub(super) async fn open(config: &LinkConfig) -> Result<Open, LinkError> {
    let mut events = connect(&config.socket, Role::Table, config.timeout).await?;
    let table = connect(&config.socket, Role::Table, config.timeout).await?;
    let packets = connect(&config.socket, Role::Packet, config.timeout).await?;
    let (read, mut table_out) = table.into_split();
    let mut table = Reader::new(read, TABLE_LIMIT);
    let ask = async {
        let mut batch = Batch::default();
        batch.push(&Call { id: 1, request: Request::Subscribe }, TABLE_LIMIT)?;
        batch.write(&mut events).await?;
        let mut events = Reader::new(events, TABLE_LIMIT);
        match events.next::<Reply>().await?.response {
            Response::Ok => {}
            Response::Refused(refused) => return Err(LinkError::Refused(refused)),
            _ => return Err(LinkError::Unexpected("subscribe")),
        }
        batch.push(&Call { id: 1, request: Request::Snapshot }, TABLE_LIMIT)?;
        batch.write(&mut table_out).await?;
        match table.next::<Reply>().await?.response {
            Response::Snapshot(snapshot) => Ok((events, snapshot)),
            Response::Refused(refused) => Err(LinkError::Refused(refused)),
            _ => Err(LinkError::Unexpected("snapshot")),
        }
    };
    let asked = tokio::time::timeout(config.timeout, ask).await;
    let (events, snapshot) = asked.unwrap_or(Err(LinkError::Timeout(config.timeout)))?;
    Ok(Open { events, table, table_out, packets, snapshot, next_call: 2 })
}

/// A call that waits for its answer.
struct Pending {
    call: u32,
    since: Instant,
    what: What,
}

enum What {
    Transaction(u64),
    Question(oneshot::Sender<Result<Response, LinkError>>),
    /// A snapshot because events were lost.
    Gap,
    /// A snapshot because the node asked.
    Table,
}

/// Calls in the order they were written.
struct Calls {
    open: VecDeque<Pending>,
    /// When the last one was answered, or the first was written after all were.
    progress: Instant,
}

/// Short locks only, never across an await.
struct Waiting(Mutex<Calls>);

impl Waiting {
    fn new() -> Waiting {
        Waiting(Mutex::new(Calls { open: VecDeque::new(), progress: Instant::now() }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Calls) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn push(&self, call: u32, what: What) {
        self.with(|calls| {
            if calls.open.is_empty() {
                calls.progress = Instant::now();
            }
            calls.open.push_back(Pending { call, since: Instant::now(), what });
        });
    }

    fn pop(&self) -> Option<Pending> {
        self.with(|calls| {
            calls.progress = Instant::now();
            calls.open.pop_front()
        })
    }

    /// Whether calls are open and none was answered for so long. One that only waits for many others is no reason.
    fn is_stuck(&self, timeout: Duration) -> bool {
        self.with(|calls| !calls.open.is_empty() && calls.progress.elapsed() > timeout)
    }
}

/// Runs until something fails, and says what.
pub(super) async fn run(config: &LinkConfig, inside: &mut Inside, open: Open, session: u64) -> LinkError {
    let Inside { commands, packets, events, shared } = inside;
    let (packet_read, packet_write) = open.packets.into_split();
    let waiting = Waiting::new();
    let (gaps, gap_asked) = mpsc::channel(1);
    let sequence = open.snapshot.event_sequence;
    shared.counters.add(Count::Connected);
    shared.up.store(true, Ordering::Release);
    let table = TableReader { events, shared, session, waiting: &waiting, gaps, sequence, lost: None };
    let end = tokio::select! {
        end = table.run(open.table, open.events, open.snapshot) => end,
        end = write_table(commands, gap_asked, open.table_out, &waiting, shared, session, open.next_call) => end,
        end = read_packets(packet_read, events, shared, session) => end,
        end = write_packets(packets, packet_write, shared) => end,
        end = watch(&waiting, config.timeout) => end,
        () = shared.overflow(session) => Err(LinkError::Overflow(config.table_queue)),
    };
    // Who asked hears that the link is down by its end of the channel being dropped.
    end.err().unwrap_or(LinkError::Down)
}

/// Fails when no call was answered for too long.
async fn watch(waiting: &Waiting, timeout: Duration) -> Result<(), LinkError> {
    loop {
        tokio::time::sleep(timeout / 8).await;
        if waiting.is_stuck(timeout) {
            return Err(LinkError::Timeout(timeout));
        }
    }
}

async fn write_table(
    commands: &mut mpsc::Receiver<Command>,
    mut gap_asked: mpsc::Receiver<()>,
    mut stream: OwnedWriteHalf,
    waiting: &Waiting,
    shared: &Shared,
    session: u64,
    mut next_call: u32,
) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    loop {
        let mut next = tokio::select! {
            Some(()) = gap_asked.recv() => Some((Request::Snapshot, What::Gap)),
            command = commands.recv() => match command {
                Some(command) => request(command, shared, session),
                // Every handle is gone; events still count.
                None => std::future::pending().await,
            },
        };
        loop {
            if let Some((request, what)) = next {
                let call = next_call;
                next_call = next_call.wrapping_add(1).max(1);
                match (batch.push(&Call { id: call, request }, TABLE_LIMIT), what) {
                    (Ok(()), what) => {
                        waiting.push(call, what);
                    }
                    (Err(error), What::Question(answer)) => drop(answer.send(Err(error))),
                    // Without it the forwarder's table would not be what the node thinks.
                    (Err(error), _) => return Err(error),
                }
            }
            if batch.is_full() {
                break;
            }
            match commands.try_recv() {
                Ok(command) => next = request(command, shared, session),
                Err(_) => break,
            }
        }
        batch.write(&mut stream).await?;
    }
}

fn request(command: Command, shared: &Shared, session: u64) -> Option<(Request, What)> {
    match command {
        Command::Transaction { session: made_for, .. } | Command::Table { session: made_for }
            if made_for != session =>
        {
            shared.counters.add(Count::Stale);
            None
        }
        Command::Transaction { id, changes, .. } => {
            shared.counters.add(Count::Transactions);
            Some((Request::Transaction { id, changes }, What::Transaction(id)))
        }
        Command::Table { .. } => Some((Request::Snapshot, What::Table)),
        Command::Question { request, answer } => Some((request, What::Question(answer))),
    }
}

struct TableReader<'a> {
    events: &'a mpsc::Sender<(u64, LinkEvent)>,
    shared: &'a Shared,
    session: u64,
    waiting: &'a Waiting,
    gaps: mpsc::Sender<()>,
    /// Sequence number of the last event the node knows of.
    sequence: u64,
    /// While a snapshot is under way: events that may come on top of it.
    lost: Option<Vec<EventRecord>>,
}

impl TableReader<'_> {
    async fn run(
        mut self,
        mut table: Reader<OwnedReadHalf>,
        mut events: Reader<UnixStream>,
        snapshot: Box<Snapshot>,
    ) -> Result<(), LinkError> {
        self.tell(LinkEvent::Up(snapshot)).await?;
        loop {
            tokio::select! {
                reply = table.next::<Reply>() => {
                    let Reply { id, response } = reply?;
                    self.answer(id, response).await?;
                }
                reply = events.next::<Reply>() => match reply?.response {
                    Response::Event(record) => {
                        self.shared.counters.add(Count::Events);
                        self.pass(record).await?;
                    }
                    _ => return Err(LinkError::Unexpected("subscribe")),
                },
            }
        }
    }

    /// Waits for the node: it hears every answer, and a forwarder that cannot write drops events and counts them.
    async fn tell(&self, event: LinkEvent) -> Result<(), LinkError> {
        self.events.send((self.session, event)).await.map_err(|_| LinkError::Down)
    }

    /// Passes on what follows the last event, and asks for a snapshot when one is missing.
    async fn pass(&mut self, record: EventRecord) -> Result<(), LinkError> {
        if let Some(kept) = &mut self.lost {
            // What does not fit is found missing after the snapshot.
            if kept.len() < KEPT {
                kept.push(record);
            }
            return Ok(());
        }
        if record.sequence <= self.sequence {
            return Ok(());
        }
        if record.sequence != self.sequence + 1 {
            self.shared.counters.add(Count::Gaps);
            self.lost = Some(vec![record]);
            // One place is enough: the next is only asked for when this one was answered.
            let _ = self.gaps.try_send(());
            return Ok(());
        }
        self.sequence = record.sequence;
        self.tell(LinkEvent::Event(record)).await
    }

    async fn answer(&mut self, call: u32, response: Response) -> Result<(), LinkError> {
        let Some(pending) = self.waiting.pop().filter(|oldest| oldest.call == call) else {
            return Err(LinkError::Unexpected("a call out of order"));
        };
        if matches!(pending.what, What::Transaction(_)) {
            self.shared.counters.committed(pending.since.elapsed());
        }
        match (pending.what, response) {
            (What::Transaction(id), Response::Committed { id: of, generation }) if id == of => {
                self.tell(LinkEvent::Committed { id, result: Ok(generation) }).await
            }
            (What::Transaction(id), Response::Refused(refused)) => {
                self.shared.counters.add(Count::Refused);
                self.tell(LinkEvent::Committed { id, result: Err(refused) }).await
            }
            (What::Transaction(_), _) => Err(LinkError::Unexpected("a transaction")),
            (What::Gap, Response::Snapshot(snapshot)) => {
                let kept = self.lost.take().unwrap_or_default();
                self.sequence = snapshot.event_sequence;
                self.tell(LinkEvent::Gap(snapshot)).await?;
                for record in kept {
                    self.pass(record).await?;
                }
                Ok(())
            }
            (What::Table, Response::Snapshot(snapshot)) => self.tell(LinkEvent::Table(snapshot)).await,
            (What::Gap | What::Table, Response::Refused(refused)) => Err(LinkError::Refused(refused)),
            (What::Gap | What::Table, _) => Err(LinkError::Unexpected("snapshot")),
            (What::Question(answer), response) => {
                // Whoever asked may have stopped waiting.
                drop(answer.send(Ok(response)));
                Ok(())
            }
        }
    }
}

async fn read_packets(
    stream: OwnedReadHalf,
    events: &mpsc::Sender<(u64, LinkEvent)>,
    shared: &Shared,
    session: u64,
) -> Result<(), LinkError> {
    let mut reader = Reader::new(stream, PACKET_LIMIT);
    // The rest is for answers and events, which are never dropped.
    let kept_free = events.max_capacity() / 4;
    loop {
        let packet: PacketMessage = reader.next().await?;
        shared.counters.add(Count::PacketsIn);
        let room = events.capacity() > kept_free;
        if !room || events.try_send((session, LinkEvent::Packet(packet))).is_err() {
            shared.counters.add(Count::PacketsInDropped);
        }
    }
}

async fn write_packets(
    packets: &mut mpsc::Receiver<PacketMessage>,
    mut stream: OwnedWriteHalf,
    shared: &Shared,
) -> Result<(), LinkError> {
    let mut frames = Vec::new();
    loop {
        let Some(packet) = packets.recv().await else { return std::future::pending().await };
        let mut next = Some(packet);
        while let Some(packet) = next {
            let count = match append(&packet, PACKET_LIMIT, &mut frames) {
                Ok(()) => Count::PacketsOut,
                Err(_) => Count::PacketsOutDropped,
            };
            shared.counters.add(count);
            next = if frames.len() >= BATCH { None } else { packets.try_recv().ok() };
        }
        let broken = |source| LinkError::Broken { doing: "writing", source };
        stream.write_all(&frames).await.map_err(broken)?;
        frames.clear();
        // A burst's memory need not stay.
        frames.shrink_to(PACKET_LIMIT);
    }
}
