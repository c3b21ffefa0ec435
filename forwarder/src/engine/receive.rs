//! Ingress: from UDP payloads to opened packets. Opens in batches what was admitted, and only then lets a packet change
//! anything.

use arrayvec::ArrayVec;
use sluice_srtp::job::{OpenError, OpenJob};
use sluice_srtp::provider::Provider;
use sluice_srtp::replay::ReplayError;
use sluice_srtp::{PacketIndex, Profile};
use sluice_table::protocol::Direction;
use sluice_table::{DropReason, Kind};

use super::admit::{ATTEMPTS, UNLISTED};
use super::cell::{Cell, CellId, KnownElement, MAX_ELEMENTS, Meta};
use super::cursor::Held;
use super::event::Event;
use super::gate::NO_MEMBER;
use super::key_frame;
use super::link::Message;
use super::rows::{ExtensionMap, Meaning};
use super::run::Engine;
use super::time::Nanos;
use crate::io::BURST;
use crate::select::meter::Meter;
use crate::wire::extension::Elements;
use crate::wire::frame::Address;
use crate::wire::rtp::RtpHeader;

/// How a packet reached the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By an AF_XDP socket.
    Fast,
    /// By a kernel socket.
    Slow,
    /// From another worker.
    Stray,
}

/// One UDP payload to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    pub endpoint: u16,
    pub remote: Address,
    pub payload: &'a [u8],
    pub path: Path,
    /// The whole frame; of a stray only the payload is left.
    pub frame: Option<&'a [u8]>,
}

/// A packet that passed every check that needs no key.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) packet: &'a [u8],
    pub(super) frame: Option<&'a [u8]>,
    pub(super) remote: Address,
    /// When it was received, which may be a while ago.
    pub(super) arrived: Nanos,
    pub(super) header: RtpHeader,
    pub(super) leg: u32,
    pub(super) ingress: u32,
    pub(super) index: PacketIndex,
    pub(super) cell: CellId,
    /// `None` on a plain leg.
    pub(super) profile: Option<Profile>,
    pub(super) result: Result<usize, OpenError>,
}

