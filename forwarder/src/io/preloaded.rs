//! A port for measuring the engine alone: frames come from a prepared list and what is sent vanishes. Never
//! copies, and never touches a queue that another thread sees.

use std::mem::ManuallyDrop;
use std::time::Duration;

use super::arena::{Arena, FRAME_SIZE, FreeRing, Ledger};
use super::{IoCounters, PacketIo, RxBurst, RxFrame, TxFrame};

/// What the source does when its list ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Nothing more arrives until [`PreloadedIo::rewind`].
    Stop,
    /// It starts again with the first frame, as soon as that one was released.
    Repeat,
}

/// A preloaded source and a discarding sink.
#[derive(Debug)]
pub struct PreloadedIo {
    source: Option<Arena>,
    lengths: Vec<u32>,
    held: Vec<bool>,
    next: usize,
    at_end: AtEnd,
    sink: ManuallyDrop<Arena>,
    free: FreeRing,
    /// Received frames that are out; transmit frames that are out are those missing in `free`.
    rx_out: u32,
    counters: IoCounters,
}

impl PreloadedIo {
    /// Copies `frames` (each cut at [`FRAME_SIZE`]) into the source; the sink has `tx_frames` frames, reused in
    /// order.
    pub fn new<'a>(frames: impl IntoIterator<Item = &'a [u8]>, at_end: AtEnd, tx_frames: u32) -> Self {
        let frames: Vec<&[u8]> = frames.into_iter().collect();
        let source = Arena::new(frames.len() as u32);
        let mut lengths = Vec::with_capacity(frames.len());
        for (index, bytes) in frames.iter().enumerate() {
            let len = bytes.len().min(FRAME_SIZE);
            // SAFETY: the frame has FRAME_SIZE bytes and no handle exists yet.
            unsafe { source.frame(index as u32).as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len) };
            lengths.push(len as u32);
        }
        let tx_frames = tx_frames.max(1);
        PreloadedIo {
            source: Some(source),
            held: vec![false; lengths.len()],
            lengths,
            next: 0,
            at_end,
            sink: ManuallyDrop::new(Arena::new(tx_frames)),
            free: FreeRing::new(tx_frames, tx_frames),
            rx_out: 0,
            counters: IoCounters::default(),
        }
    }

    /// Frames in the source.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether the source has no frame at all.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Frames left before the end of the list.
    pub fn remaining(&self) -> usize {
        self.lengths.len() - self.next
    }

    /// Starts the list again.
    pub fn rewind(&mut self) {
        self.next = 0;
    }

    /// The bytes of source frame `index`, to change what arrives in the next turn; `None` while it is handed out
    /// or when there is no such frame.
    pub fn source_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        if *self.held.get(index)? {
            return None;
        }
        let data = self.source.as_ref()?.frame(index as u32);
        // SAFETY: not handed out, and `&mut self` keeps it so while the slice lives.
        Some(unsafe { std::slice::from_raw_parts_mut(data.as_ptr(), self.lengths[index] as usize) })
    }

    /// Handles that are out.
    pub fn ledger(&self) -> Ledger {
        Ledger { rx: self.rx_out, tx: self.sink.frames() - self.free.len() as u32 }
    }
}

impl PacketIo for PreloadedIo {
    #[inline]
    fn wants_checksum(&self) -> bool {
        true
    }

    #[inline]
    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        let Some(source) = &self.source else { return 0 };
        let before = burst.len();
        while !burst.is_full() {
            if self.next == self.lengths.len() && self.at_end == AtEnd::Repeat {
                self.next = 0;
            }
            let index = self.next;
            if index >= self.lengths.len() || self.held[index] {
                break;
            }
            self.held[index] = true;
            self.next = index + 1;
            let len = self.lengths[index];
            // SAFETY: `held` keeps the frame from being handed out or written until it is released. A port
            // dropped with handles out leaks the arena.
            burst.push(unsafe { RxFrame::from_raw(source.frame(index as u32), len, index as u64) });
            self.counters.rx_bytes += u64::from(len);
        }
        let taken = burst.len() - before;
        self.rx_out += taken as u32;
        self.counters.rx_frames += taken as u64;
        taken
    }

    #[inline]
    fn release(&mut self, frame: RxFrame) {
        self.rx_out -= 1;
        self.held[frame.token() as usize] = false;
    }

    #[inline]
    fn credit(&mut self) -> usize {
        self.free.len()
    }

    #[inline(always)]
    fn acquire(&mut self) -> Option<TxFrame> {
        let number = self.free.pop()?;
        self.sink.prefetch(self.free.ahead());
        // SAFETY: the ring holds numbers of this arena. The number was free, so no other handle reaches the frame; it
        // becomes free again only by `submit` or `cancel`. A port dropped with handles out leaks the arena.
        Some(unsafe { TxFrame::from_raw(self.sink.frame_unchecked(number), number) })
    }

    #[inline(always)]
    fn submit(&mut self, frame: TxFrame, len: usize) {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
        self.cancel(frame);
    }

    #[inline(always)]
    fn cancel(&mut self, frame: TxFrame) {
        self.free.push(frame.number());
    }

    #[inline]
    fn flush(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}

    fn counters(&mut self) -> IoCounters {
        self.counters
    }
}

impl Drop for PreloadedIo {
    fn drop(&mut self) {
        let ledger = self.ledger();
        if ledger.is_settled() {
            // SAFETY: no handle is out, and nothing touches the arena again.
            unsafe { ManuallyDrop::drop(&mut self.sink) };
        } else {
            tracing::error!(?ledger, "preloaded port closed with frames out; their memory is kept");
            std::mem::forget(self.source.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|n| vec![n; 100]).collect()
    }

    #[test]
    fn a_repeating_source_waits_for_released_frames() {
        let frames = numbered(3);
        let mut io = PreloadedIo::new(frames.iter().map(Vec::as_slice), AtEnd::Repeat, 8);
        let mut burst = RxBurst::new();
        assert_eq!(io.receive(&mut burst), 3);
        assert_eq!(io.receive(&mut burst), 0);
        assert!(io.source_mut(1).is_none());
        for frame in burst.drain(..) {
            io.release(frame);
        }
        io.source_mut(0).unwrap()[0] = 77;
        assert_eq!(io.receive(&mut burst), 3);
        assert_eq!((burst[0][0], burst[2][0]), (77, 2));
        for frame in burst.drain(..) {
            io.release(frame);
        }
        assert!(io.ledger().is_settled());
    }

    #[test]
    fn a_stopping_source_ends_and_rewinds() {
        let frames = numbered(2);
        let mut io = PreloadedIo::new(frames.iter().map(Vec::as_slice), AtEnd::Stop, 1);
        for _ in 0..2 {
            let mut burst = RxBurst::new();
            assert_eq!(io.receive(&mut burst), 2);
            for frame in burst.drain(..) {
                io.release(frame);
            }
            assert_eq!((io.receive(&mut burst), io.remaining()), (0, 0));
            io.rewind();
        }
    }

    #[test]
    fn the_sink_gives_frames_back_at_once() {
        let mut io = PreloadedIo::new(std::iter::empty(), AtEnd::Stop, 2);
        let (a, b) = (io.acquire().unwrap(), io.acquire().unwrap());
        assert!(io.acquire().is_none());
        io.submit(a, 60);
        io.cancel(b);
        assert_eq!(io.credit(), 2);
        assert_eq!((io.counters().tx_frames, io.counters().tx_bytes), (1, 60));
    }
}
