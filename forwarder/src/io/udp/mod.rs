//! The kernel-socket port: sockets on one side, whole frames on the other, so that the engine has one path. The
//! Ethernet, IP and UDP headers of received frames are made up; those of sent frames are read and left to the
//! kernel.

mod batch;
mod socket;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ptr::NonNull;
use std::time::Duration;

use super::arena::{Arena, FRAME_SIZE, FreeRing, Ledger};
use super::headers::Headers;
use super::poll::{Waiter, poll, readable};
use super::{BURST, IoCounters, PacketIo, PollMode, RxBurst, RxFrame, TxFrame};
use batch::Batch;
use socket::Endpoint;
pub use socket::bind_endpoint;

/// Room in front of a received payload: enough for Ethernet, IPv6 and UDP, and a cache line.
const HEADROOM: usize = 64;
/// Segments of one segmented message; the kernel takes 64 since Linux 4.18.
const MAX_SEGMENTS: usize = 64;
/// Payload bytes of one segmented message, below the largest IP packet.
const MAX_SEGMENTED: usize = 65_000;

/// How a port over kernel sockets works.
#[derive(Clone, Copy, Debug)]
pub struct UdpOptions {
    /// Receive frames.
    pub rx_frames: u32,
    /// Transmit frames.
    pub tx_frames: u32,
    /// What waiting means.
    pub poll: PollMode,
    /// Send runs of equal size to one destination as one message (`UDP_SEGMENT`).
    pub segmentation: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions { rx_frames: 1024, tx_frames: 1024, poll: PollMode::default(), segmentation: false }
    }
}

/// A port over kernel sockets, one per endpoint.
#[derive(Debug)]
pub struct UdpIo {
    endpoints: Vec<Endpoint>,
    /// The endpoint that receives first next time, so that a busy one does not starve the others.
    turn: usize,
    /// Gone only while the port is being dropped with handles out.
    arena: Option<Arena>,
    rx_free: FreeRing,
    tx_free: FreeRing,
    receiving: Batch,
    sending: Batch,
    /// Frames of each message in `sending`.
    runs: [u8; BURST],
    to_send: Vec<(u32, u32)>,
    segmentation: bool,
    waiter: Waiter,
    ledger: Ledger,
    counters: IoCounters,
    /// Drops of endpoints that were removed.
    closed_drops: u64,
}

impl UdpIo {
    /// A port over `sockets` (see [`bind_endpoint`]), each bound to one address. Several ports may hold
    /// duplicates of one socket.
    pub fn new(sockets: Vec<UdpSocket>, options: &UdpOptions) -> io::Result<Self> {
        let endpoints = sockets.into_iter().map(Endpoint::new).collect::<io::Result<Vec<_>>>()?;
        let (rx, tx) = (options.rx_frames.max(1), options.tx_frames.max(1));
        let mut tx_free = FreeRing::new(tx, 0);
        for number in 0..tx {
            tx_free.push(rx + number);
        }
        Ok(UdpIo {
            endpoints,
            turn: 0,
            arena: Some(Arena::new(rx + tx)),
            rx_free: FreeRing::new(rx, rx),
            tx_free,
            receiving: Batch::new(),
            sending: Batch::new(),
            runs: [0; BURST],
            to_send: Vec::with_capacity(tx as usize),
            segmentation: options.segmentation,
            waiter: Waiter::new(options.poll),
            ledger: Ledger::default(),
            counters: IoCounters::default(),
            closed_drops: 0,
        })
    }

    /// Adds the socket of another endpoint.
    pub fn add(&mut self, socket: UdpSocket) -> io::Result<()> {
        self.endpoints.push(Endpoint::new(socket)?);
        Ok(())
    }

    /// Adds the socket of an endpoint whose packets another port takes in: this one only sends by it.
    pub fn add_sender(&mut self, socket: UdpSocket) -> io::Result<()> {
        self.endpoints.push(Endpoint { receives: false, ..Endpoint::new(socket)? });
        Ok(())
    }

