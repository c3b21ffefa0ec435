//! Egress: cursors walk their lists, headers are rewritten into transmit frames, payloads are sealed straight
//! out of the shared cell, checksums close the frame.

use arrayvec::ArrayVec;
use sluice_srtp::job::SealJob;
use sluice_srtp::provider::Provider;
use sluice_srtp::window::SentWindow;
use sluice_srtp::{PacketIndex, Profile};
use sluice_table::{DropReason, Kind};

use super::cell::{Cell, Meta};
use super::cursor::{Held, Turn};
use super::ports::{PortId, Ports};
use super::rewrite::{Incoming, Rewriter};
use super::rows::{EgressConfig, EgressRow, LegConfig, LegRow, Meaning};
use super::run::Engine;
use super::staged::Generation;
use super::time::Nanos;
use crate::io::{TX_CAPACITY, TxFrame};
use crate::wire::extension::BlockWriter;
use crate::wire::frame::{ETHERNET_LEN, VLAN_LEN};
use crate::wire::rtp::FIXED_LEN;

/// Frames sealed at a time.
const BATCH: usize = 32;
/// Fan-outs finished in one step at most.
const DONE: usize = 320;
/// Packets at the start of a stream that carry the mid extension even without a receiver report.
const MID_PACKETS: u64 = 500;

/// A frame between rewriting and transmission.
#[derive(Debug)]
struct Out {
    frame: TxFrame,
    port: PortId,
    leg: u32,
    dscp: u8,
}

/// Frames of one profile waiting to be sealed together.
#[derive(Debug)]
struct Batch<'s> {
    jobs: ArrayVec<SealJob<'s>, BATCH>,
    outs: ArrayVec<Out, BATCH>,
}

