//! The `AF_XDP` port: one socket on one queue with memory of its own. Never loads a program and never falls back
//! silently: [`XdpIo::refused`] tells what was not to be had.

pub mod bind;
pub mod option;

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use super::arena::{FRAME_SIZE, FreeRing, Ledger};
use super::frame::prefetch_frame;
use super::poll::{Waiter, poll, readable};
use super::{BURST, IoCounters, PacketIo, PollMode, RxBurst, RxFrame, TX_CAPACITY, TxFrame};
pub use bind::{OpenError, Refused, RingSizes, Step, XdpOptions};
pub use option::BusyPoll;

/// Descriptors asked for per wake-up in copy mode.
const TX_BUDGET: u32 = 256;

/// A port over an `AF_XDP` socket.
///
/// Frames below `rx_frames` go around between fill ring, kernel, receive ring and engine; the others between
/// engine, transmit ring and completion ring.
#[derive(Debug)]
pub struct XdpIo {
    umem: Umem,
    // The queues are dropped by hand: the socket closes with the last of them.
    rx: ManuallyDrop<RxQueue>,
    tx: ManuallyDrop<TxQueue>,
    fill: ManuallyDrop<FillQueue>,
    completion: ManuallyDrop<CompQueue>,
    /// Descriptors as they were created, by frame number.
    frames: Box<[FrameDesc]>,
    base: NonNull<u8>,
    rx_frames: u32,
    scratch: Box<[FrameDesc; BURST]>,
    /// Released frames that are not on the fill ring yet.
    to_fill: Vec<FrameDesc>,
    /// Submitted frames that are not on the transmit ring yet.
    to_send: Vec<FrameDesc>,
    tx_free: FreeRing,
    tx_ring: u32,
    fd: RawFd,
    drives_driver: bool,
    waiter: Waiter,
    step: Step,
    refused: Vec<Refused>,
    ledger: Ledger,
    counters: IoCounters,
    /// Wake-ups that failed for a reason that does not pass by itself.
    wakeup_errors: u64,
}

// SAFETY: `base` points into the UMEM, which the port owns; nothing is shared with the thread that made it.
unsafe impl Send for XdpIo {}

impl XdpIo {
    /// Opens a socket by the best mode that works. The XDP program should be attached already: some drivers set
    /// their queues up only then.
    pub fn open(options: &XdpOptions) -> Result<Self, OpenError> {
        let bind::Parts { umem, mut frames, tx, rx, mut fill, completion, mut step, mut refused } =
            bind::open(options)?;
        let fd = tx.fd().as_raw_fd();
        if option::is_zero_copy(fd).is_ok_and(|zero_copy| !zero_copy) && step == Step::ZeroCopy {
            refused.push(Refused { step, reason: "the kernel bound the socket in copy mode".to_owned() });
            step = Step::CopyDriver;
        }
        if let Err(error) = option::set_tx_budget(fd, TX_BUDGET.min(options.rings.tx)) {
            tracing::debug!(%error, "32 frames per transmit system call: XDP_MAX_TX_SKB_BUDGET is missing");
        }
        let mut drives_driver = false;
        if let (PollMode::Busy, Some(busy_poll)) = (options.poll, options.busy_poll) {
            match option::set_busy_poll(fd, busy_poll) {
                Ok(()) => drives_driver = true,
                Err(error) => {
                    tracing::warn!(%error, "no preferred busy polling");
                    refused.push(Refused { step: Step::BusyPoll, reason: error.to_string() });
                }
            }
        }
        let rings = &options.rings;
        let rx_frames = rings.fill + rings.rx;
        let base = base_of(&umem, &mut frames[0]);
        // SAFETY: frames of this UMEM that nobody uses yet.
        let filled = unsafe { fill.produce(&frames[..rings.fill as usize]) };
        let mut to_fill = Vec::with_capacity(rx_frames as usize);
        to_fill.extend_from_slice(&frames[filled..rx_frames as usize]);
        let mut tx_free = FreeRing::new(rings.tx, 0);
        for number in 0..rings.tx {
            tx_free.push(rx_frames + number);
        }
        Ok(XdpIo {
            umem,
            rx: ManuallyDrop::new(rx),
            tx: ManuallyDrop::new(tx),
            fill: ManuallyDrop::new(fill),
            completion: ManuallyDrop::new(completion),
            scratch: Box::new([frames[0]; BURST]),
            frames: frames.into_boxed_slice(),
            base,
            rx_frames,
            to_fill,
            to_send: Vec::with_capacity(rings.tx as usize),
            tx_free,
            tx_ring: rings.tx,
            fd,
            drives_driver,
            waiter: Waiter::new(options.poll),
            step,
            refused,
            ledger: Ledger::default(),
            counters: IoCounters::default(),
            wakeup_errors: 0,
        })
    }

