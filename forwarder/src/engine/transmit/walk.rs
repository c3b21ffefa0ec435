//! One list's receivers, one packet: who gets it and as what. Runs the usual case in a loop of its own and everything
//! else receiver by receiver.

use sluice_srtp::job::SealJob;
use sluice_srtp::provider::Provider;
use sluice_srtp::{PacketIndex, Profile};
use sluice_table::DropReason;

use super::super::flow::{Flow, MID_PACKETS, special};
use super::super::gate::{self, Verdict};
use super::super::list::HOLE;
use super::super::ports::Ports;
use super::super::rows::{EgressConfig, EgressRow, LegRow};
use super::super::staged::Generation;
use super::super::time::Nanos;
use super::batch::{Batches, Exit};
use super::extensions::{Block, write_extensions};
use super::packet::Packet;
use super::resolve::set_up;
use super::straight::{Run, Stop, Straight};
use super::{KEYS_AHEAD, ROWS_AHEAD};

/// What came of one receiver's turn.
pub(super) enum Turned {
    /// A frame is on its way.
    Sent,
    /// Not a receiver of this packet.
    Skip,
    Drop(DropReason),
    /// No frame: stop here and come back.
    NoFrame,
}

/// How far a walk over some receivers came.
pub(super) struct Walked {
    pub(super) positions: usize,
    pub(super) sent: u32,
    /// No frame for the receiver at `positions`.
    pub(super) blocked: bool,
}

/// One step's egress: what it works with, and batches by profile.
pub(super) struct Pass<'s, 'e, C, P> {
    pub(super) legs: &'s [LegRow],
    pub(super) egress: &'e mut [EgressRow],
    /// Whether rows are worth fetching ahead.
    pub(super) prefetch: bool,
    pub(super) generation: Generation,
    pub(super) now: Nanos,
    pub(super) now_ms: u32,
    /// Whether a receiver waits for a key frame of the packet's source.
    pub(super) wants_key_frame: bool,
    pub(super) batches: &'e mut Batches<'s>,
    pub(super) exit: Exit<'e, C, P>,
}

