//! The usual case of a fan-out, and nothing else, in one loop that stays in registers: the packet after the newest one
//! of its source, to receivers who get it as it is but for the fixed header. Whatever else there is about a receiver
//! is left to the walk, which can do everything; nothing has changed for that receiver then.

use sluice_srtp::Profile;
use sluice_srtp::job::SealJob;

use super::super::flow::{Flow, special};
use super::super::ports::Ports;
use super::super::rows::{EgressRow, LegRow};
use super::super::time::Nanos;
use super::batch::Batches;
use super::packet::Packet;
use super::{KEYS_AHEAD, ROWS_AHEAD};

/// Where the loop stopped.
pub(super) enum Stop {
    /// Behind the last receiver.
    End,
    /// Behind one with whom the batch of this profile is full.
    Full(Profile),
    /// Before one that needs a second look.
    Other,
    /// Before one that always will: something about it is special.
    Special,
}

/// What the loop looks at, beside what it changes.
pub(super) struct Straight<'s, 'e> {
    pub(super) legs: &'e [LegRow],
    pub(super) packet: &'e Packet<'s>,
    pub(super) now: Nanos,
    pub(super) now_ms: u32,
}

impl<'s> Straight<'s, '_> {
    /// Serves receivers from the first slot on; returns how many, and why no more. `FAR` fetches rows ahead.
    #[inline(always)]
    pub(super) fn run<P: Ports, const FAR: bool>(
        &self,
        slots: &[u32],
        egress: &mut [EgressRow],
        ports: &mut P,
        batches: &mut Batches<'s>,
    ) -> (usize, Stop) {
        let Straight { legs, packet, now, now_ms } = *self;
        for position in 0..slots.len() {
            let slot = slots[position];
            if FAR {
                fetch_ahead(slots, position, egress);
            }
            // A hole is no slot.
            let Some(row) = egress.get_mut(slot as usize) else { return (position, Stop::Other) };
            let flow = &mut row.flow;
            if !row.rewriter.is_straight(&packet.ticket) || packet.payload.len() > usize::from(flow.largest) {
                return (position, Stop::Other);
            }
            if flow.special != 0
                && let Some(stop) = look_again(flow, legs, now)
            {
                return (position, stop);
            }
            let Some(mut frame) = ports.acquire(flow.port) else { return (position, Stop::Other) };
            let Some(index) = row.window.issue_next() else {
                ports.cancel(flow.port, frame);
                return (position, Stop::Other);
            };
            let timestamp = row.rewriter.take_straight(&packet.incoming);
            // SAFETY: the stream is set up for the generation in force, which does not change within a step.
            let index_row = unsafe { flow.index_row() };
            // The row is ahead of the seal: whatever happens after this line, the index is never used again.
            index_row.store_next(row.window.end());
            index_row.store_timing(timestamp, now_ms);
            // SAFETY: `largest` left room for the payload, so the frame holds headers, an RTP packet of this length and
            // padding (`Flow::room`). Its memory does not move with its handle, which is not used before the job is
            // done (`flush` seals first).
            let bytes = unsafe {
                let rtp = frame.as_mut_ptr().add(flow.template.len());
                packet.write_header(rtp, flow, index.index().seq(), timestamp);
                std::slice::from_raw_parts_mut(rtp, usize::from(flow.overhead) + packet.payload.len())
            };
            flow.packets += 1;
            flow.bytes += bytes.len() as u64;
            // SAFETY: as for the index row; `legs` is borrowed for longer than the batches. Plain legs are special.
            let keys = unsafe { flow.keys_unchecked() };
            let header_len = usize::from(flow.header_len);
            let job = SealJob { keys, ssrc: flow.ssrc(), index, plain: packet.payload, frame: bytes, header_len };
            // SAFETY: the caller flushes a full batch; the row was found under this slot.
            if unsafe { batches.push(flow.profile, job, frame, slot) } {
                return (position + 1, Stop::Full(flow.profile));
            }
        }
        (slots.len(), Stop::End)
    }

    /// As [`run`](Self::run), compiled for AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe")]
    #[inline(never)]
    pub(super) fn run_wide<P: Ports, const FAR: bool>(
        &self,
        slots: &[u32],
        egress: &mut [EgressRow],
        ports: &mut P,
        batches: &mut Batches<'s>,
    ) -> (usize, Stop) {
        self.run::<P, FAR>(slots, egress, ports, batches)
    }
}

/// What is special about a receiver, unless that is only that its consent must be asked for and it is there.
#[inline(never)]
fn look_again(flow: &Flow, legs: &[LegRow], now: Nanos) -> Option<Stop> {
    if flow.special != special::CONSENT {
        return Some(Stop::Special);
    }
    if legs[flow.leg as usize].ice.may_send(now) { None } else { Some(Stop::Other) }
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