    /// Removes and closes the socket bound to `local`; returns whether there was one.
    pub fn remove(&mut self, local: SocketAddr) -> bool {
        let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.local == local) else { return false };
        let endpoint = self.endpoints.swap_remove(at);
        self.closed_drops += endpoint.drops();
        self.turn = 0;
        true
    }

    /// Addresses of the endpoints.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.endpoints.iter().map(|endpoint| endpoint.local)
    }

    /// Descriptors that become readable when something arrives.
    pub fn descriptors(&self, into: &mut Vec<std::os::fd::RawFd>) {
        into.extend(self.endpoints.iter().filter(|endpoint| endpoint.receives).map(Endpoint::fd));
    }

    /// Handles that are out.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Whether runs are sent segmented; falls to `false` when the kernel refuses.
    pub fn segmentation(&self) -> bool {
        self.segmentation
    }

    fn memory(&self, number: u32) -> NonNull<u8> {
        match &self.arena {
            Some(arena) => arena.frame(number),
            None => NonNull::dangling(),
        }
    }

    /// Receives from one endpoint.
    fn receive_from(&mut self, endpoint: usize, burst: &mut RxBurst) {
        let room = burst.remaining_capacity().min(self.rx_free.len());
        if room == 0 {
            return;
        }
        let mut numbers = [0_u32; BURST];
        self.receiving.clear();
        for slot in &mut numbers[..room] {
            let Some(number) = self.rx_free.pop() else { break };
            *slot = number;
            // SAFETY: the headroom is part of the frame.
            let data = unsafe { self.memory(number).add(HEADROOM) };
            self.receiving.push_receive(data, FRAME_SIZE - HEADROOM);
        }
        let (fd, local) = (self.endpoints[endpoint].fd(), self.endpoints[endpoint].local);
        self.counters.kicks += 1;
        // SAFETY: the frames were free, so nothing else reaches them.
        let received = unsafe { self.receiving.receive(fd) }.unwrap_or(0);
        for (at, number) in numbers[..room].iter().enumerate() {
            let frame = (at < received).then(|| self.receiving.received(at)).flatten();
            let Some((payload, source)) = frame else {
                self.rx_free.push(*number);
                self.counters.rx_dropped += u64::from(at < received);
                continue;
            };
            let headers = Headers::new(source, local);
            let length = headers.len();
            // SAFETY: the headers fit into the headroom, all inside the frame, which was free.
            let data = unsafe { self.memory(*number).add(HEADROOM - length) };
            // SAFETY: as above; the slice ends before the payload.
            let front = unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), length) };
            if headers.write(front, payload).is_none() {
                self.rx_free.push(*number);
                self.counters.rx_dropped += 1;
                continue;
            }
            let len = (length + payload) as u32;
            // SAFETY: headers and payload lie inside the frame, which is ours until it is released. A port
            // dropped with handles out leaks the arena.
            burst.push(unsafe { RxFrame::from_raw(data, len, u64::from(*number)) });
            self.ledger.rx += 1;
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += u64::from(len);
        }
    }

    /// The submitted bytes of a frame.
    fn submitted(&self, (number, len): (u32, u32)) -> &[u8] {
        // SAFETY: the frame was submitted, so no handle reaches it; `len` was cut to the frame's size.
        unsafe { std::slice::from_raw_parts(self.memory(number).as_ptr(), len as usize) }
    }

    /// Gathers messages of one socket from the front of what is to be sent. Returns the socket, or `None` if the
    /// first frame cannot be sent at all.
    fn gather(&mut self, start: usize) -> Option<usize> {
        self.sending.clear();
        self.runs = [0; BURST];
        let mut chosen = None;
        let mut run: Option<Run> = None;
        for at in start..self.to_send.len() {
            if self.sending.is_full() {
                break;
            }
            let Some((headers, payload)) = Headers::parse(self.submitted(self.to_send[at])) else { break };
            let Some(endpoint) = self.endpoints.iter().position(|one| one.sends_from(headers.source)) else { break };
            if *chosen.get_or_insert(endpoint) != endpoint {
                break;
            }
            let size = payload.len();
            // SAFETY: the payload lies inside the frame.
            let data = unsafe { self.memory(self.to_send[at].0).add(payload.start) };
            match &mut run {
                Some(run) if self.segmentation && run.takes(&headers, size) => run.add(size),
                _ => {
                    self.end_run(run.take());
                    let scope = match self.endpoints[endpoint].local {
                        SocketAddr::V6(local) => local.scope_id(),
                        SocketAddr::V4(_) => 0,
                    };
                    self.sending.push_send(headers.destination, scope, headers.traffic_class);
                    run = Some(Run::new(&headers, size));
                }
            }
            self.sending.push_buffer(data, size);
            self.runs[self.sending.messages() - 1] += 1;
        }
        self.end_run(run);
        chosen
    }

    fn end_run(&mut self, run: Option<Run>) {
        if let Some(run) = run.filter(|run| run.segments > 1) {
            self.sending.segment(run.size as u16);
        }
    }

    /// Frames of the first `messages` messages gathered.
    fn frames_of(&self, messages: usize) -> usize {
        self.runs[..messages].iter().map(|frames| *frames as usize).sum()
    }
}