impl<'s, C: Provider, P: Ports> Pass<'s, '_, C, P> {
    /// Serves some receivers of one list.
    #[inline(always)]
    pub(super) fn walk<const WIDE: bool>(&mut self, slots: &[u32], packet: &mut Packet<'s>) -> Walked {
        if self.prefetch {
            self.fetch(&slots[..slots.len().min(ROWS_AHEAD)]);
        }
        let (mut position, mut sent) = (0, 0);
        let mut straight = true;
        while position < slots.len() {
            if straight {
                let run = self.straight::<WIDE>(&slots[position..], packet);
                position += run.positions;
                sent += run.sent;
                match run.stop {
                    Stop::End => break,
                    Stop::Full(profile) => {
                        self.flush::<WIDE>(profile);
                        continue;
                    }
                    Stop::Other => {}
                    Stop::Special => straight = false, // and so are the others, most likely
                }
            }
            if self.prefetch {
                self.fetch_ahead(slots, position, packet.offer.is_some());
            }
            match self.turn::<WIDE>(slots[position], packet) {
                Turned::Sent => sent += 1,
                Turned::Skip => {}
                Turned::Drop(reason) => self.exit.counters.drop(reason),
                Turned::NoFrame => return Walked { positions: position, sent, blocked: true },
            }
            position += 1;
        }
        Walked { positions: slots.len(), sent, blocked: false }
    }

    /// Serves receivers of the usual kind.
    #[inline(always)]
    fn straight<const WIDE: bool>(&mut self, slots: &[u32], packet: &Packet<'s>) -> Run {
        let Pass { legs, now, now_ms, .. } = *self;
        let usual = Straight { legs, packet, now, now_ms };
        let (egress, ports, batches) = (&mut *self.egress, &mut *self.exit.ports, &mut *self.batches);
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: the caller runs only where all of it was detected.
            return unsafe {
                match (self.prefetch, packet.offer.is_some()) {
                    (true, true) => usual.run_wide::<P, true, true>(slots, egress, ports, batches),
                    (true, false) => usual.run_wide::<P, true, false>(slots, egress, ports, batches),
                    (false, true) => usual.run_wide::<P, false, true>(slots, egress, ports, batches),
                    (false, false) => usual.run_wide::<P, false, false>(slots, egress, ports, batches),
                }
            };
        }
        usual.run::<P, true, true>(slots, egress, ports, batches)
    }

    /// Seals what waits of a profile and sends it.
    #[inline(always)]
    pub(super) fn flush<const WIDE: bool>(&mut self, profile: Profile) {
        self.exit.flush::<WIDE>(profile, self.batches, self.egress);
    }

    /// Passes over receivers of a packet that waited too long.
    #[cold]
    pub(super) fn skip(&mut self, slots: &[u32], reason: DropReason) -> Walked {
        self.exit.counters.drop_many(reason, slots.iter().filter(|slot| **slot != HOLE).count() as u64);
        Walked { positions: slots.len(), sent: 0, blocked: false }
    }

    fn fetch(&self, slots: &[u32]) {
        for row in slots.iter().filter_map(|slot| self.egress.get(*slot as usize)) {
            row.prefetch();
        }
    }

    #[inline(always)]
    fn fetch_ahead(&self, slots: &[u32], position: usize, gated: bool) {
        if let Some(row) = slots.get(position + ROWS_AHEAD).and_then(|slot| self.egress.get(*slot as usize)) {
            row.prefetch();
            if gated {
                row.prefetch_gate();
            }
        }
        if let Some(row) = slots.get(position + KEYS_AHEAD).and_then(|slot| self.egress.get(*slot as usize)) {
            row.flow.prefetch();
        }
    }

    /// Rewrites one packet for one receiver: everything up to sealing, and the sealing when a batch is full.
    #[inline(always)]
    fn turn<const WIDE: bool>(&mut self, slot: u32, packet: &mut Packet<'s>) -> Turned {
        // A hole is no slot.
        let Some(row) = self.egress.get_mut(slot as usize) else { return Turned::Skip };
        if row.rewriter.context() != packet.setup.context()
            && let Err(turned) = set_up(row, self.legs, packet.setup, self.now)
        {
            return turned;
        }
        match packet.offer.map_or(Verdict::Send, |offer| gate::decide(row, self.legs, &offer, self.generation)) {
            Verdict::Send => {}
            Verdict::Skip => return Turned::Skip,
            Verdict::KeyFrameWanted => {
                self.wants_key_frame = true;
                return if row.gate.is_waiting() { Turned::Drop(DropReason::KeyFrame) } else { Turned::Skip };
            }
        }
        let flow = &mut row.flow;
        let mut rtp_len = usize::from(flow.overhead) + packet.payload.len();
        if packet.payload.len() > usize::from(flow.largest) {
            return Turned::Drop(DropReason::Mtu);
        }
        if flow.special & special::CONSENT != 0 && !self.legs[flow.leg as usize].ice.may_send(self.now) {
            return Turned::Drop(DropReason::ConsentLost);
        }
        let Some(mut frame) = self.exit.ports.acquire(flow.port) else { return Turned::NoFrame };
        let Some(mapped) = row.rewriter.map(&packet.incoming, row.window.end()) else {
            self.exit.ports.cancel(flow.port, frame);
            return Turned::Drop(DropReason::LatePacket);
        };
        let index = match PacketIndex::from_u64(mapped.index).map(|index| row.window.issue(index)) {
            Some(Ok(index)) => index,
            refused => {
                self.exit.ports.cancel(flow.port, frame);
                let exhausted = refused.is_none();
                return Turned::Drop(if exhausted { DropReason::IndexExhausted } else { DropReason::IndexReissued });
            }
        };
        // SAFETY: the flow is of the generation in force, which does not change within a step.
        let index_row = unsafe { flow.index_row() };
        // The row is ahead of the seal: whatever happens after this line, the index is never used again.
        index_row.store_next(row.window.end());
        index_row.store_timing(mapped.timestamp, self.now_ms);
        // SAFETY: the frame holds headers, `room` bytes of RTP and padding (`Flow::room`); a fixed header and a CSRC are
        // less than that.
        let rtp = unsafe {
            let rtp = frame.as_mut_ptr().add(flow.template.len());
            packet.write_header(rtp, flow, 0, index.index().seq(), mapped.timestamp);
            rtp
        };
        let mut header_len = usize::from(flow.header_len);
        let config = row.config.get(self.generation).map(Box::as_ref);
        // SAFETY: `room` bytes as above.
        let room = unsafe { std::slice::from_raw_parts_mut(rtp, usize::from(flow.room)) };
        let block = extend(&mut room[header_len..], flow, config, packet, self.legs, self.now);
        if block > 0 {
            room[0] |= 0x10;
            header_len += block;
            rtp_len += block;
            flow.extension_bytes += block as u64;
        }
        flow.packets += 1;
        flow.bytes += rtp_len as u64;
        // SAFETY: at most `room` bytes as above. The frame's memory does not move with its handle, and the handle is
        // not used again before the job is done (`flush` seals first).
        let bytes = unsafe { std::slice::from_raw_parts_mut(rtp, rtp_len) };
        // SAFETY: as for the index row; `legs` is borrowed for `'s`.
        let Some(keys) = (unsafe { flow.keys() }) else {
            bytes[header_len..].copy_from_slice(packet.payload);
            self.exit.send_one(row, slot, frame, rtp_len);
            return Turned::Sent;
        };
        let job = SealJob { keys, ssrc: flow.ssrc(), index, plain: packet.payload, frame: bytes, header_len };
        let profile = flow.profile;
        // SAFETY: a full batch is flushed at once; the row was found under this slot.
        if unsafe { self.batches.push(profile, job, frame, slot) } {
            self.flush::<WIDE>(profile);
        }
        Turned::Sent
    }
}

/// Writes a packet's header extensions for one receiver to `out`, which ends where the packet must; returns their length.
/// What is short is kept for the receivers that get the same.
fn extend(
    out: &mut [u8],
    flow: &mut Flow,
    config: Option<&EgressConfig>,
    packet: &mut Packet<'_>,
    legs: &[LegRow],
    now: Nanos,
) -> usize {
    let row = &legs[flow.leg as usize];
    let (Some(config), Some(leg)) = (config, row.config.get(packet.setup.generation)) else { return 0 };
    let behind = packet.payload.len() + usize::from(flow.overhead) - usize::from(flow.header_len);
    let room = out.len() - behind;
    if flow.packets >= MID_PACKETS {
        flow.special &= !special::NAMED;
    }
    let mid = config.mid.as_ref().filter(|_| flow.special & special::NAMED != 0).map(|mid| mid.as_bytes());
    if mid.is_none() {
        if packet.block.shape != flow.shape
            && let Some(block) = Block::of(packet.cell, leg, now)
        {
            packet.block = block;
        }
        let block = &packet.block;
        if block.shape == flow.shape && block.len() <= room && out.len() >= Block::LONGEST {
            // SAFETY: as just checked.
            unsafe { block.write(out.as_mut_ptr(), &row.transport_seq) };
            return block.len();
        }
    }
    write_extensions(out, &row.transport_seq, leg, packet.cell, mid, now, room)
}