impl<C: Provider> Engine<C> {
    /// Takes a burst of payloads in; never more than [`BURST`].
    pub(super) fn ingest(&mut self, now: Nanos, inputs: &[Input<'_>]) {
        let mut candidates: ArrayVec<Candidate<'_>, BURST> = ArrayVec::new();
        for input in inputs {
            match self.admit(now, input) {
                Ok(Some(candidate)) => candidates.push(candidate),
                Ok(None) => self.trace_in(now, input.frame, None, None),
                Err(reason) => {
                    self.counters.drop(reason);
                    self.trace_in(now, input.frame, None, Some(reason));
                }
            }
        }
        self.open_and_accept(now, candidates);
    }

    /// Opens packets and lets those that authenticate take effect.
    pub(super) fn open_and_accept(&mut self, now: Nanos, mut candidates: ArrayVec<Candidate<'_>, BURST>) {
        if candidates.is_empty() {
            return;
        }
        self.open(&mut candidates);
        for candidate in candidates.drain(..) {
            let cell = candidate.cell;
            let (leg, ingress, frame) = (candidate.leg as usize, candidate.ingress as usize, candidate.frame);
            let result = self.accept(now, candidate);
            self.trace_in(now, frame, Some(leg as u32), result.err());
            match result {
                Ok(()) => {}
                Err(reason) => {
                    self.counters.drop(reason);
                    self.legs[leg].stats.dropped += 1;
                    if let Some(row) = self.ingress.get_mut(ingress) {
                        row.dropped += 1;
                    }
                }
            }
            self.slab.release(cell);
        }
    }

    #[inline(always)]
    fn trace_in(&mut self, now: Nanos, frame: Option<&[u8]>, leg: Option<u32>, dropped: Option<DropReason>) {
        if let (Some(tap), Some(frame)) = (&mut self.tap, frame) {
            tap.see(now, Direction::In, leg, dropped, frame);
        }
    }

    /// Opens all candidates into their cells, a batch per profile.
    fn open(&mut self, candidates: &mut [Candidate<'_>]) {
        let mut present = 0u8;
        for candidate in candidates.iter() {
            present |= match candidate.profile {
                Some(profile) => 1 << profile as u8,
                None => 1 << 7,
            };
        }
        for profile in Profile::ALL.into_iter().filter(|p| present & (1 << *p as u8) != 0) {
            let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
            let mut of: ArrayVec<u8, BURST> = ArrayVec::new();
            for (at, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.profile == Some(profile)) {
                let config = self.legs[candidate.leg as usize].config.get(self.generation);
                let Some(keys) = config.and_then(|leg| leg.inbound.as_deref()) else { continue };
                // SAFETY: every candidate took a cell of its own, which nobody else holds and which is touched
                // through this reference only until the jobs are gone.
                let out = unsafe { &mut *self.slab.payload_ptr(candidate.cell) };
                jobs.push(OpenJob {
                    keys,
                    ssrc: candidate.header.ssrc,
                    index: candidate.index,
                    packet: candidate.packet,
                    header_len: candidate.header.len,
                    out,
                    result: Err(OpenError::Pending),
                });
                of.push(at as u8);
            }
            self.crypto.open(&mut jobs);
            for (job, at) in jobs.iter().zip(&of) {
                candidates[usize::from(*at)].result = job.result;
            }
        }
        if present & (1 << 7) != 0 {
            for candidate in candidates.iter_mut().filter(|c| c.profile.is_none()) {
                let payload = &candidate.packet[candidate.header.len..];
                self.slab.write(candidate.cell).payload[..payload.len()].copy_from_slice(payload);
                candidate.result = Ok(payload.len());
            }
        }
    }

    /// An opened packet takes effect: replay window, index row, statistics, and on to its receivers.
    fn accept(&mut self, now: Nanos, mut candidate: Candidate<'_>) -> Result<(), DropReason> {
        let payload_len = candidate.result.map_err(|error| match error {
            OpenError::Short => DropReason::Truncated,
            OpenError::Tag | OpenError::Pending => DropReason::AuthTag,
            OpenError::Refused => DropReason::NoKey,
        })?;
        let generation = self.generation;
        let leg = self.legs[candidate.leg as usize].config.get(generation).ok_or(DropReason::Removed)?;
        let (feedback, elements) = (leg.feedback, known_elements(&leg.extensions, candidate.packet, &candidate.header));
        if feedback.transport_cc
            && let Some(number) = elements.as_ref().ok().and_then(|known| transport_number(candidate.packet, known))
        {
            self.feedback.arrived(candidate.arrived, candidate.leg, number, candidate.header.ssrc);
        }
        if candidate.ingress == UNLISTED {
            self.legs[candidate.leg as usize].attempts.give_back(ATTEMPTS, 1); // only failures cost
            candidate.ingress = self.learn(now, candidate.leg, candidate.packet, &candidate.header)?;
        }
        let row = &mut self.ingress[candidate.ingress as usize];
        let config = row.config.get(generation).ok_or(DropReason::Removed)?;
        let receiver = row.receiver.as_mut().ok_or(DropReason::Removed)?;
        receiver.check(candidate.index).map_err(replay_reason)?; // twice in one burst
        let expected = receiver.highest().map(|highest| highest.as_u64() + 1);
        receiver.accept(candidate.index);
        if let Some(highest) = receiver.highest() {
            config.index.store_next(highest.as_u64() + 1);
        }
        let leg_row = &mut self.legs[candidate.leg as usize];
        leg_row.stats.last_authenticated = now;
        let leg = leg_row.config.get(generation).ok_or(DropReason::Removed)?;
        let learned = leg.remote.is_none() && leg_row.learned.is_none();
        if learned {
            leg_row.learned = Some(candidate.remote);
            leg_row.attempts.give_back(ATTEMPTS, 1);
        }
        let header = &candidate.header;
        let cell = self.slab.write(candidate.cell);
        if header.padding && !is_padded(&cell.payload[..payload_len]) {
            return Err(DropReason::RtpHeader);
        }
        let elements = elements?;
        if !elements.is_empty() {
            cell.header[..header.len].copy_from_slice(&candidate.packet[..header.len]);
        }
        cell.meta = Meta {
            list: config.list,
            source: config.source,
            index: candidate.index.as_u64(),
            timestamp: header.timestamp,
            ssrc: header.ssrc,
            announced: config.announced.unwrap_or(header.ssrc),
            member: leg.member.unwrap_or(NO_MEMBER),
            key_frame: key_frame::starts_here(config.kind, &leg.extensions, &elements, candidate.packet),
            arrival: candidate.arrived,
            kind: config.kind,
            payload_type: header.payload_type,
            marker: header.marker,
            padding: header.padding,
            payload_len: payload_len as u16,
            header_len: header.len as u16,
            elements,
        };
        let news = News {
            learned: learned.then_some(candidate.remote),
            starts: config.kind == Kind::Video && config.repairs.is_none() && row.first_index.is_none(),
            key_frame: config.kind == Kind::Video && cell.meta.key_frame && key_frame::are_told(&leg.extensions),
            level: if config.candidate {
                heard(now, &mut row.meter, &leg.extensions, cell, candidate.packet)
            } else {
                None
            },
        };
        row.first_index.get_or_insert(candidate.index.as_u64());
        row.packets += 1;
        row.payload_bytes += payload_len as u64;
        self.counters.opened += 1;
        let list = config.list;
        if feedback.reports {
            let at = (candidate.index.as_u64(), header.timestamp);
            self.feedback.received(candidate.arrived, candidate.ingress, config.incarnation, at, config.clock_rate);
        }
        let repairs = config.repairs;
        if feedback.nack
            && config.kind == Kind::Video
            && repairs.is_none()
            && let Some(first) = expected.filter(|first| *first < candidate.index.as_u64())
        {
            let end = candidate.index.as_u64();
            self.counters.nacks_given_up += self.feedback.missing(now, candidate.leg, candidate.ingress, first, end);
        }
        let workers = self.lists[list as usize].workers;
        self.tell(now, candidate.leg, candidate.ingress, list, &news);
        if let Some(repairs) = repairs {
            return self.restore(now, candidate.leg, candidate.cell, &repairs);
        }
        if workers == 0 {
            return Err(DropReason::NoReceiver);
        }
        self.dispatch(now, candidate.cell, workers);
        Ok(())
    }

    /// Tells whom it concerns what a packet brought besides its payload.
    #[inline(always)]
    fn tell(&mut self, now: Nanos, leg: u32, ingress: u32, list: u32, news: &News) {
        if let Some(remote) = news.learned {
            self.emit(Event::RemoteLearned { leg, remote });
        }
        if news.starts {
            // Whoever receives it is new to it.
            self.want_key_frame(leg, list, true);
        }
        if news.key_frame {
            self.key_frame_seen(now, ingress);
        }
        if let Some(level) = news.level {
            self.emit(Event::Level { list, level });
        }
    }

    /// Queues an opened packet for every worker that has receivers of it.
    pub(super) fn dispatch(&mut self, now: Nanos, cell: CellId, workers: u64) {
        let own = 1u64 << self.worker;
        if workers & own != 0 {
            let meta = &self.slab.memory().read(cell).meta;
            let (list, kind) = (meta.list, meta.kind);
            let held = Held { worker: self.worker, cell };
            if self.cursors.push(&mut self.lists, held, list, kind, now) {
                self.slab.hold(cell);
                if self.feedback.history.wants(kind) {
                    self.feedback.history.keep_clear(self.slab.memory().read(cell));
                }
            } else {
                self.counters.drop(DropReason::QueueFull);
            }
        }
        let mut others = workers & !own;
        while others != 0 {
            let worker = others.trailing_zeros() as usize;
            others &= others - 1;
            let sent =
                self.links.get(worker).and_then(Option::as_deref).is_some_and(|link| link.send(Message::Opened(cell)));
            if sent {
                self.slab.hold(cell);
            } else {
                self.counters.drop(DropReason::QueueFull);
            }
        }
    }
}

pub(super) fn replay_reason(error: ReplayError) -> DropReason {
    match error {
        ReplayError::Replayed => DropReason::Replayed,
        ReplayError::TooOld => DropReason::TooOld,
    }
}

/// What an accepted packet brings besides its payload.
struct News {
    /// The leg's address, now known.
    learned: Option<Address>,
    /// A video stream begins.
    starts: bool,
    /// A key frame begins, as an extension tells.
    key_frame: bool,
    /// Level to report of a stream that competes by it.
    level: Option<u8>,
}

/// Whether the last byte of a payload can be its padding's length (RFC 3550 §5.1).
fn is_padded(payload: &[u8]) -> bool {
    payload.last().is_some_and(|pad| *pad != 0 && usize::from(*pad) <= payload.len())
}

/// What a packet makes of its stream's level; a leg that tells no levels is heard by its packets alone.
fn heard(now: Nanos, meter: &mut Meter, extensions: &ExtensionMap, cell: &Cell, packet: &[u8]) -> Option<u8> {
    match extensions.id(Meaning::AudioLevel) {
        Some(_) => meter.hear(now, audio_level(&cell.meta.elements, packet)),
        None => meter.count(now),
    }
}

/// The level a packet tells (RFC 6464): the lower seven bits.
fn audio_level(elements: &[KnownElement], packet: &[u8]) -> Option<u8> {
    let element = elements.iter().find(|e| e.meaning == Meaning::AudioLevel && e.len > 0)?;
    packet.get(usize::from(element.at)).map(|byte| byte & 0x7f)
}

/// The transport-wide sequence number of a packet.
fn transport_number(packet: &[u8], elements: &[KnownElement]) -> Option<u16> {
    let element = elements.iter().find(|element| element.meaning == Meaning::TransportCc && element.len == 2)?;
    packet.get(usize::from(element.at)..usize::from(element.at) + 2).map(|bytes| crate::wire::be16(bytes, 0))
}

/// The header extension elements whose ids the leg negotiated.
#[inline]
pub(super) fn known_elements(
    extensions: &ExtensionMap,
    packet: &[u8],
    header: &RtpHeader,
) -> Result<ArrayVec<KnownElement, MAX_ELEMENTS>, DropReason> {
    let mut known = ArrayVec::new();
    let Some(block) = header.extension else { return Ok(known) };
    let mut elements = Elements::new(packet, block);
    for element in elements.by_ref() {
        if let Some(meaning) = extensions.meaning(element.id)
            && !known.is_full()
        {
            known.push(KnownElement { meaning, len: element.len, at: element.at });
        }
    }
    if elements.broken { Err(DropReason::RtpExtension) } else { Ok(known) }
}
