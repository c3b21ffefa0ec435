//! Egress: cursors walk their lists, headers are rewritten into transmit frames, payloads are sealed straight
//! out of the shared cell, checksums close the frame.

use arrayvec::ArrayVec;
use sluice_srtp::job::SealJob;
use sluice_srtp::provider::Provider;
use sluice_srtp::window::SentWindow;
use sluice_srtp::{PacketIndex, Profile};
use sluice_table::{DropReason, Kind};

use super::cell::Cell;
use super::counters::Counters;
use super::cursor::{Held, Turn};
use super::ports::{PortId, Ports};
use super::rewrite::{Incoming, Rewriter};
use super::rows::{EgressConfig, EgressRow, LegConfig, LegRow, Meaning};
use super::run::Engine;
use super::staged::Generation;
use super::time::Nanos;
use crate::io::TxFrame;
use crate::wire::extension::BlockWriter;
use crate::wire::rtp::FIXED_LEN;
use crate::wire::template::Template;

/// Frames sealed at a time.
const BATCH: usize = 32;
/// Fan-outs finished in one step at most.
const DONE: usize = 320;
/// Packets at the start of a stream that carry the mid extension even without a receiver report.
const MID_PACKETS: u64 = 500;

/// A frame between rewriting and transmission.
#[derive(Debug)]
struct Out<'s> {
    frame: TxFrame,
    template: &'s Template,
    rtp_len: u16,
    port: PortId,
    dscp: u8,
}

/// Frames of one profile waiting to be sealed together.
#[derive(Debug)]
struct Batch<'s> {
    jobs: ArrayVec<SealJob<'s>, BATCH>,
    outs: ArrayVec<Out<'s>, BATCH>,
}

/// What came of one receiver's turn.
enum Turned {
    /// A frame is on its way.
    Sent,
    /// Not a receiver of this packet.
    Skip,
    Drop(DropReason),
    /// No frame: stop here and come back.
    NoFrame,
}

impl<C: Provider> Engine<C> {
    /// Runs fan-outs until `budget` frames are out, nothing waits, or a port has no frame. Returns frames sent.
    pub(super) fn transmit<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        if self.cursors.is_empty() {
            return 0;
        }
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: AVX2 was detected.
            return unsafe { self.transmit_avx2(now, ports, budget) };
        }
        self.transmit_with::<P, false>(now, ports, budget)
    }

    /// The same code compiled for AVX2: checksums and copies in 32-byte steps.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn transmit_avx2<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        self.transmit_with::<P, true>(now, ports, budget)
    }

    #[inline(always)]
    fn transmit_with<P: Ports, const AVX2: bool>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        let Engine {
            legs, egress, lists, cursors, slab, memories, counters, crypto, links, worker, generation, ..
        } = self;
        let (own, generation) = (*worker, *generation);
        let mut pass = Pass {
            legs,
            generation,
            now,
            now_ms: (now.0 / 1_000_000) as u32,
            batches: std::array::from_fn(|_| Batch { jobs: ArrayVec::new(), outs: ArrayVec::new() }),
            crypto,
            ports,
            counters,
        };
        let mut done: ArrayVec<Held, DONE> = ArrayVec::new();
        let mut left = budget;
        // Positions that send nothing cost time too.
        let mut looks = budget * 8;
        let mut blocked = false;
        while left > 0 && looks > 0 && !blocked && !done.is_full() {
            let Some(turn) = cursors.turn(lists) else { break };
            let cursor = *cursors.get_mut(turn);
            let cell = memories[usize::from(cursor.held.worker)].read(cursor.held.cell);
            let (mut stage, mut position) = (cursor.stage as usize, cursor.position as usize);
            let late = now > cursor.deadline;
            let mut allowance = left.min(cursors.allowance(turn));
            let before = allowance;
            let source = &lists[cursor.list as usize];
            let finished = 'walk: loop {
                let list_id = if stage == 0 {
                    Some(cursor.list)
                } else if stage > source.attached.positions() {
                    break 'walk true;
                } else {
                    source
                        .attached
                        .at(stage - 1)
                        .filter(|v| lists[*v as usize].input.get(generation) == Some(&cursor.list))
                };
                if let Some(list_id) = list_id {
                    let members = &lists[list_id as usize].members;
                    while position < members.positions() {
                        if allowance == 0 || looks == 0 {
                            break 'walk false;
                        }
                        looks -= 1;
                        let Some(slot) = members.at(position) else {
                            position += 1;
                            continue;
                        };
                        if late {
                            position += 1;
                            pass.counters.drop(deadline_reason(turn));
                            continue;
                        }
                        match pass.turn::<AVX2>(&mut egress[slot as usize], list_id, cell) {
                            Turned::Sent => allowance -= 1,
                            Turned::Skip => {}
                            Turned::Drop(reason) => pass.counters.drop(reason),
                            Turned::NoFrame => {
                                blocked = true;
                                break 'walk false;
                            }
                        }
                        position += 1;
                    }
                }
                stage += 1;
                position = 0;
            };
            left -= before - allowance;
            looks = looks.saturating_sub(1);
            cursors.charge(turn, before - allowance);
            if finished {
                done.push(cursors.finish(lists, turn).held);
            } else {
                let cursor = cursors.get_mut(turn);
                (cursor.stage, cursor.position) = (stage as u32, position as u32);
            }
        }
        for profile in 0..pass.batches.len() {
            pass.flush::<AVX2>(profile);
        }
        for held in done {
            if held.worker == own {
                slab.release(held.cell);
            } else if let Some(link) = links.get(usize::from(held.worker)).and_then(Option::as_deref) {
                link.give_back(held.cell);
            }
        }
        budget - left
    }
}

