//! Egress: cursors walk their lists, headers are rewritten into transmit frames, payloads are sealed straight
//! out of the shared cell, checksums close the frame.

use std::mem::MaybeUninit;

use arrayvec::ArrayVec;
use sluice_srtp::job::SealJob;
use sluice_srtp::provider::Provider;
use sluice_srtp::window::SentWindow;
use sluice_srtp::{PacketIndex, Profile};
use sluice_table::protocol::Direction;
use sluice_table::{DropReason, Kind};

use super::cell::Cell;
use super::counters::Counters;
use super::cursor::{Held, Turn};
use super::event::Event;
use super::feedback::History;
use super::flow::special;
use super::gate::{self, Offer, Verdict};
use super::inputs::Inputs;
use super::list::HOLE;
use super::ports::Ports;
use super::rewrite::{Incoming, Rewriter};
use super::rows::{EgressConfig, EgressRow, LegConfig, LegRow, Meaning};
use super::run::Engine;
use super::staged::Generation;
use super::time::Nanos;
use super::trace::Tap;
use crate::io::{TX_CAPACITY, TxFrame};
use crate::wire::extension::BlockWriter;

/// Frames sealed at a time.
const BATCH: usize = 32;
/// Fan-outs finished in one step at most.
const DONE: usize = 320;
/// Packets at the start of a stream that carry the mid extension even without a receiver report.
const MID_PACKETS: u64 = 500;
/// Receivers ahead of the one being served whose rows are fetched, and whose index rows and keys.
const ROWS_AHEAD: usize = 10;
const KEYS_AHEAD: usize = 5;
/// Tables with more rows than this do not stay in a second-level cache.
const LARGE_TABLE: usize = 1_000;

/// A frame between rewriting and transmission.
#[derive(Debug)]
struct Out {
    frame: TxFrame,
    slot: u32,
}

