//! Frames between rewriting and transmission: they wait by profile until a batch is sealed, then their headers are
//! closed and they are submitted. Never decides about a packet.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use sluice_srtp::Profile;
use sluice_srtp::job::SealJob;
use sluice_srtp::provider::Provider;
use sluice_table::protocol::Direction;

use super::super::counters::Counters;
use super::super::feedback::History;
use super::super::flow::special;
use super::super::ports::Ports;
use super::super::rows::EgressRow;
use super::super::staged::Generation;
use super::super::time::Nanos;
use super::super::trace::Tap;
use crate::io::TxFrame;
use crate::wire::checksum::PADDING;
#[cfg(target_arch = "x86_64")]
pub(super) use crate::wire::closing::Closing;
#[cfg(target_arch = "x86_64")]
use crate::wire::closing::MOST;

/// Frames sealed at a time.
const BATCH: usize = 32;
const PROFILES: usize = Profile::ALL.len();
#[cfg(target_arch = "x86_64")]
const _: () = assert!(BATCH <= MOST, "a batch is closed as a whole");

/// The frame of a job, taken apart, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Out {
    data: NonNull<u8>,
    number: u32,
    /// A slot of the egress table.
    slot: u32,
    /// Bytes of RTP.
    len: u32,
}

impl Out {
    /// The frame.
    ///
    /// # Safety
    /// Once for each frame that [`Batches::push`] took.
    #[inline(always)]
    unsafe fn frame(&self) -> TxFrame {
        // SAFETY: as it was taken apart.
        unsafe { TxFrame::from_raw(self.data, self.number) }
    }
}

/// Frames waiting to be sealed together, [`BATCH`] places for each profile; no profile ever waits with all of them
/// taken.
#[derive(Debug)]
pub(super) struct Batches<'s> {
    /// The next free place of each profile.
    next: [u32; PROFILES],
    jobs: [MaybeUninit<SealJob<'s>>; PROFILES * BATCH],
    outs: [MaybeUninit<Out>; PROFILES * BATCH],
}

impl<'s> Batches<'s> {
    /// Empty batches in `place`. Not by value: they would be copied, 10 KiB a step.
    pub(super) fn new<'p>(place: &'p mut MaybeUninit<Batches<'s>>) -> &'p mut Batches<'s> {
        // SAFETY: the address of a field of `place`.
        let next = unsafe { &raw mut (*place.as_mut_ptr()).next };
        // SAFETY: as above, and writable.
        unsafe { next.write(std::array::from_fn(Self::first)) };
        // SAFETY: the one field that needs initialisation has it.
        unsafe { place.assume_init_mut() }
    }

    const fn first(profile: usize) -> u32 {
        (profile * BATCH) as u32
    }

    /// Adds a frame; says whether the profile's batch is full now and must be flushed.
    ///
    /// # Safety
    /// A full batch must have been flushed. [`PADDING`] bytes behind the job's frame must be writable. `slot` must be one
    /// of the egress table that the batch is flushed with.
    #[inline(always)]
    #[must_use = "a full batch must be flushed before another frame of its profile"]
    pub(super) unsafe fn push(&mut self, profile: Profile, job: SealJob<'s>, frame: TxFrame, slot: u32) -> bool {
        let (len, (data, number)) = (job.frame.len() as u32, frame.into_raw());
        // SAFETY: there are places for every profile, and one of them is free; the caller left room behind the packet.
        unsafe {
            // For the checksum. Now, so that it is in the cache when the packet is summed up.
            job.frame.as_mut_ptr().add(job.frame.len()).cast::<[u8; PADDING]>().write([0; PADDING]);
            let next = self.next.get_unchecked_mut(profile as usize);
            let at = *next as usize;
            *next += 1;
            self.jobs.get_unchecked_mut(at).write(job);
            self.outs.get_unchecked_mut(at).write(Out { data, number, slot, len });
            (at + 1).is_multiple_of(BATCH)
        }
    }

    /// Takes out what waits of a profile.
    fn take(&mut self, profile: Profile) -> (&mut [SealJob<'s>], &[Out]) {
        let first = Self::first(profile as usize);
        let places = first as usize..std::mem::replace(&mut self.next[profile as usize], first) as usize;
        // SAFETY: these were written, and are written again before they are read again.
        unsafe { (self.jobs[places.clone()].assume_init_mut(), self.outs[places].assume_init_ref()) }
    }
}