/// Frames that one segmented message may carry.
#[derive(Clone, Copy)]
struct Run {
    destination: SocketAddr,
    traffic_class: u8,
    size: usize,
    segments: usize,
    /// A shorter segment came: it must be the last.
    ended: bool,
}

impl Run {
    fn new(headers: &Headers, size: usize) -> Self {
        Run {
            destination: headers.destination,
            traffic_class: headers.traffic_class,
            size,
            segments: 1,
            ended: size == 0,
        }
    }

    fn takes(&self, headers: &Headers, size: usize) -> bool {
        !self.ended
            && self.destination == headers.destination
            && self.traffic_class == headers.traffic_class
            && (1..=self.size).contains(&size)
            && self.segments < MAX_SEGMENTS
            && (self.segments + 1) * self.size <= MAX_SEGMENTED
    }

    fn add(&mut self, size: usize) {
        self.segments += 1;
        self.ended = size < self.size;
    }
}

impl PacketIo for UdpIo {
    #[inline]
    fn wants_checksum(&self) -> bool {
        false
    }

    #[inline]
    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let before = burst.len();
        let count = self.endpoints.len();
        for step in 0..count {
            let endpoint = (self.turn + step) % count;
            if self.endpoints[endpoint].receives {
                self.receive_from(endpoint, burst);
            }
        }
        self.turn = if count == 0 { 0 } else { (self.turn + 1) % count };
        let taken = burst.len() - before;
        if taken > 0 {
            self.waiter.received();
        }
        taken
    }

    #[inline]
    fn release(&mut self, frame: RxFrame) {
        self.ledger.rx -= 1;
        self.rx_free.push(frame.token() as u32);
    }

    #[inline]
    fn credit(&mut self) -> usize {
        self.tx_free.len()
    }

    #[inline]
    fn acquire(&mut self) -> Option<TxFrame> {
        let number = self.tx_free.pop()?;
        self.ledger.tx += 1;
        // SAFETY: the frame was free, so nothing else reaches it; it becomes free again by `cancel` or when it
        // was sent. A port dropped with handles out leaks the arena.
        Some(unsafe { TxFrame::from_raw(self.memory(number), number) })
    }

    #[inline]
    fn submit(&mut self, frame: TxFrame, len: usize) {
        self.ledger.tx -= 1;
        let len = len.min(FRAME_SIZE);
        self.to_send.push((frame.number(), len as u32));
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
    }

    #[inline]
    fn cancel(&mut self, frame: TxFrame) {
        self.ledger.tx -= 1;
        self.tx_free.push(frame.number());
    }

    fn flush(&mut self) {
        let mut start = 0;
        while start < self.to_send.len() {
            let Some(endpoint) = self.gather(start) else {
                // Not UDP, or from an address that has no socket here.
                self.counters.tx_failed += 1;
                start += 1;
                continue;
            };
            let fd = self.endpoints[endpoint].fd();
            self.counters.kicks += 1;
            // SAFETY: the buffers are submitted frames, which nothing writes.
            match unsafe { self.sending.send(fd) } {
                Ok(messages) => start += self.frames_of(messages),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The send buffer is full: what is left waits for the next flush.
                    Some(libc::EAGAIN) => break,
                    Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP) if self.runs[0] > 1 => {
                        tracing::warn!(%error, "the kernel refuses segmented messages; sending one by one");
                        self.segmentation = false;
                    }
                    _ => {
                        tracing::debug!(%error, frames = self.runs[0], "not sent");
                        self.counters.tx_failed += u64::from(self.runs[0]);
                        start += self.runs[0] as usize;
                    }
                },
            }
        }
        for (number, _) in self.to_send.drain(..start) {
            self.tx_free.push(number);
        }
    }

    fn wait(&mut self, timeout: Duration) {
        self.flush();
        if !self.waiter.sleeps() {
            std::hint::spin_loop();
            return;
        }
        let mut fds: Vec<libc::pollfd> = self.endpoints.iter().map(|endpoint| readable(endpoint.fd())).collect();
        if !self.to_send.is_empty() {
            for fd in &mut fds {
                fd.events |= libc::POLLOUT;
            }
        }
        self.counters.kicks += 1;
        poll(&mut fds, timeout);
    }

    fn counters(&mut self) -> IoCounters {
        self.counters.rx_ring_full = self.closed_drops + self.endpoints.iter().map(Endpoint::drops).sum::<u64>();
        self.counters
    }
}

impl Drop for UdpIo {
    fn drop(&mut self) {
        if !self.ledger.is_settled() {
            tracing::error!(ledger = ?self.ledger, "kernel-socket port closed with frames out; their memory is kept");
            std::mem::forget(self.arena.take());
        }
    }
}
