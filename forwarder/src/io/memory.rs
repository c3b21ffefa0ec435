//! Connected in-memory ports: what one submits the other receives, without a copy and across threads. Never
//! makes a system call except to sleep.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

use super::arena::{Arena, FRAME_SIZE, FreeRing, Ledger};
use super::{IoCounters, PacketIo, RxBurst, RxFrame, TxFrame};

/// One direction of a pair: frames of the sender's arena travel to the receiver and their numbers come back.
#[derive(Debug)]
struct Lane {
    arena: Arena,
    full: ArrayQueue<(u32, u32)>,
    empty: ArrayQueue<u32>,
}

impl Lane {
    fn new(depth: u32) -> Arc<Self> {
        // Half of the frames can wait in the queue, the other half is being written or read.
        let frames = depth.max(1) * 2;
        Arc::new(Lane {
            arena: Arena::new(frames),
            full: ArrayQueue::new(depth.max(1) as usize),
            empty: ArrayQueue::new(frames as usize),
        })
    }
}

/// One end of a pair of connected ports.
///
/// A frame submitted while the queue is full is dropped and counted in [`IoCounters::tx_failed`].
#[derive(Debug)]
pub struct MemoryIo {
    outgoing: Arc<Lane>,
    incoming: Arc<Lane>,
    free: FreeRing,
    ledger: Ledger,
    counters: IoCounters,
}

impl MemoryIo {
    /// Two connected ports whose queues hold `depth` frames in each direction.
    pub fn pair(depth: u32) -> (MemoryIo, MemoryIo) {
        let (east, west) = (Lane::new(depth), Lane::new(depth));
        (MemoryIo::new(Arc::clone(&east), Arc::clone(&west)), MemoryIo::new(west, east))
    }

    fn new(outgoing: Arc<Lane>, incoming: Arc<Lane>) -> Self {
        let frames = outgoing.arena.frames();
        let free = FreeRing::new(frames, frames);
        MemoryIo { outgoing, incoming, free, ledger: Ledger::default(), counters: IoCounters::default() }
    }

    /// Handles that are out.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Sends a copy of `frame`. Returns whether it was queued: not if it is larger than [`FRAME_SIZE`], if no
    /// frame is free, or if the queue is full.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if frame.len() > FRAME_SIZE || self.credit() == 0 {
            return false;
        }
        let Some(mut handle) = self.acquire() else { return false };
        handle[..frame.len()].copy_from_slice(frame);
        let failed = self.counters.tx_failed;
        self.submit(handle, frame.len());
        failed == self.counters.tx_failed
    }

    /// Receives everything that waits, passes each frame to `visit` and releases it. Returns how many.
    pub fn drain(&mut self, mut visit: impl FnMut(&[u8])) -> usize {
        let mut total = 0;
        let mut burst = RxBurst::new();
        while self.receive(&mut burst) > 0 {
            total += burst.len();
            for frame in burst.drain(..) {
                visit(&frame);
                self.release(frame);
            }
        }
        total
    }
}

impl PacketIo for MemoryIo {
    #[inline]
    fn wants_checksum(&self) -> bool {
        true
    }

