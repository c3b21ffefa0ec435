//! The usual case of a fan-out, and nothing else, in one tight loop: the packet after the newest one of its source, to
//! receivers whose headers differ only in what their rows hold, with the extension block made for their shape. Whatever
//! else there is about a receiver is left to the walk, which can do everything; nothing of it was sent then, and asking
//! its gate again gives the same answer.

use sluice_srtp::Profile;
use sluice_srtp::job::SealJob;

use super::super::flow::special;
use super::super::gate::{self, Verdict};
use super::super::ports::Ports;
use super::super::rows::{EgressRow, LegRow};
use super::super::time::Nanos;
use super::batch::Batches;
use super::packet::Packet;
use super::{KEYS_AHEAD, ROWS_AHEAD};

/// Why the loop stopped.
pub(super) enum Stop {
    /// There are no more receivers.
    End,
    /// The batch of this profile is full.
    Full(Profile),
    /// The next one needs a second look.
    Other,
    /// The next one always will: something about it is special.
    Special,
}

/// How far the loop came.
pub(super) struct Run {
    pub(super) positions: usize,
    pub(super) sent: u32,
    pub(super) stop: Stop,
}

/// What the loop looks at, beside what it changes.
pub(super) struct Straight<'s, 'e> {
    pub(super) legs: &'e [LegRow],
    pub(super) packet: &'e Packet<'s>,
    pub(super) now: Nanos,
    pub(super) now_ms: u32,
}

impl<'s> Straight<'s, '_> {
    /// Serves receivers from the first slot on. `FAR` fetches rows ahead; without `GATED` no virtual source brings the
    /// packet.
    #[inline(always)]
    pub(super) fn run<P: Ports, const FAR: bool, const GATED: bool>(
        &self,
        slots: &[u32],
        egress: &mut [EgressRow],
        ports: &mut P,
        batches: &mut Batches<'s>,
    ) -> Run {
        let Straight { legs, packet, now, now_ms } = *self;
        let weight = packet.payload.len() + packet.block.len();
        let mut sent = 0;
        for position in 0..slots.len() {
            let slot = slots[position];
            if FAR {
                fetch_ahead(slots, position, egress);
            }
            let stopped = |stop| Run { positions: position, sent, stop };
            // A hole is no slot.
            let Some(row) = egress.get_mut(slot as usize) else { return stopped(Stop::Other) };
            if GATED && let Some(offer) = &packet.offer {
                if row.rewriter.context() != packet.setup.context() {
                    return stopped(Stop::Other);
                }
                match gate::decide(row, legs, offer, packet.setup.generation) {
                    Verdict::Send => {}
                    Verdict::Skip => continue,
                    Verdict::KeyFrameWanted => return stopped(Stop::Other),
                }
            }
            let flow = &mut row.flow;
            if !row.rewriter.is_straight(&packet.ticket)
                || flow.shape != packet.block.shape
                || weight > usize::from(flow.largest)
            {
                return stopped(Stop::Other);
            }
            if flow.special & special::UNUSUAL != 0 {
                return stopped(Stop::Special);
            }
            if flow.special & special::CONSENT != 0 && !legs[flow.leg as usize].ice.may_send(now) {
                return stopped(Stop::Other);
            }
            let Some(mut frame) = ports.acquire(flow.port) else { return stopped(Stop::Other) };
            let Some(index) = row.window.issue_next() else {
                ports.cancel(flow.port, frame);
                return stopped(Stop::Other);
            };
            let timestamp = row.rewriter.take_straight(&packet.incoming);
            // SAFETY: the stream is set up for the generation in force, which does not change within a step.
            let index_row = unsafe { flow.index_row() };
            // The row is ahead of the seal: whatever happens after this line, the index is never used again.
            index_row.store_next(row.window.end());
            index_row.store_timing(timestamp, now_ms);
            let mut header_len = usize::from(flow.header_len);
            // SAFETY: `largest` left room for payload and extensions, so the frame holds headers, an RTP packet of this
            // length and padding (`Flow::room`), which is longer than fixed header, CSRC and a block together. Its
            // memory does not move with its handle, which is not used before the job is done (`flush` seals first).
            let bytes = unsafe {
                let rtp = frame.as_mut_ptr().add(flow.template.len());
                packet.write_header(rtp, flow, packet.block.word, index.index().seq(), timestamp);
                if packet.block.len() > 0 {
                    packet.block.write(rtp.add(header_len), &legs[flow.leg as usize].transport_seq);
                    header_len += packet.block.len();
                    flow.extension_bytes += packet.block.len() as u64;
                }
                std::slice::from_raw_parts_mut(rtp, usize::from(flow.overhead) + weight)
            };
            flow.packets += 1;
            flow.bytes += bytes.len() as u64;
            // SAFETY: as for the index row; `legs` is borrowed for longer than the batches. Plain legs are unusual.
            let keys = unsafe { flow.keys_unchecked() };
            let job = SealJob { keys, ssrc: flow.ssrc(), index, plain: packet.payload, frame: bytes, header_len };
            sent += 1;
            // SAFETY: the caller flushes a full batch; the row was found under this slot; padding as above.
            if unsafe { batches.push(flow.profile, job, frame, slot) } {
                return Run { positions: position + 1, sent, stop: Stop::Full(flow.profile) };
            }
        }
        Run { positions: slots.len(), sent, stop: Stop::End }
    }

    /// As [`run`](Self::run), compiled for AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe")]
    #[inline(never)]
    pub(super) fn run_wide<P: Ports, const FAR: bool, const GATED: bool>(
        &self,
        slots: &[u32],
        egress: &mut [EgressRow],
        ports: &mut P,
        batches: &mut Batches<'s>,
    ) -> Run {
        self.run::<P, FAR, GATED>(slots, egress, ports, batches)
    }
}

#[inline(always)]
fn fetch_ahead(slots: &[u32], position: usize, egress: &[EgressRow]) {
    if let Some(row) = slots.get(position + ROWS_AHEAD).and_then(|slot| egress.get(*slot as usize)) {
        row.prefetch();
    }
    if let Some(row) = slots.get(position + KEYS_AHEAD).and_then(|slot| egress.get(*slot as usize)) {
        row.flow.prefetch();
    }
}