/// Frames waiting to be sealed together, by profile.
#[derive(Debug)]
struct Batches<'s> {
    len: [usize; Profile::ALL.len()],
    /// As many of both as `len` says. Beside the lengths and not with them, or making them would copy the arrays.
    jobs: [[MaybeUninit<SealJob<'s>>; BATCH]; Profile::ALL.len()],
    outs: [[MaybeUninit<Out>; BATCH]; Profile::ALL.len()],
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

/// A packet as every receiver sees it.
#[derive(Debug)]
struct Packet<'s> {
    incoming: Incoming,
    payload: &'s [u8],
    /// First header word without what the receiver decides.
    word: u32,
    /// SSRC for the CSRC list in network order.
    source: u32,
    payload_type: u8,
    special: u8,
    /// How the virtual source that is walked offers it.
    offer: Option<Offer>,
    cell: &'s Cell,
}

impl<'s> Packet<'s> {
    fn of(cell: &'s Cell) -> Self {
        let meta = &cell.meta;
        Packet {
            incoming: Incoming {
                source: meta.source,
                index: meta.index,
                timestamp: meta.timestamp,
                arrival: meta.arrival,
            },
            payload: &cell.payload[..usize::from(meta.payload_len)],
            word: (0x80 | u32::from(meta.padding) << 5) << 24 | u32::from(meta.marker) << 23,
            source: meta.announced.0.to_be(),
            payload_type: meta.payload_type,
            special: if meta.elements.is_empty() { 0 } else { special::CARRIES },
            offer: None,
            cell,
        }
    }

    /// Sets the packet up for the receivers of the list itself, or of a virtual source that carries it.
    fn offer(&mut self, of: Option<(Inputs, u8)>, now_ms: u32) {
        let meta = &self.cell.meta;
        self.special = (self.special & !special::VIRTUAL) | if of.is_some() { special::VIRTUAL } else { 0 };
        self.offer = of.map(|(inputs, layer)| Offer {
            inputs,
            layer,
            key_frame: meta.key_frame,
            member: meta.member,
            source: meta.source,
            now_ms,
        });
    }
}

/// How far a walk over some receivers came.
struct Walked {
    positions: usize,
    sent: u32,
    /// No frame for the receiver at `positions`.
    blocked: bool,
}

impl<C: Provider> Engine<C> {
    /// Runs fan-outs until `budget` frames are out, nothing waits, or a port has no frame. Returns frames sent.
    pub(super) fn transmit<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        if self.cursors.is_empty() {
            return 0;
        }
        #[cfg(target_arch = "x86_64")]
        if is_wide() {
            // SAFETY: everything it is compiled for was detected.
            return unsafe { self.transmit_wide(now, ports, budget) };
        }
        self.transmit_with::<P, false>(now, ports, budget)
    }

    /// The same code compiled for AVX2: checksums and copies in 32-byte steps.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe")]
    fn transmit_wide<P: Ports>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        self.transmit_with::<P, true>(now, ports, budget)
    }

    #[inline(always)]
    #[allow(clippy::too_many_lines, reason = "one walk; the batches must be locals of this very function")]
    fn transmit_with<P: Ports, const WIDE: bool>(&mut self, now: Nanos, ports: &mut P, budget: u32) -> u32 {
        let Engine {
            legs,
            egress,
            lists,
            cursors,
            slab,
            memories,
            counters,
            crypto,
            links,
            worker,
            generation,
            tap,
            feedback,
            ..
        } = self;
        let (own, generation) = (*worker, *generation);
        // A local of its own: as part of `Pass` it would be copied there, 14 KiB a step.
        let mut batches = Batches {
            len: [0; Profile::ALL.len()],
            // SAFETY: arrays of `MaybeUninit` need no initialisation; written as a constant they would be zeroed.
            jobs: unsafe { MaybeUninit::uninit().assume_init() },
            // SAFETY: as above.
            outs: unsafe { MaybeUninit::uninit().assume_init() },
        };
        let mut pass = Pass {
            legs,
            prefetch: egress.len() > LARGE_TABLE,
            egress,
            generation,
            now,
            now_ms: (now.0 / 1_000_000) as u32,
            wants_key_frame: false,
            batches: &mut batches,
            tap: tap.as_deref_mut(),
            history: &mut feedback.history,
            crypto,
            ports,
            counters,
        };
        let mut done: ArrayVec<Held, DONE> = ArrayVec::new();
        let mut left = budget;
        // Positions that send nothing cost time too.
        let mut looks = budget * 8;
        let mut blocked = false;
        let mut asks: ArrayVec<u32, DONE> = ArrayVec::new();
        while left > 0 && looks > 0 && !blocked && !done.is_full() && !asks.is_full() {
            let Some(turn) = cursors.turn(lists) else { break };
            let cursor = *cursors.get_mut(turn);
            let mut packet = Packet::of(memories[usize::from(cursor.held.worker)].read(cursor.held.cell));
            let (mut stage, mut position) = (cursor.stage as usize, cursor.position as usize);
            let late = now > cursor.deadline;
            let mut allowance = left.min(cursors.allowance(turn));
            let before = allowance;
            let source = &lists[cursor.list as usize];
            let finished = 'walk: loop {
                let list_id = if stage == 0 {
                    Some((cursor.list, None))
                } else if stage > source.attached.positions() {
                    break 'walk true;
                } else {
                    source.attached.at(stage - 1).and_then(|v| {
                        let inputs = lists[v as usize].inputs.get(generation)?;
                        Some((v, Some((*inputs, inputs.position(cursor.list)?))))
                    })
                };
                if let Some((list_id, offer)) = list_id {
                    packet.offer(offer, pass.now_ms);
                    let slots = lists[list_id as usize].members.slots();
                    while let Some(rest) = slots.get(position..).filter(|rest| !rest.is_empty()) {
                        let most = allowance.min(looks) as usize;
                        if most == 0 {
                            break 'walk false;
                        }
                        let part = &rest[..most.min(rest.len())];
                        let walked = if late {
                            pass.skip(part, deadline_reason(turn))
                        } else {
                            pass.walk::<WIDE>(part, list_id, &packet)
                        };
                        looks = looks.saturating_sub(walked.positions as u32);
                        position += walked.positions;
                        allowance -= walked.sent;
                        if walked.blocked {
                            blocked = true;
                            break 'walk false;
                        }
                    }
                }
                stage += 1;
                position = 0;
            };
            if std::mem::take(&mut pass.wants_key_frame) && lists[cursor.list as usize].ask(packet.incoming.source, now)
            {
                asks.push(packet.incoming.source);
            }
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
        for profile in 0..Profile::ALL.len() {
            pass.flush::<WIDE>(profile);
        }
        for held in done {
            if held.worker == own {
                slab.release(held.cell);
            } else if let Some(link) = links.get(usize::from(held.worker)).and_then(Option::as_deref) {
                link.give_back(held.cell);
            }
        }
        asks.into_iter().for_each(|source| self.emit(Event::KeyFrameWanted { source }));
        budget - left
    }
}

