//! A worker: one thread, one core, one engine, its ports. The only place where an engine meets a clock and
//! sockets. Never allocates, locks or logs per packet.

pub mod ports;
pub mod run;
pub mod wake;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::queue::ArrayQueue;

use crate::engine::command::Garbage;
use crate::engine::event::Event;
use crate::engine::trace::{Row, Tap};
use crate::engine::{Command, Nanos, PortId};
use crate::io::XdpIo;

pub use ports::WorkerPorts;
pub use run::{Worker, WorkerOptions};
pub use wake::{Bell, Waker};

/// What a worker is told.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved through a preallocated queue; a box would be freed by the worker")]
pub enum Order {
    /// For the engine.
    Engine(Command),
    /// An `AF_XDP` port.
    AddPort(PortId, Box<XdpIo>),
    /// Closes a port.
    RemovePort(PortId),
    /// An endpoint's kernel socket, and whether this worker is the one that reads it.
    AddSocket(UdpSocket, bool),
    /// Closes an endpoint's kernel socket.
    RemoveSocket(SocketAddr),
    /// Fills in rows and sends them back.
    Read(Box<Reading>),
    /// Starts or ends a trace.
    Trace(Option<Box<Tap>>),
    /// Swaps traced rows for this empty vector.
    TakeTrace(Vec<Row>),
    /// Ends the thread.
    Stop,
}

/// What a worker says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved through a preallocated queue; a box would be allocated per event")]
pub enum Report {
    /// From the engine.
    Event(Event),
    /// To be freed.
    Garbage(Garbage),
    /// A filled-in reading.
    Read(Box<Reading>),
    /// Traced rows, and how many were missed.
    Trace(Vec<Row>, u64),
    /// A trace that ended.
    Ended(Box<Tap>),
    /// A port to be closed here, since closing takes time.
    Closed(Box<XdpIo>),
}

/// Rows to read, at most 64 at a time so that a reading never holds packets up.
#[derive(Debug, Default)]
pub struct Reading {
    /// Chosen by the reader.
    pub tag: u64,
    /// Slots of legs.
    pub legs: Vec<(u32, Option<LegSample>)>,
    /// Slots of ingress streams.
    pub ingress: Vec<(u32, Option<IngressSample>)>,
    /// Slots of egress streams.
    pub egress: Vec<(u32, Option<EgressSample>)>,
    /// The worker's totals, if wanted.
    pub totals: Option<Box<Totals>>,
}

/// Most rows of one reading.
pub const READING_ROWS: usize = 64;

/// A leg's counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct LegSample {
    /// Counts.
    pub stats: crate::engine::rows::LegStats,
    /// Time of the reading.
    pub now: Nanos,
    /// Whether headers for the peer are prepared.
    pub has_hop: bool,
    /// Whether the peer's consent ran out.
    pub consent_lost: bool,
}

/// An ingress stream's counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct IngressSample {
    /// Packets opened.
    pub packets: u64,
    /// Payload bytes opened.
    pub bytes: u64,
    /// Highest index.
    pub index: Option<u64>,
    /// First index, from which losses are counted.
    pub first: Option<u64>,
}

/// An egress stream's counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct EgressSample {
    /// Packets sealed.
    pub packets: u64,
    /// Bytes sealed.
    pub bytes: u64,
    /// Highest index issued.
    pub index: Option<u64>,
    /// Switches of source.
    pub epochs: u32,
    /// List of the source now carried.
    pub source: Option<u32>,
}

/// A worker's totals.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The engine's counters.
    pub counters: crate::engine::Counters,
    /// Ports in use with their counters.
    pub ports: Vec<(PortId, crate::io::IoCounters)>,
    /// Loop turns that found work.
    pub busy: u64,
    /// CPU time of the thread in microseconds.
    pub cpu_us: u64,
    /// Free cells and all cells.
    pub cells: (usize, usize),
    /// Frames handed out and not back, over all ports; nothing is out between two steps.
    pub frames_out: u64,
    /// Jobs the crypto provider refused: a defect if not zero.
    pub refused_jobs: u64,
}

/// The management thread's end of a worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Which worker.
    pub worker: u8,
    /// Core it is pinned to.
    pub cpu: Option<usize>,
    pub(crate) orders: Arc<ArrayQueue<Order>>,
    pub(crate) reports: Arc<ArrayQueue<Report>>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Queues an order, waiting while the queue is full. Returns it when the worker no longer takes any.
    #[allow(clippy::result_large_err, reason = "the order comes back unharmed")]
    pub fn order(&self, order: Order) -> Result<(), Order> {
        let mut order = order;
        for turn in 0..50_000u32 {
            match self.orders.push(order) {
                Ok(()) => return Ok(()),
                Err(back) => order = back,
            }
            self.waker.wake();
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                break;
            }
            if turn < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
        Err(order)
    }

    /// Queues an order if there is room; gives it back if not.
    pub fn offer(&self, order: Order) -> Result<(), Box<Order>> {
        self.orders.push(order).map_err(Box::new)
    }

    /// Makes a sleeping worker look at its orders.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Has something done whenever the worker reports what should not wait.
    pub fn on_urgent(&self, ring: Box<dyn Fn() + Send + Sync>) {
        self.bell.connect(ring);
    }

    /// Says that reports are about to be taken.
    pub fn answer_bell(&self) {
        self.bell.answer();
    }

    /// The next report.
    pub fn report(&self) -> Option<Report> {
        self.reports.pop()
    }

    /// Stops the worker and waits for its thread.
    pub fn stop(&mut self) {
        let _ = self.order(Order::Stop);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
