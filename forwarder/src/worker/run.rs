//! The worker's loop: orders, bursts, other workers, fan-outs, reports; sleep when there is nothing left.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use sluice_srtp::provider::{AnyProvider, Provider};
use sluice_srtp::{PacketIndex, Receiver};

use super::ports::WorkerPorts;
use super::wake::{Bell, Waker};
use super::{EgressSample, IngressSample, LegSample, Order, Reading, Report, Totals, WorkerHandle};
use crate::engine::run::{MAX_EVENTS, STEP_FRAMES};
use crate::engine::{Engine, Nanos, Path};
use crate::io::{PacketIo, PollMode, RxBurst};

/// Entries of orders carried out between two bursts; only the last order may go beyond it.
const SLICE: usize = 64;
/// Orders that can wait.
const ORDERS: usize = 8_192;
/// Reports that can wait.
const REPORTS: usize = 8_192;
/// An adaptive worker sleeps after this long without work.
const SPIN: Nanos = Nanos(200_000);
/// Longest sleep: bounds how late a deadline is noticed when nothing arrives.
const SLEEP: Duration = Duration::from_millis(50);

/// How a worker runs.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// What to do when there is no work.
    pub poll: PollMode,
    /// Core to pin to.
    pub cpu: Option<usize>,
}

/// A worker before it runs.
#[derive(Debug)]
pub struct Worker {
    engine: Engine<AnyProvider>,
    ports: WorkerPorts,
    options: WorkerOptions,
    orders: Arc<ArrayQueue<Order>>,
    reports: Arc<ArrayQueue<Report>>,
    waker: Arc<Waker>,
    bell: Arc<Bell>,
    fds: Vec<RawFd>,
    busy: u64,
    cells: usize,
}

