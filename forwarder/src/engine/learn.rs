//! Learned streams: SSRCs that announce themselves by header extension on their first packets (browsers do that
//! for simulcast). Made only by an authenticated packet, from slots set aside, at most sixteen a leg. What a rule made
//! before, in this process or an earlier one, is known by its SSRC alone.

use std::sync::Arc;

use sluice_srtp::provider::Provider;
use sluice_srtp::replay::Receiver;
use sluice_srtp::{PacketIndex, Ssrc};
use sluice_table::DropReason;

use super::event::Event;
use super::index_store::{IndexHandle, IndexRow, PinnedRow};
use super::receive::known_elements;
use super::rows::{IngressConfig, IngressRow, LearnRule, StreamKey, Vec16};
use super::run::Engine;
use super::time::Nanos;
use crate::wire::rtp::RtpHeader;

/// The stream that a rule made before under its leg's key: it is recognised without its extensions and goes on at its
/// indexes.
#[derive(Clone, Debug)]
pub struct KnownStream {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// Where its highest index is kept.
    pub index: PinnedRow,
}

impl PartialEq for KnownStream {
    fn eq(&self, other: &Self) -> bool {
        self.ssrc == other.ssrc && std::ptr::eq(self.index.as_ptr(), other.index.as_ptr())
    }
}

impl Eq for KnownStream {}

/// The row of an SSRC that a rule made a stream of before.
fn known_row(rules: &[LearnRule], ssrc: Ssrc) -> Option<&PinnedRow> {
    rules.iter().filter_map(|rule| rule.known.as_ref()).find(|known| known.ssrc == ssrc).map(|known| &known.index)
}

/// Receive state of an unlisted SSRC: rollover 0 unless it is known.
pub(super) fn unlisted_receiver(rules: &[LearnRule], ssrc: Ssrc) -> Receiver {
    receiver_before(known_row(rules, ssrc).map_or(0, PinnedRow::next))
}

/// Receive state that takes `next`, one past the highest index ever accepted; 0 if none was.
pub(super) fn receiver_before(next: u64) -> Receiver {
    match next.checked_sub(1).and_then(PacketIndex::from_u64) {
        Some(highest) => Receiver::resume(highest),
        None => Receiver::new(0),
    }
}

/// Slots for learned streams: those behind the listed ones.
#[derive(Debug)]
pub(super) struct Learned {
    first: u32,
    free: Vec<u32>,
    /// One a slot, for indexes until the management thread gave the stream a row that outlives the process.
    rows: Vec<PinnedRow>,
    /// Streams learned so far; their numbers as sources.
    made: u32,
}

/// Marks source numbers that a worker gave, apart from those of the planner.
const LEARNED: u32 = 1 << 31;

impl Learned {
    pub(super) fn new(first: u32, count: u32) -> Self {
        let memory: Box<[IndexRow]> = (0..count).map(|_| IndexRow::default()).collect();
        let memory: Arc<dyn super::index_store::IndexMemory> = Arc::new(memory);
        let rows = (0..count).filter_map(|row| Some(IndexHandle::new(Arc::clone(&memory), row)?.pin())).collect();
        Learned { first, free: (0..count).rev().collect(), rows, made: 0 }
    }
}

impl<C: Provider> Engine<C> {
    /// The stream of an SSRC; a learned one only while its rule and key are those it was learned by.
    #[inline(always)]
    pub(super) fn known_stream(&mut self, key: StreamKey) -> Option<u32> {
        let slot = self.streams.get(key)?;
        if slot < self.learned.first {
            return Some(slot);
        }
        if self.is_current(slot) {
            return Some(slot);
        }
        self.forget(slot);
        None
    }

    fn is_current(&self, slot: u32) -> bool {
        let Some(config) = self.ingress[slot as usize].config.get(self.generation) else { return false };
        let leg = self.legs[config.leg as usize].config.get(self.generation);
        leg.is_some_and(|leg| {
            leg.inbound_incarnation == config.incarnation && leg.rules.iter().any(|rule| rule.list == config.list)
        })
    }