/// Whether the CPU has what [`Engine::transmit_wide`] is compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
fn is_wide() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("bmi1") && has!("bmi2") && has!("movbe")
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
    egress: &'e mut [EgressRow],
    /// Whether rows are worth fetching ahead.
    prefetch: bool,
    generation: Generation,
    now: Nanos,
    now_ms: u32,
    /// Whether a receiver waits for a key frame of the packet's source.
    wants_key_frame: bool,
    batches: &'e mut Batches<'s>,
    tap: Option<&'e mut Tap>,
    history: &'e mut History,
    crypto: &'e mut C,
    ports: &'e mut P,
    counters: &'e mut Counters,
}

impl<'s, C: Provider, P: Ports> Pass<'s, '_, C, P> {
    /// Serves some receivers of one list.
    #[inline(always)]
    fn walk<const WIDE: bool>(&mut self, slots: &[u32], list: u32, packet: &Packet<'s>) -> Walked {
        if self.prefetch {
            self.fetch(&slots[..slots.len().min(ROWS_AHEAD)]);
        }
        let mut sent = 0;
        for (position, slot) in slots.iter().enumerate() {
            if self.prefetch {
                self.fetch_ahead(slots, position, packet.special & special::VIRTUAL != 0);
            }
            match self.turn::<WIDE>(*slot, list, packet) {
                Turned::Sent => sent += 1,
                Turned::Skip => {}
                Turned::Drop(reason) => self.counters.drop(reason),
                Turned::NoFrame => return Walked { positions: position, sent, blocked: true },
            }
        }
        Walked { positions: slots.len(), sent, blocked: false }
    }

    /// Passes over receivers of a packet that waited too long.
    #[cold]
    fn skip(&mut self, slots: &[u32], reason: DropReason) -> Walked {
        self.counters.drop_many(reason, slots.iter().filter(|slot| **slot != HOLE).count() as u64);
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
    fn turn<const WIDE: bool>(&mut self, slot: u32, list: u32, packet: &Packet<'s>) -> Turned {
        // A hole is no slot.
        let Some(row) = self.egress.get_mut(slot as usize) else { return Turned::Skip };
        if (row.flow.generation != self.generation || row.flow.list != list)
            && let Err(turned) = resolve(row, self.legs, self.generation, list, self.now)
        {
            return turned;
        }
        if row.flow.payload_type != packet.payload_type
            && let Some(config) = row.config.get(self.generation)
        {
            row.flow.take_payload_type(packet.payload_type, &config.payload_types);
        }
        if packet.special & special::VIRTUAL != 0
            && let Some(turned) = Self::withheld(row, self.legs, packet, self.generation, &mut self.wants_key_frame)
        {
            return turned;
        }
        let flow = &mut row.flow;
        let mut rtp_len = usize::from(flow.overhead) + packet.payload.len();
        if rtp_len > usize::from(flow.room) {
            return Turned::Drop(DropReason::Mtu);
        }
        if flow.special & special::CONSENT != 0 && !self.legs[flow.leg as usize].ice.may_send(self.now) {
            return Turned::Drop(DropReason::ConsentLost);
        }
        let Some(mut frame) = self.ports.acquire(flow.port) else { return Turned::NoFrame };
        if frame.len() < TX_CAPACITY {
            self.ports.cancel(flow.port, frame);
            return Turned::Drop(DropReason::Mtu);
        }
        let Some(mapped) = row.rewriter.map(packet.incoming) else {
            self.ports.cancel(flow.port, frame);
            return Turned::Drop(DropReason::LatePacket);
        };
        let index = match PacketIndex::from_u64(mapped.index).map(|index| row.window.issue(index)) {
            Some(Ok(index)) => index,
            refused => {
                self.ports.cancel(flow.port, frame);
                let exhausted = refused.is_none();
                return Turned::Drop(if exhausted { DropReason::IndexExhausted } else { DropReason::IndexReissued });
            }
        };
        // SAFETY: the flow is of the generation in force, which does not change within a step.
        let index_row = unsafe { flow.index_row() };
        // The row is ahead of the seal: whatever happens after this line, the index is never used again.
        index_row.store_next(row.rewriter.next());
        index_row.store_timing(mapped.timestamp, self.now_ms);
        // SAFETY: the frame holds headers, `room` bytes of RTP and padding (`Flow::room`); a fixed header and a CSRC are
        // less than that. The CSRC's place is payload when there is none, and is written over then.
        let rtp = unsafe {
            let rtp = frame.as_mut_ptr().add(flow.template.len());
            let word = packet.word | flow.word | u32::from(index.index().seq().0);
            rtp.cast::<[u8; 4]>().write(word.to_be_bytes());
            rtp.cast::<[u8; 4]>().add(1).write(mapped.timestamp.to_be_bytes());
            rtp.cast::<[u8; 4]>().add(2).write(flow.ssrc.to_ne_bytes());
            rtp.cast::<[u8; 4]>().add(3).write(packet.source.to_ne_bytes());
            rtp
        };
        let mut header_len = usize::from(flow.header_len);
        let special = flow.special | packet.special;
        if special & (special::INSERTS | special::CARRIES) != 0 {
            let leg_row = &self.legs[flow.leg as usize];
            // SAFETY: `room` bytes as above.
            let rtp = unsafe { std::slice::from_raw_parts_mut(rtp, usize::from(flow.room)) };
            let free = rtp.len() - rtp_len;
            let (config, leg) = (row.config.get(self.generation), leg_row.config.get(self.generation));
            let mid = config.and_then(|config| config.mid.as_ref()).filter(|_| row.packets < MID_PACKETS);
            let block = leg.map_or(0, |leg| {
                let mid = mid.map(|mid| mid.as_bytes());
                write_extensions(&mut rtp[header_len..], leg_row, leg, packet.cell, mid, self.now, free)
            });
            if block > 0 {
                rtp[0] |= 0x10;
                header_len += block;
                rtp_len += block;
                row.extension_bytes += block as u64;
            }
        }
        row.packets += 1;
        flow.bytes += rtp_len as u64;
        // SAFETY: at most `room` bytes as above. The frame's memory does not move with its handle, and the handle is
        // not used again before the job is done (`flush` seals first).
        let bytes = unsafe { std::slice::from_raw_parts_mut(rtp, rtp_len) };
        // SAFETY: as for the index row; `legs` is borrowed for `'s`.
        let Some(keys) = (unsafe { flow.keys() }) else {
            bytes[header_len..].copy_from_slice(packet.payload);
            let traced = Traced { tap: self.tap.as_deref_mut(), generation: self.generation, now: self.now };
            keep(row, slot, &frame, rtp_len, self.history);
            send::<P, WIDE>(row, frame, rtp_len, self.ports, self.counters, traced);
            return Turned::Sent;
        };
        let (profile, ssrc) = (flow.profile as usize, flow.ssrc());
        let batches = &mut *self.batches;
        // Never full here; the remainder spares a check.
        let at = batches.len[profile] % BATCH;
        batches.jobs[profile][at].write(SealJob { keys, ssrc, index, plain: packet.payload, frame: bytes, header_len });
        batches.outs[profile][at].write(Out { frame, slot });
        batches.len[profile] = at + 1;
        if at + 1 == BATCH {
            self.flush::<WIDE>(profile);
        }
        Turned::Sent
    }

    /// Asks the gate about a packet that a virtual source brings; says what becomes of it if it is not sent.
    #[inline(always)]
    fn withheld(
        row: &mut EgressRow,
        legs: &[LegRow],
        packet: &Packet<'s>,
        generation: Generation,
        wants_key_frame: &mut bool,
    ) -> Option<Turned> {
        let offer = packet.offer.as_ref()?;
        let choosy = row.flow.special & special::CHOOSY != 0;
        let leg = if choosy { legs[row.flow.leg as usize].config.get(generation) } else { None };
        match gate::decide(row, leg, offer) {
            Verdict::Send => None,
            Verdict::Skip => Some(Turned::Skip),
            Verdict::KeyFrameWanted => {
                *wants_key_frame = true;
                Some(if row.gate.is_waiting() { Turned::Drop(DropReason::KeyFrame) } else { Turned::Skip })
            }
        }
    }

    /// Seals a batch and sends it.
    #[inline(always)]
    fn flush<const WIDE: bool>(&mut self, profile: usize) {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: the caller runs only where all of it was detected.
            return unsafe { self.flush_wide(profile) };
        }
        self.flush_with::<false>(profile);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,movbe")]
    fn flush_wide(&mut self, profile: usize) {
        self.flush_with::<true>(profile);
    }

    #[inline(always)]
    fn flush_with<const WIDE: bool>(&mut self, profile: usize) {
        let Batches { len, jobs, outs } = &mut *self.batches;
        let len = std::mem::take(&mut len[profile]).min(BATCH);
        if len == 0 {
            return;
        }
        // SAFETY: the first `len` were written and are taken out here only.
        let (jobs, outs) = unsafe { (jobs[profile][..len].assume_init_mut(), outs[profile].as_ptr().cast::<Out>()) };
        self.crypto.seal(jobs);
        for (at, job) in jobs.iter().enumerate() {
            let rtp_len = job.frame.len();
            // SAFETY: as above; each is read once.
            let Out { frame, slot } = unsafe { outs.add(at).read() };
            // SAFETY: `turn` found the row under this slot.
            let row = unsafe { self.egress.get_unchecked(slot as usize) };
            let traced = Traced { tap: self.tap.as_deref_mut(), generation: self.generation, now: self.now };
            keep(row, slot, &frame, rtp_len, self.history);
            send::<P, WIDE>(row, frame, rtp_len, self.ports, self.counters, traced);
        }
    }
}