    #[inline]
    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let before = burst.len();
        while !burst.is_full() {
            let Some((number, len)) = self.incoming.full.pop() else { break };
            // SAFETY: the sender gave the frame away by queueing its number; nobody touches it until `release`
            // queues the number back. A port dropped with handles out leaks the arena.
            burst.push(unsafe { RxFrame::from_raw(self.incoming.arena.frame(number), len, u64::from(number)) });
            self.counters.rx_bytes += u64::from(len);
        }
        let taken = burst.len() - before;
        self.ledger.rx += taken as u32;
        self.counters.rx_frames += taken as u64;
        taken
    }

    #[inline]
    fn release(&mut self, frame: RxFrame) {
        self.ledger.rx -= 1;
        let returned = self.incoming.empty.push(frame.token() as u32);
        debug_assert!(returned.is_ok(), "more frames came back than exist");
    }

    #[inline]
    fn credit(&mut self) -> usize {
        while let Some(number) = self.outgoing.empty.pop() {
            self.free.push(number);
        }
        self.free.len()
    }

    #[inline]
    fn acquire(&mut self) -> Option<TxFrame> {
        let number = self.free.pop()?;
        self.ledger.tx += 1;
        let data: NonNull<u8> = self.outgoing.arena.frame(number);
        // SAFETY: the number was free, so no other handle reaches the frame; it becomes free again only by
        // `submit` or `cancel`. A port dropped with handles out leaks the arena.
        Some(unsafe { TxFrame::from_raw(data, number) })
    }

    #[inline]
    fn submit(&mut self, frame: TxFrame, len: usize) {
        let len = len.min(FRAME_SIZE);
        let number = frame.number();
        self.ledger.tx -= 1;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
        if self.outgoing.full.push((number, len as u32)).is_err() {
            self.counters.tx_failed += 1;
            self.free.push(number);
        }
    }

    #[inline]
    fn cancel(&mut self, frame: TxFrame) {
        self.ledger.tx -= 1;
        self.free.push(frame.number());
    }

    #[inline]
    fn flush(&mut self) {}

    fn wait(&mut self, timeout: Duration) {
        let started = Instant::now();
        while self.incoming.full.is_empty() {
            let Some(left) = timeout.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { return };
            std::thread::sleep(left.min(Duration::from_micros(50)));
        }
    }

    fn counters(&mut self) -> IoCounters {
        self.counters
    }
}

impl Drop for MemoryIo {
    fn drop(&mut self) {
        if !self.ledger.is_settled() {
            tracing::error!(ledger = ?self.ledger, "memory port closed with frames out; their memory is kept");
            std::mem::forget(Arc::clone(&self.outgoing));
            std::mem::forget(Arc::clone(&self.incoming));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (mut a, mut b) = MemoryIo::pair(4);
        let queued = (0..6).filter(|n| a.send(&[*n; 60])).count();
        assert_eq!(queued, 4);
        assert_eq!(a.counters().tx_failed, 2);
        let mut seen = Vec::new();
        assert_eq!(b.drain(|frame| seen.push(frame[0])), 4);
        assert_eq!(seen, [0, 1, 2, 3]);
        assert_eq!(a.credit(), 8);
    }

    #[test]
    fn credit_falls_while_the_peer_holds_frames() {
        let (mut a, mut b) = MemoryIo::pair(8);
        assert!((0..8).all(|n| a.send(&[n])));
        let mut burst = RxBurst::new();
        assert_eq!(b.receive(&mut burst), 8);
        assert_eq!(b.ledger(), Ledger { rx: 8, tx: 0 });
        assert_eq!(a.credit(), 8);
        while let Some(frame) = burst.pop() {
            b.release(frame);
        }
        assert_eq!(a.credit(), 16);
        assert!(a.ledger().is_settled() && b.ledger().is_settled());
    }

    #[test]
    fn frames_outlive_a_port_dropped_under_them() {
        let (mut a, mut b) = MemoryIo::pair(2);
        assert!(a.send(b"still here"));
        let mut burst = RxBurst::new();
        b.receive(&mut burst);
        drop((a, b));
        assert_eq!(&burst[0][..], b"still here");
        // The frame's port is gone: the handle is forgotten with its leaked memory.
    }

    #[test]
    fn pairs_work_across_threads() {
        const FRAMES: u32 = 20_000;
        let (mut a, mut b) = MemoryIo::pair(64);
        let sender = std::thread::spawn(move || {
            for number in 0..FRAMES {
                while !a.send(&number.to_be_bytes()) {
                    std::thread::yield_now();
                }
            }
            a
        });
        let mut expected = 0;
        while expected < FRAMES {
            b.wait(Duration::from_millis(10));
            b.drain(|frame| {
                assert_eq!(frame, expected.to_be_bytes());
                expected += 1;
            });
        }
        let mut a = sender.join().expect("the sender ends");
        assert_eq!(a.credit(), 128);
    }
}
