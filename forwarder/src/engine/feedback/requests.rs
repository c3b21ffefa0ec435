//! Requests for key frames, from whoever wants one to the stream's sender.

use arrayvec::ArrayVec;
use sluice_srtp::provider::Provider;
use sluice_table::Kind;

use super::super::event::Event;
use super::super::run::Engine;
use super::super::time::Nanos;
use super::US;
use crate::wire::rtcp::{Compound, nack, report};

/// Receivers that repeat themselves are passed on this often.
const PASS_ON: Nanos = Nanos::from_millis(100);

impl<C: Provider> Engine<C> {
    /// Somebody, perhaps a `new` receiver, wants a key frame of the stream that feeds `list` on a leg owned here.
    pub(in super::super) fn want_key_frame(&mut self, leg: u32, list: u32, new: bool) {
        let wanted = self.legs.get(leg as usize).and_then(|row| row.config.get(self.generation));
        if wanted.is_none_or(|leg| leg.feedback.key_frame.is_none()) {
            return;
        }
        let generation = self.generation;
        let rows = &self.ingress;
        let of_list =
            |slot: &u32| rows[*slot as usize].config.get(generation).is_some_and(|config| config.list == list);
        let Some(slot) = self.feedback.streams.iter(leg).find(of_list) else { return };
        if rows[slot as usize].config.get(generation).is_some_and(|config| config.kind != Kind::Video) {
            return;
        }
        let key_frames = &mut self.feedback.ingress[slot as usize].key_frames;
        key_frames.want(new);
        self.counters.key_frames_wanted += 1;
        let due = key_frames.due().unwrap_or(Nanos(0));
        self.feedback.set_requests(leg, due);
    }

    /// A leg is reached at another address: what its peer sent and was asked for meanwhile went to the old one.
    pub(in super::super) fn path_changed(&mut self, leg: u32) {
        let wanted = self.legs.get(leg as usize).and_then(|row| row.config.get(self.generation));
        if wanted.is_none_or(|leg| leg.feedback.key_frame.is_none()) {
            return;
        }
        let mut at = self.feedback.streams.first(leg);
        while let Some(slot) = at {
            at = self.feedback.streams.after(slot);
            let stream = self.ingress[slot as usize].config.get(self.generation);
            if stream.is_some_and(|stream| stream.kind == Kind::Video && self.carries(stream.list)) {
                let key_frames = &mut self.feedback.ingress[slot as usize].key_frames;
                key_frames.want(false);
                let due = key_frames.due().unwrap_or(Nanos(0));
                self.counters.key_frames_wanted += 1;
                self.feedback.set_requests(leg, due);
            }
        }
    }

    /// Whether anybody receives what feeds a list.
    fn carries(&self, list: u32) -> bool {
        self.lists.get(list as usize).is_some_and(|list| list.workers != 0)
    }

    /// A key frame of a received stream arrived: nobody needs to ask for one any more.
    pub(in super::super) fn key_frame_seen(&mut self, now: Nanos, slot: u32) {
        if self.feedback.ingress[slot as usize].key_frames.seen(now) {
            self.counters.key_frames_saved += 1;
        }
    }

    /// A receiver wants a key frame of what one of its streams carries now.
    pub(super) fn key_frame_for(&mut self, now: Nanos, slot: u32) {
        let row = &self.egress[slot as usize];
        let Some(source) = row.rewriter.source() else { return };
        if row.config.get(self.generation).is_none_or(|config| config.kind != Kind::Video) {
            return;
        }
        let wanted = &mut self.feedback.egress[slot as usize].wanted;
        if wanted.is_some_and(|last| now.since(last) < PASS_ON) {
            return;
        }
        *wanted = Some(now);
        self.emit(Event::KeyFrameWanted { source });
    }

    /// Writes what the leg's streams are asked for; returns its length.
    pub(super) fn write_requests(&mut self, now: Nanos, leg: u32, out: &mut [u8]) -> usize {
        let Some(config) = self.legs[leg as usize].config.get(self.generation) else { return 0 };
        let name = self.feedback.name;
        let mut compound = Compound::new(out);
        // Not every peer takes feedback that stands alone (RFC 4585 §3.1, RFC 5506).
        compound.push(|out| report::write_receiver(out, US, &[]));
        compound.push(|out| report::write_names(out, &[US], &name));
        let head = compound.len();
        let mut next = Nanos::NEVER;
        let mut at = self.feedback.streams.first(leg);
        while let Some(slot) = at {
            at = self.feedback.streams.after(slot);
            let row = &self.ingress[slot as usize];
            let stream = row.config.get(self.generation);
            let feedback = &mut self.feedback.ingress[slot as usize];
            if !config.feedback.nack || stream.is_none_or(|stream| stream.incarnation != row.incarnation) {
                feedback.gaps.clear();
            }
            if feedback.gaps.due() <= now
                && let (Some(stream), Some(receiver)) = (stream, &row.receiver)
            {
                let mut lost = ArrayVec::new();
                let rtt = self.feedback.legs[leg as usize].rtt;
                self.counters.nacks_given_up += feedback.gaps.take(now, rtt, receiver, &mut lost);
                compound.push(|out| {
                    let (len, taken) = nack::write(out, US, stream.ssrc, &lost)?;
                    self.counters.nacks_out += taken as u64;
                    Some(len)
                });
            }
            next = next.min(feedback.gaps.due());
            let key_frames = &mut feedback.key_frames;
            let Some(due) = key_frames.due() else { continue };
            let (Some(how), Some(stream)) = (config.feedback.key_frame, stream) else {
                key_frames.give_up();
                continue;
            };
            if due > now || !compound.push(|out| key_frames.write(now, how, US, stream.ssrc, out)) {
                next = next.min(due);
            } else {
                self.counters.key_frame_requests += 1;
                next = next.min(key_frames.due().unwrap_or(Nanos::NEVER));
            }
        }
        if compound.len() == head {
            next = next.max(now + PASS_ON); // not even room for one
        }
        self.feedback.legs[leg as usize].requests = next;
        if compound.len() > head { compound.len() } else { 0 }
    }
}