/// What came of one receiver's turn.
enum Prepared<'s> {
    Sealed(Profile, SealJob<'s>, Out),
    Clear(Out, usize),
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
        let Engine {
            legs, egress, lists, cursors, slab, memories, counters, crypto, links, worker, generation, ..
        } = self;
        let legs: &[LegRow] = legs;
        let (own, generation) = (*worker, *generation);
        let mut batches: [Batch<'_>; 4] =
            std::array::from_fn(|_| Batch { jobs: ArrayVec::new(), outs: ArrayVec::new() });
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
                            counters.drop(deadline_reason(turn));
                            continue;
                        }
                        match prepare(&mut egress[slot as usize], legs, list_id, cell, generation, now, ports) {
                            Prepared::Sealed(profile, job, out) => {
                                let batch = &mut batches[profile as usize];
                                batch.jobs.push(job);
                                batch.outs.push(out);
                                if batch.jobs.is_full() {
                                    flush(batch, profile, legs, generation, crypto, ports, counters);
                                }
                                allowance -= 1;
                            }
                            Prepared::Clear(out, rtp_len) => {
                                send(out, rtp_len, legs, generation, ports, counters);
                                allowance -= 1;
                            }
                            Prepared::Skip => {}
                            Prepared::Drop(reason) => counters.drop(reason),
                            Prepared::NoFrame => {
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
            if finished {
                cursors.charge(turn, before - allowance);
                done.push(cursors.finish(lists, turn).held);
            } else {
                let cursor = cursors.get_mut(turn);
                (cursor.stage, cursor.position) = (stage as u32, position as u32);
                cursors.charge(turn, before - allowance);
            }
        }
        for (batch, profile) in batches.iter_mut().zip(BY_INDEX) {
            if !batch.jobs.is_empty() {
                flush(batch, profile, legs, generation, crypto, ports, counters);
            }
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

/// Profiles by their discriminant, as batches are indexed.
const BY_INDEX: [Profile; 4] =
    [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80, Profile::Aes128CmSha1_32];

fn deadline_reason(turn: Turn) -> DropReason {
    match turn.kind {
        Kind::Audio => DropReason::DeadlineAudio,
        Kind::Video => DropReason::DeadlineVideo,
    }
}

/// Rewrites one packet for one receiver: everything up to sealing.
#[inline(always)]
fn prepare<'s, P: Ports>(
    row: &mut EgressRow,
    legs: &'s [LegRow],
    list: u32,
    cell: &'s Cell,
    generation: Generation,
    now: Nanos,
    ports: &mut P,
) -> Prepared<'s> {
    let Some(config) = row.config.get(generation) else { return Prepared::Skip };
    if config.list != list {
        return Prepared::Skip;
    }
    let leg_row = &legs[config.leg as usize];
    let Some(leg) = leg_row.config.get(generation) else { return Prepared::Skip };
    let Some(template) = &leg.template else {
        let reason = if leg.remote.is_none() { DropReason::NoRemote } else { DropReason::NoNextHop };
        return Prepared::Drop(reason);
    };
    if !leg_row.ice.may_send(now) {
        return Prepared::Drop(DropReason::ConsentLost);
    }
    let (profile, tag) = match &leg.outbound {
        Some(keys) => (Some(keys.profile()), keys.profile().rtp_tag_len()),
        None if leg.plain => (None, 0),
        None => return Prepared::Drop(DropReason::NoKey),
    };
    let meta = &cell.meta;
    let payload_len = usize::from(meta.payload_len);
    let largest = usize::from(leg.mtu).min(TX_CAPACITY - ETHERNET_LEN - VLAN_LEN);
    let room = largest.saturating_sub(template.overhead() + payload_len + tag);
    let csrc = usize::from(config.csrc) * 4;
    if room < FIXED_LEN + csrc {
        return Prepared::Drop(DropReason::Mtu);
    }
    let Some(mut frame) = ports.acquire(leg.port) else { return Prepared::NoFrame };
    if row.incarnation != config.incarnation {
        (row.window, row.rewriter) = fresh_state(config, now);
        row.incarnation = config.incarnation;
    }
    let incoming = Incoming { source: meta.list, index: meta.index, timestamp: meta.timestamp, arrival: meta.arrival };
    let Some(mapped) = row.rewriter.map(incoming) else {
        ports.cancel(leg.port, frame);
        return Prepared::Drop(DropReason::LatePacket);
    };
    let index = match PacketIndex::from_u64(mapped.index).map(|index| row.window.issue(index)) {
        Some(Ok(index)) => index,
        refused => {
            ports.cancel(leg.port, frame);
            let exhausted = refused.is_none();
            return Prepared::Drop(if exhausted { DropReason::IndexExhausted } else { DropReason::IndexReissued });
        }
    };
    // The row is ahead of the seal: whatever happens after this line, the index is never used again.
    if let Some(highest) = row.window.highest() {
        config.index.store_next(highest.as_u64() + 1);
        config.index.store_timing(mapped.timestamp, (now.0 / 1_000_000) as u32);
    }
    template.start(&mut frame);
    let start = template.len();
    let header = &mut frame[start..];
    header[0] = 0x80 | (u8::from(meta.padding) << 5) | u8::from(config.csrc);
    header[1] = (u8::from(meta.marker) << 7) | config.payload_types.map(meta.payload_type);
    header[2..4].copy_from_slice(&index.index().seq().0.to_be_bytes());
    header[4..8].copy_from_slice(&mapped.timestamp.to_be_bytes());
    header[8..12].copy_from_slice(&config.ssrc.0.to_be_bytes());
    if config.csrc {
        header[12..16].copy_from_slice(&meta.ssrc.0.to_be_bytes());
    }
    let mut header_len = FIXED_LEN + csrc;
    if !meta.elements.is_empty() || leg.extensions.inserts {
        let room = room - header_len;
        let with_mid = config.mid.as_ref().filter(|_| row.packets < MID_PACKETS).map(|mid| mid.as_bytes());
        let block = write_extensions(&mut header[header_len..], leg_row, leg, meta, cell, with_mid, now, room);
        if block > 0 {
            header[0] |= 0x10;
            header_len += block;
        }
    }
    let rtp_len = header_len + payload_len + tag;
    row.packets += 1;
    row.bytes += rtp_len as u64;
    let plain = &cell.payload[..payload_len];
    let out = Out { port: leg.port, leg: config.leg, dscp: config.dscp, frame };
    let (Some(profile), Some(keys)) = (profile, leg.outbound.as_deref()) else {
        let mut out = out;
        out.frame[start + header_len..start + rtp_len].copy_from_slice(plain);
        return Prepared::Clear(out, rtp_len);
    };
    let mut out = out;
    let bytes = &mut out.frame[start..start + rtp_len];
    // SAFETY: the frame's memory does not move with its handle, and the handle is not touched again before the job
    // is done (`flush` takes the jobs first).
    let frame = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr(), bytes.len()) };
    Prepared::Sealed(profile, SealJob { keys, ssrc: config.ssrc, index, plain, frame, header_len }, out)
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
    meta: &Meta,
    cell: &Cell,
    mid: Option<&[u8]>,
    now: Nanos,
    room: usize,
) -> usize {
    let room = room.min(out.len());
    let carried = meta.elements.iter().filter(|e| !e.meaning.is_hop_by_hop());
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

/// Seals a batch and sends it.
#[inline]
fn flush<C: Provider, P: Ports>(
    batch: &mut Batch<'_>,
    _profile: Profile,
    legs: &[LegRow],
    generation: Generation,
    crypto: &mut C,
    ports: &mut P,
    counters: &mut super::counters::Counters,
) {
    crypto.seal(&mut batch.jobs);
    let Batch { jobs, outs } = batch;
    for (job, out) in jobs.drain(..).zip(outs.drain(..)) {
        let rtp_len = job.frame.len();
        send(out, rtp_len, legs, generation, ports, counters);
    }
}

/// Closes a frame's headers and submits it.
#[inline(always)]
fn send<P: Ports>(
    mut out: Out,
    rtp_len: usize,
    legs: &[LegRow],
    generation: Generation,
    ports: &mut P,
    counters: &mut super::counters::Counters,
) {
    let template = legs[out.leg as usize].config.get(generation).and_then(|leg| leg.template.as_ref());
    let Some(template) = template else {
        ports.cancel(out.port, out.frame);
        counters.drop(DropReason::Removed);
        return;
    };
    let checksum = ports.wants_checksum(out.port);
    let len = template.finish(&mut out.frame, rtp_len, out.dscp, checksum);
    counters.sent += 1;
    counters.sent_bytes += len as u64;
    ports.submit(out.port, out.frame, len);
}