fn deadline_reason(turn: Turn) -> DropReason {
    match turn.kind {
        Kind::Audio => DropReason::DeadlineAudio,
        Kind::Video => DropReason::DeadlineVideo,
    }
}

/// One step's egress: what it works with, and batches by profile.
struct Pass<'s, 'e, C, P> {
    legs: &'s [LegRow],
    generation: Generation,
    now: Nanos,
    now_ms: u32,
    batches: [Batch<'s>; Profile::ALL.len()],
    crypto: &'e mut C,
    ports: &'e mut P,
    counters: &'e mut Counters,
}

impl<'s, C: Provider, P: Ports> Pass<'s, '_, C, P> {
    /// Rewrites one packet for one receiver: everything up to sealing, and the sealing when a batch is full.
    #[inline(always)]
    fn turn<const AVX2: bool>(&mut self, row: &mut EgressRow, list: u32, cell: &'s Cell) -> Turned {
        let Some(config) = row.config.get(self.generation) else { return Turned::Skip };
        if config.list != list {
            return Turned::Skip;
        }
        let legs = self.legs;
        let leg_row = &legs[config.leg as usize];
        let Some(leg) = leg_row.config.get(self.generation) else { return Turned::Skip };
        let Some(template) = &leg.template else {
            let reason = if leg.remote.is_none() { DropReason::NoRemote } else { DropReason::NoNextHop };
            return Turned::Drop(reason);
        };
        if !leg_row.ice.may_send(self.now) {
            return Turned::Drop(DropReason::ConsentLost);
        }
        let keys = leg.outbound.as_deref();
        let (profile, tag) = match keys {
            Some(keys) => (keys.profile(), keys.profile().rtp_tag_len()),
            None if leg.plain => (Profile::AeadAes128Gcm, 0),
            None => return Turned::Drop(DropReason::NoKey),
        };
        let meta = &cell.meta;
        let payload_len = usize::from(meta.payload_len);
        let mut header_len = FIXED_LEN + usize::from(config.csrc) * 4;
        let mut rtp_len = header_len + payload_len + tag;
        let room = usize::from(leg.largest_rtp);
        if rtp_len > room {
            return Turned::Drop(DropReason::Mtu);
        }
        let Some(mut frame) = self.ports.acquire(leg.port) else { return Turned::NoFrame };
        if row.incarnation != config.incarnation {
            (row.window, row.rewriter) = fresh_state(config, self.now);
            row.incarnation = config.incarnation;
        }
        let incoming =
            Incoming { source: meta.source, index: meta.index, timestamp: meta.timestamp, arrival: meta.arrival };
        let Some(mapped) = row.rewriter.map(incoming) else {
            self.ports.cancel(leg.port, frame);
            return Turned::Drop(DropReason::LatePacket);
        };
        let index = match PacketIndex::from_u64(mapped.index).map(|index| row.window.issue(index)) {
            Some(Ok(index)) => index,
            refused => {
                self.ports.cancel(leg.port, frame);
                let exhausted = refused.is_none();
                return Turned::Drop(if exhausted { DropReason::IndexExhausted } else { DropReason::IndexReissued });
            }
        };
        // The row is ahead of the seal: whatever happens after this line, the index is never used again.
        config.index.store_next(row.rewriter.next());
        config.index.store_timing(mapped.timestamp, self.now_ms);
        template.start(&mut frame);
        let start = template.len();
        let rtp = &mut frame[start..];
        let Some(header) = rtp.first_chunk_mut::<16>() else {
            self.ports.cancel(leg.port, frame);
            return Turned::Drop(DropReason::Mtu);
        };
        let first = 0x80 | (u32::from(meta.padding) << 5) | u32::from(config.csrc);
        let second = (u32::from(meta.marker) << 7) | u32::from(config.payload_types.map(meta.payload_type));
        let word = (first << 24) | (second << 16) | u32::from(index.index().seq().0);
        // The CSRC's place is payload when there is none, and is written over then.
        let words = (u128::from(word) << 96)
            | (u128::from(mapped.timestamp) << 64)
            | (u128::from(config.ssrc.0) << 32)
            | u128::from(meta.ssrc.0);
        *header = words.to_be_bytes();
        if !meta.elements.is_empty() || leg.extensions.inserts {
            let with_mid = config.mid.as_ref().filter(|_| row.packets < MID_PACKETS).map(|mid| mid.as_bytes());
            let free = room - rtp_len;
            let block = write_extensions(&mut rtp[header_len..], leg_row, leg, cell, with_mid, self.now, free);
            if block > 0 {
                rtp[0] |= 0x10;
                header_len += block;
                rtp_len += block;
            }
        }
        row.packets += 1;
        row.bytes += rtp_len as u64;
        let plain = &cell.payload[..payload_len];
        let Some(bytes) = rtp.get_mut(..rtp_len) else {
            self.ports.cancel(leg.port, frame);
            return Turned::Drop(DropReason::Mtu);
        };
        let Some(keys) = keys else {
            bytes[header_len..].copy_from_slice(plain);
            let out = Out { frame, template, rtp_len: rtp_len as u16, port: leg.port, dscp: config.dscp };
            send::<P, AVX2>(out, self.ports, self.counters);
            return Turned::Sent;
        };
        // SAFETY: the frame's memory does not move with its handle, and the handle is not touched again before the
        // job is done (`flush` takes the jobs first).
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr(), rtp_len) };
        let batch = &mut self.batches[profile as usize];
        batch.jobs.push(SealJob { keys, ssrc: config.ssrc, index, plain, frame: bytes, header_len });
        batch.outs.push(Out { frame, template, rtp_len: rtp_len as u16, port: leg.port, dscp: config.dscp });
        if batch.jobs.is_full() {
            self.flush::<AVX2>(profile as usize);
        }
        Turned::Sent
    }

    /// Seals a batch and sends it.
    #[inline(always)]
    fn flush<const AVX2: bool>(&mut self, profile: usize) {
        let Pass { batches, crypto, ports, counters, .. } = self;
        let Batch { jobs, outs } = &mut batches[profile];
        if jobs.is_empty() {
            return;
        }
        crypto.seal(jobs);
        jobs.clear();
        for out in outs.drain(..) {
            send::<P, AVX2>(out, ports, counters);
        }
    }
}

