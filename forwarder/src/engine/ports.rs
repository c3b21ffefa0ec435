//! What the engine needs of packet I/O: frames to write and a place to submit them, by port.

use crate::io::{PacketIo, TxFrame};

/// A port of a worker: one AF_XDP socket, one set of kernel sockets, or one memory ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(pub u8);

/// The ports of one worker.
pub trait Ports {
    /// Whether submitted frames need their UDP checksum written.
    fn wants_checksum(&self, port: PortId) -> bool;
    /// A free frame of a port.
    fn acquire(&mut self, port: PortId) -> Option<TxFrame>;
    /// Queues a frame.
    fn submit(&mut self, port: PortId, frame: TxFrame, len: usize);
    /// Takes an acquired frame back.
    fn cancel(&mut self, port: PortId, frame: TxFrame);
}

/// A single port, whatever id it is addressed by.
#[derive(Debug)]
pub struct Single<'a, I>(pub &'a mut I);

impl<I: PacketIo> Ports for Single<'_, I> {
    #[inline(always)]
    fn wants_checksum(&self, _: PortId) -> bool {
        self.0.wants_checksum()
    }

    #[inline(always)]
    fn acquire(&mut self, _: PortId) -> Option<TxFrame> {
        self.0.acquire()
    }

    #[inline(always)]
    fn submit(&mut self, _: PortId, frame: TxFrame, len: usize) {
        self.0.submit(frame, len);
    }

    #[inline(always)]
    fn cancel(&mut self, _: PortId, frame: TxFrame) {
        self.0.cancel(frame);
    }
}
