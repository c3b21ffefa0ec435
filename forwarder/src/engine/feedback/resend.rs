//! Answers to receivers that ask for packets again: on the repair stream under an index of its own (RFC 4588), else the
//! stored sealed bytes as they were.

use sluice_srtp::job::SealJob;
use sluice_srtp::provider::Provider;
use sluice_srtp::window::SentSequence;
use sluice_srtp::{PacketIndex, Ssrc};
use sluice_table::DropReason;

use super::super::outgoing::{self, Failure, Outgoing};
use super::super::police::Rate;
use super::super::ports::Ports;
use super::super::rows::{EgressConfig, EgressRow, LegConfig, LegRow, RtxConfig, StreamKey};
use super::super::run::Engine;
use super::super::time::Nanos;
use super::super::transmit::write_extensions;
use super::OutFeedback;
use super::history::KeptKey;
use crate::io::TX_CAPACITY;
use crate::wire::rtcp::nack::Nack;
use crate::wire::rtp::FIXED_LEN;

/// Packets sent to a leg again at most.
const AGAIN: Rate = Rate::per_second(400, Nanos::from_millis(250));

impl<C: Provider> Engine<C> {
    /// A receiver asks for packets of a stream again.
    pub(super) fn take_nack(&mut self, now: Nanos, leg: u32, nack: &Nack<'_>) {
        let Some(slot) = self.feedback.outs.get(StreamKey { leg, ssrc: nack.media }) else { return };
        for seq in nack.lost() {
            self.counters.nacks_in += 1;
            if !self.feedback.legs[leg as usize].again.take(AGAIN, 1, now) {
                self.counters.drop(DropReason::NackLimited);
                continue;
            }
            self.queue_outgoing(Outgoing::Again { leg, slot, seq });
        }
    }

    /// Sends a packet again.
    pub(in super::super) fn send_again<P: Ports>(
        &mut self,
        now: Nanos,
        (leg, slot, seq): (u32, u32, u16),
        ports: &mut P,
    ) -> Result<(), Failure> {
        let leg_row = &self.legs[leg as usize];
        let config = leg_row.config.get(self.generation).ok_or(DropReason::Removed)?;
        let row = &self.egress[slot as usize];
        let stream = row.config.get(self.generation).filter(|c| c.leg == leg).ok_or(DropReason::Removed)?;
        if !leg_row.ice.may_send(now) {
            return Err(DropReason::ConsentLost.into());
        }
        let highest = row.window.end().wrapping_sub(1);
        let behind = (highest as u16).wrapping_sub(seq);
        if row.packets() == 0 || behind >= stream.history || u64::from(behind) > highest {
            return Err(DropReason::NackUnknown.into());
        }
        let index = highest - u64::from(behind);
        let way = outgoing::way(config, None)?;
        let mut frame = ports.acquire(way.port).ok_or(Failure::NoFrame)?;
        let start = way.template.len();
        let room = &mut frame[start..start + way.room];
        let written = if let Some(rtx) = &stream.rtx {
            let feedback = &mut self.feedback.egress[slot as usize];
            let kept = row
                .rewriter
                .origin(index, row.window.end())
                .and_then(|(source, index)| self.feedback.history.get(KeptKey::Clear(source, index)));
            kept.ok_or(DropReason::NackUnknown).and_then(|cell| {
                let repair = Repair { now, leg_row, leg: config, row, stream, rtx, seq };
                repair.write(&mut self.crypto, feedback, cell, room)
            })
        } else {
            let kept = self.feedback.history.get(KeptKey::Sealed(slot, stream.incarnation, seq));
            kept.ok_or(DropReason::NackUnknown).and_then(|cell| {
                let packet = &cell.payload[..usize::from(cell.meta.payload_len)];
                room.get_mut(..packet.len()).ok_or(DropReason::Mtu)?.copy_from_slice(packet);
                Ok(packet.len())
            })
        };
        outgoing::submit(&way, frame, written, stream.dscp, ports)?;
        self.counters.sent_again += 1;
        Ok(())
    }
}

/// One packet for a repair stream.
struct Repair<'a> {
    now: Nanos,
    leg_row: &'a LegRow,
    leg: &'a LegConfig,
    row: &'a EgressRow,
    stream: &'a EgressConfig,
    rtx: &'a RtxConfig,
    seq: u16,
}

impl Repair<'_> {
    fn write<C: Provider>(
        &self,
        crypto: &mut C,
        feedback: &mut OutFeedback,
        cell: &super::super::cell::Cell,
        room: &mut [u8],
    ) -> Result<usize, DropReason> {
        let Repair { now, leg_row, leg, row, stream, rtx, seq } = *self;
        let meta = &cell.meta;
        let payload_type = stream.payload_types.map(meta.payload_type);
        let payload_type = rtx.payload_types.find(payload_type).ok_or(DropReason::NackUnknown)?;
        let tag = leg.outbound.as_ref().map_or(0, |keys| keys.profile().rtp_tag_len());
        let payload = &cell.payload[..usize::from(meta.payload_len)];
        let mut header_len = FIXED_LEN + usize::from(stream.csrc) * 4;
        let len = header_len + 2 + payload.len() + tag;
        if len > room.len() {
            return Err(DropReason::Mtu);
        }
        let identity = (rtx.ssrc, stream.incarnation);
        if feedback.repair.as_ref().is_none_or(|(known, _)| *known != identity) {
            let first = PacketIndex::from_u64(rtx.first_index).ok_or(DropReason::IndexExhausted)?;
            feedback.repair = Some((identity, SentSequence::new(first)));
        }
        let (_, sequence) = feedback.repair.as_mut().ok_or(DropReason::Removed)?;
        let index = sequence.issue().ok_or(DropReason::IndexExhausted)?;
        // The row is ahead of the seal: the index is never used again.
        rtx.index.store_next(index.index().as_u64() + 1);
        room[0] = 0x80 | u8::from(meta.padding) << 5 | u8::from(stream.csrc);
        room[1] = u8::from(meta.marker) << 7 | payload_type;
        room[2..4].copy_from_slice(&index.index().seq().0.to_be_bytes());
        let timestamp = meta.timestamp.wrapping_add(row.rewriter.timestamp_offset());
        room[4..8].copy_from_slice(&timestamp.to_be_bytes());
        room[8..12].copy_from_slice(&rtx.ssrc.0.to_be_bytes());
        if stream.csrc {
            room[12..16].copy_from_slice(&csrc(meta).0.to_be_bytes());
        }
        let mid = stream.mid.as_ref().map(|mid| mid.as_bytes());
        let free = room.len() - len;
        let block = write_extensions(&mut room[header_len..], &leg_row.transport_seq, leg, cell, mid, now, free);
        if block > 0 {
            room[0] |= 0x10;
            header_len += block;
        }
        let mut plain = [0; TX_CAPACITY];
        let plain = &mut plain[..2 + payload.len()];
        plain[..2].copy_from_slice(&seq.to_be_bytes());
        plain[2..].copy_from_slice(payload);
        let packet = &mut room[..len + block];
        match leg.outbound.as_deref() {
            Some(keys) => {
                crypto.seal(&mut [SealJob { keys, ssrc: rtx.ssrc, index, plain, frame: packet, header_len }]);
            }
            None => packet[header_len..].copy_from_slice(plain),
        }
        Ok(len + block)
    }
}

/// Whom receivers are told a packet is from.
fn csrc(meta: &super::super::cell::Meta) -> Ssrc {
    meta.announced
}
