//! A running trace as the management thread sees it: who wants it, how many rows are left, and the workers' rows
//! turned into records.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{SystemTime, UNIX_EPOCH};

use sluice_table::protocol::{Refusal, Refused, Response, TraceFilter, TraceRecord};

use super::manager::Manager;
use crate::engine::trace::{Filter, ROWS, Row, Tap};
use crate::worker::Order;
use crate::worker::run::monotonic;

/// A request to trace.
#[derive(Debug)]
pub struct TraceAsk {
    /// Which packets.
    pub filter: TraceFilter,
    /// Every how many-th.
    pub sample: u32,
    /// Records to send; 0 means until the sink closes.
    pub count: u64,
    /// Where records go. A full sink loses records, counted; a closed one ends the trace.
    pub sink: SyncSender<Response>,
}

/// A trace in progress.
#[derive(Debug)]
pub(super) struct Running {
    sink: SyncSender<Response>,
    left: Option<u64>,
    missed: u64,
    /// Engine time is turned into wall time by this difference.
    wall_offset: u64,
}

impl Manager {
    /// Starts a trace. One at a time: it costs every packet a look.
    pub(super) fn start_trace(&mut self, ask: TraceAsk) -> Result<(), Refused> {
        if self.trace.is_some() {
            let hint = "end the other one, or wait for it";
            return Err(Refused::new(Refusal::Busy, "another trace is running", hint));
        }
        if ask.sample == 0 {
            return Err(Refused::new(Refusal::BadArgument, "sample 0 matches nothing", "use 1 for every packet"));
        }
        let mut only = None;
        if let Some(name) = &ask.filter.leg {
            let Some(at) = self.planner.leg(name) else {
                let detail = format!("there is no leg {name}");
                return Err(Refused::new(Refusal::BadArgument, detail, "`sluice legs` lists them"));
            };
            only = Some(at);
        }
        let filter = Filter {
            leg: only.map(|(_, slot)| slot),
            ssrc: ask.filter.ssrc,
            direction: ask.filter.direction,
            dropped_only: ask.filter.dropped_only,
        };
        for worker in self.workers.iter().filter(|w| only.is_none_or(|(owner, _)| owner == w.worker)) {
            let _ = worker.order(Order::Trace(Some(Box::new(Tap::new(filter, ask.sample)))));
            worker.wake();
        }
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        self.trace = Some(Running {
            sink: ask.sink,
            left: (ask.count > 0).then_some(ask.count),
            missed: 0,
            wall_offset: wall.wrapping_sub(monotonic().0),
        });
        Ok(())
    }

    /// Asks the workers for what they traced.
    pub(super) fn fetch_trace(&mut self) {
        if self.trace.is_some() {
            for worker in &self.workers {
                let _ = worker.order(Order::TakeTrace(Vec::with_capacity(ROWS)));
                worker.wake();
            }
        }
    }

    /// Passes rows of a worker on; ends the trace when enough were sent or nobody listens.
    pub(super) fn traced(&mut self, worker: u8, rows: Vec<Row>, missed: u64) {
        let Some(mut trace) = self.trace.take() else { return };
        trace.missed += missed;
        let mut over = false;
        for row in rows {
            let record = TraceRecord {
                at_unix_ns: row.at.0.wrapping_add(trace.wall_offset),
                worker: u16::from(worker),
                direction: row.direction,
                leg: row.leg.and_then(|slot| self.planner.leg_name(worker, slot)).cloned(),
                dropped: row.dropped,
                length: row.length,
                header: row.header.to_vec(),
            };
            match trace.sink.try_send(Response::Trace(record)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => trace.missed += 1,
                Err(TrySendError::Disconnected(_)) => {
                    over = true;
                    break;
                }
            }
            if let Some(left) = &mut trace.left {
                *left -= 1;
                if *left == 0 {
                    over = true;
                    break;
                }
            }
        }
        // A client that left is noticed even when nothing matches.
        over |= matches!(trace.sink.try_send(Response::Ok), Err(TrySendError::Disconnected(_)));
        if over {
            let _ = trace.sink.try_send(Response::TraceEnd { missed: trace.missed });
            for worker in &self.workers {
                let _ = worker.order(Order::Trace(None));
                worker.wake();
            }
        } else {
            self.trace = Some(trace);
        }
    }
}