    /// The socket, for [`Steering::register_socket`](crate::xdp::Steering::register_socket).
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket lives as long as the queues that this port holds.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// The mode in use.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Better modes and options that were refused, with reasons.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Handles that are out.
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Frames on the transmit ring that the kernel has not taken yet.
    pub fn unsent(&mut self) -> u32 {
        self.tx_ring - self.tx.nb_free_exact()
    }

    /// Wake-ups that failed for another reason than full queues or a device that is down.
    pub fn wakeup_errors(&self) -> u64 {
        self.wakeup_errors
    }

    /// Puts released frames on the fill ring.
    #[inline]
    fn refill(&mut self) {
        while !self.to_fill.is_empty() {
            let start = self.to_fill.len().saturating_sub(BURST);
            // SAFETY: frames of this UMEM that came back by `release` and are on no ring.
            let put = unsafe { self.fill.produce(&self.to_fill[start..]) };
            if put == 0 {
                return;
            }
            self.to_fill.truncate(start);
        }
    }

    /// Lets the kernel run its receive side: needed when it ran out of buffers, and in preferred busy polling.
    fn kick_rx(&mut self) {
        self.counters.kicks += 1;
        // SAFETY: no buffer is passed.
        unsafe {
            libc::recvfrom(
                self.fd,
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// Wakes the kernel until it took everything or makes no progress.
    fn kick_tx(&mut self) {
        let mut unsent = self.unsent();
        while unsent > 0 && self.tx.needs_wakeup() {
            self.counters.kicks += 1;
            if let Err(error) = self.tx.wakeup() {
                if self.wakeup_errors == 0 {
                    tracing::error!(%error, "the kernel refuses to transmit");
                }
                self.wakeup_errors += 1;
                return;
            }
            let left = self.unsent();
            if left >= unsent {
                return;
            }
            unsent = left;
        }
    }

    #[inline]
    fn frame(&self, number: u32) -> NonNull<u8> {
        let offset = self.frames[number as usize].addr();
        // SAFETY: the address of a frame of this UMEM, relative to its first byte.
        unsafe { self.base.add(offset) }
    }
}

impl PacketIo for XdpIo {
    #[inline]
    fn wants_checksum(&self) -> bool {
        true
    }

    #[inline]
    fn receive(&mut self, burst: &mut RxBurst) -> usize {
        self.refill();
        let room = burst.remaining_capacity();
        // SAFETY: the descriptors are only overwritten.
        let taken = unsafe { self.rx.consume(&mut self.scratch[..room]) };
        if taken == 0 {
            if self.drives_driver || (room > 0 && self.fill.needs_wakeup()) {
                self.kick_rx();
            }
            return 0;
        }
        self.waiter.received();
        for index in 0..taken {
            let descriptor = self.scratch[index];
            let len = descriptor.lengths().data() as u32;
            // SAFETY: the kernel gave address and length inside this UMEM; the frame is ours until it is on the
            // fill ring again. A port dropped with handles out leaks the UMEM.
            burst.push(unsafe { RxFrame::from_raw(self.base.add(descriptor.addr()), len, descriptor.addr() as u64) });
            self.counters.rx_bytes += u64::from(len);
        }
        self.ledger.rx += taken as u32;
        self.counters.rx_frames += taken as u64;
        taken
    }

    #[inline]
    fn release(&mut self, frame: RxFrame) {
        self.ledger.rx -= 1;
        let number = frame.token() as usize / FRAME_SIZE;
        debug_assert!(number < self.rx_frames as usize);
        self.to_fill.push(self.frames[number]);
    }

    #[inline]
    fn credit(&mut self) -> usize {
        loop {
            // SAFETY: the descriptors are only overwritten.
            let done = unsafe { self.completion.consume(&mut self.scratch[..]) };
            for descriptor in &self.scratch[..done] {
                self.tx_free.push((descriptor.addr() / FRAME_SIZE) as u32);
            }
            if done < BURST {
                return self.tx_free.len();
            }
        }
    }

    #[inline]
    fn acquire(&mut self) -> Option<TxFrame> {
        let number = self.tx_free.pop()?;
        if let Some(ahead) = self.frames.get(self.tx_free.ahead() as usize) {
            prefetch_frame(self.base.as_ptr().wrapping_add(ahead.addr()));
        }
        self.ledger.tx += 1;
        // SAFETY: the frame was free, so neither the kernel nor another handle uses it; it becomes free again by
        // `cancel` or its completion. A port dropped with handles out leaks the UMEM.
        Some(unsafe { TxFrame::from_raw(self.frame(number), number) })
    }

    #[inline]
    fn submit(&mut self, frame: TxFrame, len: usize) {
        self.ledger.tx -= 1;
        let len = len.min(TX_CAPACITY);
        let mut descriptor = self.frames[frame.number() as usize];
        // SAFETY: the handle is consumed, so nothing else reaches the frame.
        unsafe { self.umem.data_mut(&mut descriptor) }.cursor().set_pos(len);
        self.to_send.push(descriptor);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
    }

    #[inline]
    fn cancel(&mut self, frame: TxFrame) {
        self.ledger.tx -= 1;
        self.tx_free.push(frame.number());
    }

    #[inline]
    fn flush(&mut self) {
        self.refill();
        if !self.to_send.is_empty() {
            // There are as many transmit frames as slots, so all of them fit.
            // SAFETY: frames of this UMEM that were submitted and are on no ring.
            let put = unsafe { self.tx.produce(&self.to_send) };
            debug_assert_eq!(put, self.to_send.len());
            self.to_send.drain(..put);
        }
        self.kick_tx();
    }

    fn wait(&mut self, timeout: Duration) {
        self.flush();
        if self.rx.nb_avail(1) > 0 {
            return;
        }
        if !self.waiter.sleeps() {
            std::hint::spin_loop();
            return;
        }
        self.counters.kicks += 1;
        poll(&mut [readable(self.fd)], timeout);
    }

    fn counters(&mut self) -> IoCounters {
        if let Ok(statistics) = self.rx.fd().xdp_statistics() {
            self.counters.rx_ring_full = statistics.rx_ring_full();
            self.counters.rx_fill_empty = statistics.rx_fill_ring_empty_descs();
            self.counters.rx_dropped = statistics.rx_dropped();
            self.counters.tx_invalid = statistics.tx_invalid_descs();
        }
        self.counters
    }
}

impl Drop for XdpIo {
    fn drop(&mut self) {
        let settled = self.ledger.is_settled();
        if !settled {
            tracing::error!(ledger = ?self.ledger, "AF_XDP port closed with frames out; their memory is kept");
            std::mem::forget(self.umem.clone());
        }
        // SAFETY: each is dropped once, here, and not used again.
        unsafe {
            ManuallyDrop::drop(&mut self.rx);
            ManuallyDrop::drop(&mut self.tx);
            ManuallyDrop::drop(&mut self.fill);
            ManuallyDrop::drop(&mut self.completion);
        }
        if !settled {
            release_queue(self.fd);
        }
    }
}

/// The UMEM that was leaked owns the socket's descriptor too. Putting another file in its place lets the kernel
/// release the queue; the memory stays mapped.
fn release_queue(fd: RawFd) {
    let Ok(null) = File::open("/dev/null") else { return };
    // SAFETY: `fd` belongs to the leaked UMEM, which never closes it.
    unsafe { libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC) };
}

/// The first byte of the UMEM.
fn base_of(umem: &Umem, first: &mut FrameDesc) -> NonNull<u8> {
    let offset = first.addr();
    // SAFETY: no frame is in use yet, and the pointer is made from a reference to the frame's memory; the first
    // frame's data starts `offset` bytes behind the start of the UMEM.
    unsafe {
        let mut data = umem.data_mut(first);
        data.cursor().set_pos(1);
        let pointer = data.contents_mut().as_mut_ptr();
        NonNull::new_unchecked(pointer.sub(offset))
    }
}
