//! A worker's ports by id: port 0 is the kernel sockets, the others are `AF_XDP` sockets. A leg routed to an
//! `AF_XDP` port this worker does not have uses the kernel sockets.

use std::os::fd::{AsRawFd, RawFd};

use crate::engine::{PortId, Ports};
use crate::io::{IoCounters, PacketIo, TxFrame, UdpIo, XdpIo};

/// Most ports a worker can have.
pub const MAX_PORTS: usize = 32;

/// The port of all kernel sockets.
pub const KERNEL: PortId = PortId(0);

/// The ports of one worker.
#[derive(Debug)]
pub struct WorkerPorts {
    /// The kernel sockets.
    pub udp: UdpIo,
    xdp: [Option<Box<XdpIo>>; MAX_PORTS],
}

impl WorkerPorts {
    /// Only kernel sockets.
    pub fn new(udp: UdpIo) -> Self {
        WorkerPorts { udp, xdp: [const { None }; MAX_PORTS] }
    }

    /// Puts a port in its place; returns what was there.
    pub fn set(&mut self, id: PortId, port: Option<Box<XdpIo>>) -> Option<Box<XdpIo>> {
        match self.xdp.get_mut(usize::from(id.0)) {
            Some(place) => std::mem::replace(place, port),
            None => port,
        }
    }

    /// The `AF_XDP` ports.
    pub fn fast(&mut self) -> impl Iterator<Item = &mut XdpIo> + '_ {
        self.xdp.iter_mut().flatten().map(Box::as_mut)
    }

    /// Takes back the transmit frames that the kernel is done with.
    #[inline]
    pub fn reap(&mut self) {
        for port in self.xdp.iter_mut().flatten() {
            port.credit();
        }
        self.udp.credit();
    }

    /// Publishes and wakes on all ports.
    pub fn flush(&mut self) {
        for port in self.xdp.iter_mut().flatten() {
            port.flush();
        }
        self.udp.flush();
    }

    /// Descriptors that become readable when something arrives.
    pub fn descriptors(&self, into: &mut Vec<RawFd>) {
        into.extend(self.xdp.iter().flatten().map(|port| port.fd().as_raw_fd()));
        self.udp.descriptors(into);
    }

    /// Counters of every port.
    pub fn counters(&mut self) -> Vec<(PortId, IoCounters)> {
        let fast = self.xdp.iter_mut().enumerate();
        let mut all = vec![(KERNEL, self.udp.counters())];
        all.extend(fast.filter_map(|(id, port)| Some((PortId(id as u8), port.as_mut()?.counters()))));
        all
    }

    /// Frames handed out and not back.
    pub fn frames_out(&self) -> u64 {
        let ledgers = self.xdp.iter().flatten().map(|port| port.ledger()).chain([self.udp.ledger()]);
        ledgers.map(|ledger| u64::from(ledger.rx) + u64::from(ledger.tx)).sum()
    }
}

impl Ports for WorkerPorts {
    #[inline(always)]
    fn wants_checksum(&self, port: PortId) -> bool {
        match &self.xdp[usize::from(port.0) % MAX_PORTS] {
            Some(port) => port.wants_checksum(),
            None => self.udp.wants_checksum(),
        }
    }

    #[inline(always)]
    fn acquire(&mut self, port: PortId) -> Option<TxFrame> {
        match &mut self.xdp[usize::from(port.0) % MAX_PORTS] {
            Some(port) => port.acquire(),
            None => self.udp.acquire(),
        }
    }

    #[inline(always)]
    fn submit(&mut self, port: PortId, frame: TxFrame, len: usize) {
        match &mut self.xdp[usize::from(port.0) % MAX_PORTS] {
            Some(port) => port.submit(frame, len),
            None => self.udp.submit(frame, len),
        }
    }

    #[inline(always)]
    fn cancel(&mut self, port: PortId, frame: TxFrame) {
        match &mut self.xdp[usize::from(port.0) % MAX_PORTS] {
            Some(port) => port.cancel(frame),
            None => self.udp.cancel(frame),
        }
    }
}
