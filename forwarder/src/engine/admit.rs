//! Ingress up to the cipher: whose packet it is, whether it is policed, and what opening it needs. Changes nothing that an
//! unauthenticated packet may not change.

use sluice_srtp::job::OpenError;
use sluice_srtp::provider::Provider;
use sluice_table::DropReason;
use sluice_table::protocol::PacketInReason;

use super::cell::{HEADER_ROOM, PAYLOAD_ROOM};
use super::early;
use super::learn::{receiver_before, unlisted_receiver};
use super::link::Message;
use super::police::Rate;
use super::receive::{Candidate, Input, Path, replay_reason};
use super::rows::{StreamKey, TupleKey, TupleOwner};
use super::run::Engine;
use super::time::Nanos;
use crate::wire::frame::{Class, classify};
use crate::wire::rtp::{self, RtpError, RtpHeader};

impl<C: Provider> Engine<C> {
    /// Everything that can be decided without a key. `Ok(None)` means the packet went elsewhere.
    pub(super) fn admit<'a>(&mut self, now: Nanos, input: &Input<'a>) -> Result<Option<Candidate<'a>>, DropReason> {
        let packet = input.payload;
        let class = classify(packet);
        let key = TupleKey { endpoint: input.endpoint, remote: input.remote };
        let Some(owner) = self.owner_of(key, class, packet) else {
            return self.unknown(now, input, class);
        };
        if owner.worker != self.worker {
            return self.hand_over(input, owner);
        }
        let generation = self.generation;
        let row = &mut self.legs[owner.leg as usize];
        let Some(leg) = row.config.get(generation) else { return Err(DropReason::UnknownTuple) };
        match input.path {
            Path::Fast => row.stats.fast += 1,
            Path::Slow => row.stats.slow += 1,
            Path::Stray => row.stats.stray += 1,
        }
        row.stats.bytes += packet.len() as u64;
        // STUN has limits of its own: a flood of media must not cost the leg its consent.
        if class == Class::Stun {
            let result = self.receive_stun(now, input, owner.leg);
            self.legs[owner.leg as usize].stats.dropped += u64::from(result.is_err());
            return result.map(|()| None);
        }
        if !row.packets.take(leg.packet_rate, 1, now) || !row.bytes.take(leg.byte_rate, packet.len() as u64, now) {
            row.stats.dropped += 1;
            return Err(DropReason::PolicedLeg);
        }
        if matches!(class, Class::Rtp | Class::Rtcp) && (early::waits(leg) || self.early.holds(owner.leg)) {
            let result = self.keep_early(now, input, owner.leg, class);
            self.legs[owner.leg as usize].stats.dropped += u64::from(result.is_err());
            return result.map(|()| None);
        }
        match class {
            Class::Rtp => {}
            Class::Rtcp => return self.receive_rtcp(now, packet, owner.leg).map(|()| None),
            Class::Stun | Class::Dtls => {
                return self.packet_in(now, input, Some(owner.leg), PacketInReason::Dtls).map(|()| None);
            }
            Class::Other => {
                row.stats.dropped += 1;
                return Err(if packet.is_empty() { DropReason::ZeroLength } else { DropReason::FirstByte });
            }
        }
        let result = self.admit_rtp(now, input, owner);
        if result.is_err() {
            self.legs[owner.leg as usize].stats.dropped += 1;
        }
        result.map(Some)
    }

    pub(super) fn admit_rtp<'a>(
        &mut self,
        now: Nanos,
        input: &Input<'a>,
        owner: TupleOwner,
    ) -> Result<Candidate<'a>, DropReason> {
        let packet = input.payload;
        let header = rtp::parse(packet).map_err(rtp_reason)?;
        let key = StreamKey { leg: owner.leg, ssrc: header.ssrc };
        let Some(slot) = self.known_stream(key) else { return self.admit_unlisted(now, input, owner, header) };
        let generation = self.generation;
        let leg_row = &mut self.legs[owner.leg as usize];
        let leg = leg_row.config.get(generation).ok_or(DropReason::UnknownTuple)?;
        if leg.remote.is_none() {
            match leg_row.learned {
                Some(learned) if learned == input.remote => {}
                Some(_) => return Err(DropReason::SourceSpoofed),
                None if leg_row.attempts.take(ATTEMPTS, 1, now) => {}
                None => return Err(DropReason::LearnBudget),
            }
        }
        let row = &mut self.ingress[slot as usize];
        let config = row.config.get(generation).ok_or(DropReason::UnknownSsrc)?;
        if config.payload_types & (1 << header.payload_type) == 0 {
            row.dropped += 1;
            return Err(DropReason::PayloadType);
        }
        if !row.bytes.take(config.byte_rate, packet.len() as u64, now) {
            row.dropped += 1;
            return Err(DropReason::PolicedStream);
        }
        if header.len > HEADER_ROOM || packet.len() - header.len > PAYLOAD_ROOM {
            return Err(DropReason::RtpHeader);
        }
        let profile = match (&leg.inbound, leg.plain) {
            (_, true) => None,
            (Some(keys), false) => Some(keys.profile()),
            (None, false) => return Err(DropReason::NoKey),
        };
        if row.incarnation != config.incarnation || row.receiver.is_none() {
            row.incarnation = config.incarnation;
            row.receiver = Some(receiver_before(config.resume));
        }
        let Some(receiver) = &row.receiver else { return Err(DropReason::UnknownSsrc) };
        let index = receiver.estimate(header.seq);
        receiver.check(index).map_err(replay_reason)?;
        let cell = self.slab.take().ok_or(DropReason::SlabFull)?;
        Ok(Candidate {
            packet,
            frame: input.frame,
            remote: input.remote,
            arrived: now,
            header,
            leg: owner.leg,
            ingress: slot,
            index,
            cell,
            profile,
            result: Err(OpenError::Pending),
        })
    }

    /// A packet of an SSRC that is not listed: opened if a learn rule could match it, at rollover 0 unless the SSRC is
    /// known (DESIGN §2).
    fn admit_unlisted<'a>(
        &mut self,
        now: Nanos,
        input: &Input<'a>,
        owner: TupleOwner,
        header: RtpHeader,
    ) -> Result<Candidate<'a>, DropReason> {
        let row = &mut self.legs[owner.leg as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::UnknownTuple)?;
        if !leg.rules.iter().any(|rule| rule.payload_types & (1 << header.payload_type) != 0) {
            return Err(DropReason::UnknownSsrc);
        }
        if header.len > HEADER_ROOM || input.payload.len() - header.len > PAYLOAD_ROOM {
            return Err(DropReason::RtpHeader);
        }
        let profile = match &leg.inbound {
            _ if leg.plain => None,
            Some(keys) => Some(keys.profile()),
            None => return Err(DropReason::NoKey),
        };
        let receiver = unlisted_receiver(&leg.rules, header.ssrc);
        let index = receiver.estimate(header.seq);
        receiver.check(index).map_err(replay_reason)?;
        if !row.attempts.take(ATTEMPTS, 1, now) {
            return Err(DropReason::LearnBudget);
        }
        let cell = self.slab.take().ok_or(DropReason::SlabFull)?;
        Ok(Candidate {
            packet: input.payload,
            frame: input.frame,
            remote: input.remote,
            arrived: now,
            index,
            header,
            leg: owner.leg,
            ingress: UNLISTED,
            cell,
            profile,
            result: Err(OpenError::Pending),
        })
    }

    /// Who owns a tuple. A leg that is still learning its address is found by SSRC instead.
    fn owner_of(&self, key: TupleKey, class: Class, packet: &[u8]) -> Option<TupleOwner> {
        if let Some(row) = self.tuples.get(key)
            && let Some(owner) = self.tuple_rows[row as usize].get(self.generation)
        {
            return Some(*owner);
        }
        if self.listeners.is_empty() || class != Class::Rtp || packet.len() < rtp::FIXED_LEN {
            return None;
        }
        let ssrc = crate::wire::be32(packet, 8);
        self.listeners.iter().find(|l| l.endpoint == key.endpoint && l.ssrc.0 == ssrc).map(|l| l.owner)
    }

    /// A packet of a tuple that belongs to no leg: STUN and DTLS go up, the rest ends here.
    fn unknown<T>(&mut self, now: Nanos, input: &Input<'_>, class: Class) -> Result<Option<T>, DropReason> {
        match class {
            Class::Stun => {
                super::stun::message::Message::parse(input.payload).map_err(|_| DropReason::StunMalformed)?;
                self.packet_in(now, input, None, PacketInReason::StunUnknown).map(|()| None)
            }
            Class::Dtls => self.packet_in(now, input, None, PacketInReason::Dtls).map(|()| None),
            Class::Rtp | Class::Rtcp => Err(DropReason::UnknownTuple),
            Class::Other if input.payload.is_empty() => Err(DropReason::ZeroLength),
            Class::Other => Err(DropReason::FirstByte),
        }
    }

    /// Gives a packet to its leg's owner as it came.
    fn hand_over<T>(&mut self, input: &Input<'_>, owner: TupleOwner) -> Result<Option<T>, DropReason> {
        if input.path == Path::Stray || input.payload.len() > PAYLOAD_ROOM {
            return Err(DropReason::StrayOverflow); // never handed on twice
        }
        let cell = self.slab.take().ok_or(DropReason::SlabFull)?;
        self.slab.write(cell).payload[..input.payload.len()].copy_from_slice(input.payload);
        let message =
            Message::Stray { cell, len: input.payload.len() as u16, endpoint: input.endpoint, remote: input.remote };
        let link = self.links.get(usize::from(owner.worker)).and_then(Option::as_deref);
        if link.is_some_and(|link| link.send(message)) {
            self.counters.stray_out += 1;
            Ok(None) // the owner holds the cell now
        } else {
            self.slab.release(cell);
            Err(DropReason::StrayOverflow)
        }
    }
}

/// How often a packet may be opened on the mere chance that it belongs to a leg (DESIGN §2).
pub(super) const ATTEMPTS: Rate = Rate::per_second(50, Nanos::from_millis(1_000));

/// Stands for the slot of a stream that is not listed.
pub(super) const UNLISTED: u32 = u32::MAX;

pub(super) fn rtp_reason(error: RtpError) -> DropReason {
    match error {
        RtpError::Truncated => DropReason::Truncated,
        RtpError::Header => DropReason::RtpHeader,
    }
}