    /// Makes a stream of an authenticated packet's SSRC if a rule matches; gives its slot.
    pub(super) fn learn(&mut self, now: Nanos, leg: u32, packet: &[u8], header: &RtpHeader) -> Result<u32, DropReason> {
        let key = StreamKey { leg, ssrc: header.ssrc };
        if let Some(slot) = self.known_stream(key) {
            return Ok(slot); // learned by an earlier packet of this burst
        }
        let row = &mut self.legs[leg as usize];
        let config = row.config.get(self.generation).ok_or(DropReason::Removed)?;
        let elements = known_elements(&config.extensions, packet, header)?;
        let value = |meaning| {
            let element = elements.iter().find(|e| e.meaning == meaning)?;
            let at = usize::from(element.at);
            packet.get(at..at + usize::from(element.len)).and_then(|data| Vec16::try_from(data).ok())
        };
        let stands = |rule: &LearnRule| {
            let config = |slot: &u32| self.ingress[*slot as usize].config.get(self.generation);
            row.learned_streams.iter().filter_map(config).any(|stream| stream.list == rule.list)
        };
        let known = |rule: &&LearnRule| {
            rule.payload_types & (1 << (header.payload_type & 0x7f)) != 0
                && rule.known.as_ref().is_some_and(|known| known.ssrc == header.ssrc)
                && !stands(rule)
        };
        // What a packet says of itself is newer than what is known.
        let matching = config.rules.iter().find(|rule| rule.matches(header.payload_type, value));
        let Some(rule) = matching.or_else(|| config.rules.iter().find(known)) else {
            row.attempts.take(super::admit::ATTEMPTS, 1, now);
            return Err(DropReason::UnknownSsrc);
        };
        let (rule, incarnation) = (rule.clone(), config.inbound_incarnation);
        let receiver = unlisted_receiver(&config.rules, header.ssrc);
        let kept = known_row(&config.rules, header.ssrc).cloned();
        // A rule stands for one stream: the newest SSRC takes the place of the one before.
        let former =
            row.learned_streams.iter().copied().find(|slot| {
                self.ingress[*slot as usize].config.get(self.generation).is_some_and(|c| c.list == rule.list)
            });
        if let Some(former) = former {
            self.forget(former);
        }
        let row = &mut self.legs[leg as usize];
        if row.learned_streams.is_full() {
            return Err(DropReason::LearnFull);
        }
        let spare = self.learned.free.pop().ok_or(DropReason::LearnFull)?;
        let slot = self.learned.first + spare;
        if self.streams.insert(key, slot).is_err() {
            self.learned.free.push(spare);
            return Err(DropReason::LearnFull);
        }
        row.learned_streams.push(slot);
        let index = kept.unwrap_or_else(|| {
            let spare = &self.learned.rows[spare as usize];
            spare.clear();
            spare.clone()
        });
        let stream = &mut self.ingress[slot as usize];
        *stream = IngressRow { incarnation, receiver: Some(receiver), ..IngressRow::default() };
        self.learned.made = self.learned.made.wrapping_add(1);
        let source = LEARNED | (u32::from(self.worker) << 24) | (self.learned.made & 0x00ff_ffff);
        let learned = IngressConfig {
            leg,
            ssrc: header.ssrc,
            list: rule.list,
            source,
            kind: rule.kind,
            payload_types: rule.payload_types,
            byte_rate: rule.byte_rate,
            clock_rate: rule.clock_rate,
            repairs: rule.repairs,
            index,
            resume: 0,
            incarnation,
            announced: rule.announced,
            candidate: rule.candidate,
            learned: true,
        };
        stream.config.set(learned);
        self.feedback.add_ingress(leg, slot);
        self.emit(Event::StreamLearned { leg, rule: rule.list, ssrc: header.ssrc, slot, source, incarnation });
        Ok(slot)
    }

    /// Gives a learned stream the row that its indexes are kept in.
    pub(super) fn keep_index(&mut self, key: StreamKey, source: u32, index: PinnedRow) {
        let Some(slot) = self.streams.get(key).filter(|slot| *slot >= self.learned.first) else { return };
        let row = &mut self.ingress[slot as usize].config;
        let Some(config) = row.get(self.generation).filter(|config| config.source == source) else { return };
        index.take_over(&config.index);
        let config = IngressConfig { index, ..config.clone() };
        row.set(config);
    }

    /// Forgets a learned stream.
    fn forget(&mut self, slot: u32) {
        let Some(config) = self.ingress[slot as usize].config.get(self.generation) else { return };
        let (leg, ssrc, rule) = (config.leg, config.ssrc, config.list);
        self.streams.remove(StreamKey { leg, ssrc });
        self.legs[leg as usize].learned_streams.retain(|s| *s != slot);
        self.ingress[slot as usize] = IngressRow::default();
        self.feedback.remove_ingress(slot);
        self.learned.free.push(slot - self.learned.first);
        self.emit(Event::StreamForgotten { leg, rule, ssrc });
    }

    /// Has a learned stream be what its rule says now.
    fn renew(&mut self, slot: u32) {
        let Some(config) = self.ingress[slot as usize].config.get(self.generation) else { return };
        let leg = self.legs[config.leg as usize].config.get(self.generation);
        let Some(rule) = leg.and_then(|leg| leg.rules.iter().find(|rule| rule.list == config.list)) else { return };
        if (config.announced, config.candidate) != (rule.announced, rule.candidate) {
            let config = IngressConfig { announced: rule.announced, candidate: rule.candidate, ..config.clone() };
            self.ingress[slot as usize].config.set(config);
        }
    }

    /// Forgets the streams of a leg whose rule or key is gone.
    pub(super) fn forget_outdated(&mut self, leg: u32) {
        for slot in self.legs[leg as usize].learned_streams.clone() {
            if self.is_current(slot) {
                self.renew(slot);
            } else {
                self.forget(slot);
            }
        }
    }
}