/// What a batch needs to leave.
pub(super) struct Exit<'e, C, P> {
    pub(super) crypto: &'e mut C,
    pub(super) ports: &'e mut P,
    pub(super) counters: &'e mut Counters,
    pub(super) history: &'e mut History,
    pub(super) tap: Option<&'e mut Tap>,
    pub(super) generation: Generation,
    pub(super) now: Nanos,
    #[cfg(target_arch = "x86_64")]
    pub(super) closing: &'e mut Closing,
}

impl<C: Provider, P: Ports> Exit<'_, C, P> {
    /// Seals what waits of a profile and sends it.
    #[inline(always)]
    pub(super) fn flush<const WIDE: bool>(
        &mut self,
        profile: Profile,
        batches: &mut Batches<'_>,
        egress: &[EgressRow],
    ) {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: the caller runs only where all of it was detected.
            return unsafe { self.flush_wide(profile, batches, egress) };
        }
        let (jobs, outs) = batches.take(profile);
        if jobs.is_empty() {
            return;
        }
        self.crypto.seal(jobs);
        for out in outs {
            // SAFETY: as in `flush_wide`.
            let (frame, row) = unsafe { (out.frame(), egress.get_unchecked(out.slot as usize)) };
            self.send_one(row, out.slot, frame, out.len as usize);
        }
    }

    /// The same with the checksums of eight frames at a time.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe")]
    fn flush_wide(&mut self, profile: Profile, batches: &mut Batches<'_>, egress: &[EgressRow]) {
        let (jobs, outs) = batches.take(profile);
        if jobs.is_empty() {
            return;
        }
        self.crypto.seal(jobs);
        // SAFETY: whoever pushed promised that there is a row.
        let row_of = |out: &Out| unsafe { egress.get_unchecked(out.slot as usize) };
        for (at, out) in outs.iter().enumerate() {
            let row = row_of(out);
            let (len, template) = (out.len as usize, &row.flow.template);
            let checksum = self.ports.wants_checksum(row.flow.port);
            if row.flow.special & special::KEPT != 0 {
                self.keep(row, out);
            }
            // SAFETY: whoever pushed made sure of the frame's size and kept to `Flow::room`; AVX2 is there.
            unsafe { self.closing.add(at, template, out.data.as_ptr(), len, checksum) };
        }
        self.closing.fold(outs.len());
        let mut bytes = 0;
        for (at, out) in outs.iter().enumerate() {
            let row = row_of(out);
            let checksum = self.ports.wants_checksum(row.flow.port);
            // SAFETY: as above, with the same template and frame.
            let len = unsafe { self.closing.write(at, &row.flow.template, out.data.as_ptr(), checksum) };
            // SAFETY: `push` took this handle apart, and it is put together once.
            let frame = unsafe { out.frame() };
            if let Some(tap) = self.tap.as_deref_mut() {
                trace(tap, row, self.generation, self.now, &frame[..len]);
            }
            self.ports.submit(row.flow.port, frame, len);
            bytes += len;
        }
        self.counters.sent += outs.len() as u64;
        self.counters.sent_bytes += bytes as u64;
    }

    #[cold]
    fn keep(&mut self, row: &EgressRow, out: &Out) {
        let start = row.flow.template.len();
        // SAFETY: the frame holds headers and an RTP packet of this length.
        let packet = unsafe { std::slice::from_raw_parts(out.data.as_ptr().add(start), out.len as usize) };
        self.history.keep_sealed(out.slot, row.incarnation, packet);
    }

    /// Closes a frame's headers and sends it; its payload is final.
    pub(super) fn send_one(&mut self, row: &EgressRow, slot: u32, mut frame: TxFrame, rtp_len: usize) {
        let flow = &row.flow;
        if flow.special & special::KEPT != 0 {
            let start = flow.template.len();
            self.history.keep_sealed(slot, row.incarnation, &frame[start..start + rtp_len]);
        }
        let checksum = self.ports.wants_checksum(flow.port);
        // SAFETY: whoever made the packet made sure of the frame's size and kept to `Flow::room`.
        let len = unsafe { flow.template.finish(frame.as_mut_ptr(), rtp_len, checksum) };
        if let Some(tap) = self.tap.as_deref_mut() {
            trace(tap, row, self.generation, self.now, &frame[..len]);
        }
        self.ports.submit(flow.port, frame, len);
        self.counters.sent += 1;
        self.counters.sent_bytes += len as u64;
    }
}

#[cold]
#[inline(never)]
fn trace(tap: &mut Tap, row: &EgressRow, generation: Generation, now: Nanos, frame: &[u8]) {
    let leg = row.config.get(generation).map(|config| config.leg);
    tap.see(now, Direction::Out, leg, None, frame);
}