/// Closes a frame's headers and submits it.
#[inline(always)]
fn send<P: Ports, const AVX2: bool>(mut out: Out<'_>, ports: &mut P, counters: &mut Counters) {
    let checksum = ports.wants_checksum(out.port);
    let len = out.template.finish::<AVX2>(&mut out.frame, usize::from(out.rtp_len), out.dscp, checksum);
    counters.sent += 1;
    counters.sent_bytes += len as u64;
    ports.submit(out.port, out.frame, len);
}

#[cold]
fn fresh_state(config: &EgressConfig, now: Nanos) -> (SentWindow, Rewriter) {
    let first = PacketIndex::from_u64(config.first_index).unwrap_or(PacketIndex::MAX);
    let rewriter = match config.resume_timing {
        Some((timestamp, ms)) => {
            // The stored clock is 32 bits of milliseconds: only the difference counts.
            let ago = ((now.0 / 1_000_000) as u32).wrapping_sub(ms);
            let sent = now.since(Nanos::from_millis(u64::from(ago)));
            Rewriter::resume(config.clock_rate, config.first_index, timestamp, sent)
        }
        None => Rewriter::new(config.clock_rate, config.first_index),
    };
    (SentWindow::new(first), rewriter)
}

/// Writes the extension block of one packet; returns its length, 0 if nothing fits or applies.
#[allow(clippy::too_many_arguments)]
fn write_extensions(
    out: &mut [u8],
    row: &LegRow,
    leg: &LegConfig,
    cell: &Cell,
    mid: Option<&[u8]>,
    now: Nanos,
    room: usize,
) -> usize {
    let room = room.min(out.len());
    let carried = cell.meta.elements.iter().filter(|e| !e.meaning.is_hop_by_hop());
    let carried = carried.filter_map(|e| {
        let id = leg.extensions.id(e.meaning)?;
        let at = usize::from(e.at);
        cell.header.get(at..at + usize::from(e.len)).map(|data| (id, data))
    });
    let mid = mid.and_then(|mid| Some((leg.extensions.id(Meaning::Mid)?, mid)));
    let own = [leg.extensions.id(Meaning::TransportCc), leg.extensions.id(Meaning::AbsSendTime)];
    let two_byte = carried.clone().chain(mid).any(|(id, data)| id > 14 || data.len() > 16 || data.is_empty())
        || own.iter().flatten().any(|id| *id > 14);
    let mut writer = BlockWriter::new(&mut out[..room], two_byte);
    // The transport-wide number first: it is not optional for a receiver that negotiated it.
    if let Some(id) = own[0] {
        let seq = row.transport_seq.get();
        if writer.push(id, &seq.to_be_bytes()) {
            row.transport_seq.set(seq.wrapping_add(1));
        }
    }
    if let Some((id, mid)) = mid {
        writer.push(id, mid);
    }
    for (id, data) in carried {
        writer.push(id, data);
    }
    if let Some(id) = own[1] {
        // 6.18 fixed point seconds modulo 64.
        let time = ((u128::from(now.0) << 18) / 1_000_000_000) as u32 & 0x00ff_ffff;
        writer.push(id, &time.to_be_bytes()[1..]);
    }
    writer.finish()
}