impl Worker {
    /// Starts a worker's thread.
    pub fn spawn(
        worker: u8,
        engine: Engine<AnyProvider>,
        ports: WorkerPorts,
        options: WorkerOptions,
    ) -> io::Result<WorkerHandle> {
        let orders = Arc::new(ArrayQueue::new(ORDERS));
        let reports = Arc::new(ArrayQueue::new(REPORTS));
        let waker = Arc::new(Waker::new()?);
        let bell = Arc::new(Bell::default());
        let cells = engine.free_cells();
        let this = Worker {
            engine,
            ports,
            options,
            orders: Arc::clone(&orders),
            reports: Arc::clone(&reports),
            waker: Arc::clone(&waker),
            bell: Arc::clone(&bell),
            fds: Vec::new(),
            busy: 0,
            cells,
        };
        let thread = std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || this.run())?;
        Ok(WorkerHandle { worker, cpu: options.cpu, orders, reports, waker, bell, thread: Some(thread) })
    }

    fn run(mut self) {
        if let Some(id) = self.options.cpu {
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let mut last_work = monotonic();
        loop {
            let now = monotonic();
            let Some(orders) = self.carry_out_orders() else { break };
            let received = self.receive(now);
            self.engine.exchange(now);
            self.ports.reap();
            let outcome = self.engine.send(now, &mut self.ports, STEP_FRAMES);
            self.ports.flush();
            self.report();
            if orders + received > 0 || outcome.sent > 0 {
                self.busy += 1;
                last_work = now;
            } else if outcome.waiting {
                self.sleep(Duration::from_millis(1)); // transmit rings are full
            } else {
                match self.options.poll {
                    PollMode::Busy => std::hint::spin_loop(),
                    PollMode::Adaptive if now.since(last_work) < SPIN => std::hint::spin_loop(),
                    PollMode::Adaptive | PollMode::Interrupt => {
                        self.sleep(SLEEP.min(Duration::from_nanos(outcome.deadline.since(now).0)));
                    }
                }
            }
        }
    }

    fn receive(&mut self, now: Nanos) -> usize {
        let mut received = 0;
        let mut burst = RxBurst::new();
        for port in self.ports.fast() {
            port.receive(&mut burst);
            received += burst.len();
            self.engine.receive(now, &burst, Path::Fast);
            for frame in burst.drain(..) {
                port.release(frame);
            }
        }
        self.ports.udp.receive(&mut burst);
        received += burst.len();
        self.engine.receive(now, &burst, Path::Slow);
        for frame in burst.drain(..) {
            self.ports.udp.release(frame);
        }
        received
    }

    /// Carries out a slice of orders; `None` when told to stop.
    fn carry_out_orders(&mut self) -> Option<usize> {
        let mut done = 0;
        while done < SLICE {
            let Some(order) = self.orders.pop() else { break };
            done += 1;
            match order {
                Order::Engine(command) => {
                    done += command.entries() - 1;
                    self.engine.command(command);
                }
                Order::AddPort(id, port) => {
                    let old = self.ports.set(id, Some(port));
                    self.close(old);
                }
                Order::RemovePort(id) => {
                    let old = self.ports.set(id, None);
                    self.close(old);
                }
                Order::AddSocket(socket, reads) => {
                    let udp = &mut self.ports.udp;
                    let added = if reads { udp.add(socket) } else { udp.add_sender(socket) };
                    if let Err(error) = added {
                        tracing::error!(%error, "an endpoint's kernel socket cannot be used by this worker");
                    }
                }
                Order::RemoveSocket(local) => {
                    self.ports.udp.remove(local);
                }
                Order::Read(mut reading) => {
                    self.read(&mut reading);
                    let _ = self.reports.push(Report::Read(reading));
                }
                Order::Trace(tap) => {
                    if let Some(ended) = self.engine.set_tap(tap) {
                        let _ = self.reports.push(Report::Ended(ended));
                    }
                }
                Order::TakeTrace(mut rows) => {
                    let missed = self.engine.take_trace(&mut rows);
                    let _ = self.reports.push(Report::Trace(rows, missed));
                }
                Order::Stop => return None,
            }
        }
        Some(done)
    }

    fn close(&self, port: Option<Box<crate::io::XdpIo>>) {
        if let Some(port) = port {
            let _ = self.reports.push(Report::Closed(port));
        }
    }

    fn report(&mut self) {
        // Events stay where they are while the management thread is behind; the engine counts what it cannot keep.
        if self.reports.capacity() - self.reports.len() > MAX_EVENTS {
            let mut urgent = false;
            for event in self.engine.events() {
                urgent |= event.is_urgent();
                let _ = self.reports.push(Report::Event(event));
            }
            if urgent {
                self.bell.ring();
            }
        }
        for garbage in self.engine.garbage() {
            let _ = self.reports.push(Report::Garbage(garbage));
        }
    }

    fn read(&mut self, reading: &mut Reading) {
        let (engine, now) = (&self.engine, monotonic());
        for (slot, sample) in &mut reading.legs {
            *sample = engine.leg_row(*slot).map(|row| LegSample {
                stats: row.stats,
                now,
                consent_lost: row.ice.is_lost(),
                has_hop: row.config.get(engine.generation()).is_some_and(|leg| leg.template.is_some()),
            });
        }
        for (slot, sample) in &mut reading.ingress {
            *sample = engine.ingress_row(*slot).map(|row| IngressSample {
                packets: row.packets,
                bytes: row.payload_bytes,
                index: row.receiver.as_ref().and_then(Receiver::highest).map(PacketIndex::as_u64),
                first: row.first_index,
            });
        }
        for (slot, sample) in &mut reading.egress {
            *sample = engine.egress_row(*slot).map(|row| EgressSample {
                packets: row.packets(),
                bytes: row.bytes(),
                index: if row.packets() > 0 { row.window.highest().map(PacketIndex::as_u64) } else { None },
                epochs: row.rewriter.epochs(),
                source: row.rewriter.source(),
            });
        }
        if let Some(totals) = &mut reading.totals {
            **totals = Totals {
                counters: engine.counters().clone(),
                ports: self.ports.counters(),
                busy: self.busy,
                cpu_us: thread_cpu_us(),
                cells: (engine.free_cells(), self.cells),
                frames_out: self.ports.frames_out(),
                refused_jobs: engine.crypto().refused(),
            };
        }
    }

    fn sleep(&mut self, timeout: Duration) {
        self.waker.about_to_sleep();
        if !self.orders.is_empty() {
            self.waker.awake();
            return;
        }
        self.fds.clear();
        self.fds.push(self.waker.fd());
        self.ports.descriptors(&mut self.fds);
        crate::io::poll::readable_any(&self.fds, timeout);
        self.waker.awake();
    }
}

/// The monotonic clock, which keeps running across processes, so that timestamps of a former process continue.
pub fn monotonic() -> Nanos {
    Nanos(read_clock(libc::CLOCK_MONOTONIC))
}

fn thread_cpu_us() -> u64 {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID) / 1_000
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is writable; both clocks always exist on Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}