/// Keeps a sealed packet if its stream sends them again as they were.
#[inline(always)]
fn keep(row: &EgressRow, slot: u32, frame: &TxFrame, rtp_len: usize, history: &mut History) {
    if row.flow.special & special::KEPT != 0 {
        let start = row.flow.template.len();
        history.keep_sealed(slot, row.incarnation, &frame[start..start + rtp_len]);
    }
}

/// The running trace, if any, and what it needs to know.
struct Traced<'a> {
    tap: Option<&'a mut Tap>,
    generation: Generation,
    now: Nanos,
}

#[cold]
#[inline(never)]
fn trace(tap: &mut Tap, row: &EgressRow, generation: Generation, now: Nanos, frame: &[u8]) {
    let leg = row.config.get(generation).map(|config| config.leg);
    tap.see(now, Direction::Out, leg, None, frame);
}

/// Closes a frame's headers and submits it.
#[inline(always)]
fn send<P: Ports, const WIDE: bool>(
    row: &EgressRow,
    mut frame: TxFrame,
    rtp_len: usize,
    ports: &mut P,
    counters: &mut Counters,
    traced: Traced<'_>,
) {
    let flow = &row.flow;
    let checksum = ports.wants_checksum(flow.port);
    // SAFETY: `turn` made sure of the frame's size and kept to `Flow::room`; `WIDE` is set where it was detected.
    let len = unsafe { flow.template.finish::<WIDE>(frame.as_mut_ptr(), rtp_len, checksum) };
    counters.sent += 1;
    counters.sent_bytes += len as u64;
    if let Some(tap) = traced.tap {
        trace(tap, row, traced.generation, traced.now, &frame[..len]);
    }
    ports.submit(flow.port, frame, len);
}

/// Looks up what the generation in force says of a stream; an error if it is not to be served.
#[cold]
#[inline(never)]
fn resolve(row: &mut EgressRow, legs: &[LegRow], generation: Generation, list: u32, now: Nanos) -> Result<(), Turned> {
    let config = row.config.get(generation).filter(|config| config.list == list).ok_or(Turned::Skip)?;
    let leg = legs[config.leg as usize].config.get(generation).ok_or(Turned::Skip)?;
    row.flow.resolve(generation, config, leg).map_err(Turned::Drop)?;
    row.gate.bind(config.binding, config.layer);
    if row.incarnation != config.incarnation {
        (row.window, row.rewriter) = fresh_state(config, now);
        row.incarnation = config.incarnation;
    }
    Ok(())
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
pub(super) fn write_extensions(
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
