//! SRTCP at its leg's owner: packets are opened here and cross to control in clear, control's packets are sealed
//! here under an index that no other packet of the key ever gets.

use sluice_srtp::Ssrc;
use sluice_srtp::job::OpenError;
use sluice_srtp::provider::Provider;
use sluice_srtp::replay::ReplayError;
use sluice_srtp::srtcp::SrtcpReceiver;
use sluice_table::DropReason;

use super::event::Event;
use super::index_store::PinnedRow;
use super::rows::StreamKey;
use super::run::Engine;
use super::time::Nanos;
use crate::wire::be32;

/// Sender SSRCs whose SRTCP indexes a leg keeps; packets of more are refused.
pub const MAX_SENDERS: usize = 16;
/// Largest RTCP packet taken in, in bytes.
const MAX_RTCP: usize = 1_500;

/// SSRC of the row that every key has for what belongs to no stream. A stream of that SSRC may share it: the two use
/// different words.
pub const KEY_ROW: Ssrc = Ssrc(0);

/// Where a leg's SRTCP indexes are kept.
#[derive(Debug, Default)]
pub struct RtcpConfig {
    /// Row of the key to the peer: one counter for all senders of the key, so that none is ever used twice.
    pub send: Option<PinnedRow>,
    /// Row of the key from the peer.
    pub receive: Option<PinnedRow>,
    /// Changes when receive state must start over (another key from the peer).
    pub incarnation: u64,
}

/// SRTCP receive state of a leg, by sender.
#[derive(Debug, Default)]
pub struct RtcpState {
    incarnation: u64,
    senders: arrayvec::ArrayVec<(Ssrc, SrtcpReceiver), MAX_SENDERS>,
}

impl<C: Provider> Engine<C> {
    /// Opens an RTCP packet of a leg owned here and hands it up.
    pub(super) fn receive_rtcp(&mut self, now: Nanos, packet: &[u8], leg_slot: u32) -> Result<(), DropReason> {
        let row = &self.legs[leg_slot as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::UnknownTuple)?;
        if packet.len() < 8 || packet.len() > MAX_RTCP {
            return Err(DropReason::RtcpHeader);
        }
        let reports = leg.feedback.reports;
        let mut clear = [0u8; MAX_RTCP];
        let clear = &mut clear[..packet.len()];
        clear.copy_from_slice(packet);
        let mut len = packet.len();
        if !leg.plain {
            let keys = leg.inbound.as_deref().ok_or(DropReason::SrtcpNoKey)?;
            let (opened, index) = self.crypto.open_rtcp(keys, clear).map_err(|error| match error {
                OpenError::Short => DropReason::SrtcpShort,
                OpenError::Tag | OpenError::Pending => DropReason::SrtcpAuthTag,
                OpenError::Refused => DropReason::SrtcpNoKey,
            })?;
            self.accept_rtcp(leg_slot, Ssrc(be32(packet, 4)), index)?;
            len = opened;
        }
        if !well_formed(&clear[..len]) {
            return Err(DropReason::RtcpHeader);
        }
        let clear = &clear[..len];
        self.legs[leg_slot as usize].stats.last_authenticated = now;
        let bytes = if reports {
            self.take_rtcp(now, leg_slot, clear)
        } else {
            self.take_rtcp(now, leg_slot, clear);
            Some(clear.into())
        };
        if let Some(bytes) = bytes {
            self.counters.rtcp_in += 1;
            self.emit(Event::RtcpIn { leg: leg_slot, bytes });
        }
        Ok(())
    }

    /// Takes an authenticated packet's index, once. Listed streams keep theirs in their own row; of the other senders
    /// one can be kept across processes, the rest start over with it.
    fn accept_rtcp(&mut self, leg_slot: u32, sender: Ssrc, index: u32) -> Result<(), DropReason> {
        let row = &mut self.legs[leg_slot as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::UnknownTuple)?;
        if row.rtcp.incarnation != leg.rtcp.incarnation {
            row.rtcp = RtcpState { incarnation: leg.rtcp.incarnation, ..RtcpState::default() };
        }
        let stream = self.streams.get(StreamKey { leg: leg_slot, ssrc: sender });
        let listed = stream.and_then(|slot| self.ingress[slot as usize].config.get(self.generation)).map(|s| &s.index);
        let key_row = leg.rtcp.receive.as_ref();
        let senders = &mut row.rtcp.senders;
        let at = match senders.iter().position(|(ssrc, _)| *ssrc == sender) {
            Some(at) => at,
            None if senders.is_full() => return Err(DropReason::LearnFull),
            None => {
                let kept = || key_row.and_then(PinnedRow::unlisted).filter(|(ssrc, _)| *ssrc == sender);
                let next = listed.map(PinnedRow::rtcp_next).or_else(|| Some(u64::from(kept()?.1))).unwrap_or(0);
                let state = next.checked_sub(1).map_or(SrtcpReceiver::new(), |last| SrtcpReceiver::resume(last as u32));
                senders.push((sender, state));
                senders.len() - 1
            }
        };
        let state = &mut senders[at].1;
        state.check(index).map_err(|error| match error {
            ReplayError::Replayed => DropReason::SrtcpReplayed,
            ReplayError::TooOld => DropReason::SrtcpTooOld,
        })?;
        state.accept(index);
        let next = state.highest().map_or(0, |highest| highest + 1);
        match (listed, key_row) {
            (Some(row), _) => row.store_rtcp_next(u64::from(next)),
            (None, Some(row)) if row.unlisted().is_none_or(|(ssrc, _)| ssrc == sender) => {
                row.store_unlisted(sender, next);
            }
            (None, _) => {}
        }
        Ok(())
    }
}

/// Whether a compound packet's lengths add up (RFC 3550 §6.1, RFC 5506 allows reduced size).
pub fn well_formed(mut packet: &[u8]) -> bool {
    while !packet.is_empty() {
        if packet.len() < 4 || packet[0] >> 6 != 2 {
            return false;
        }
        let len = 4 * (usize::from(u16::from_be_bytes([packet[2], packet[3]])) + 1);
        let Some(rest) = packet.get(len..) else { return false };
        packet = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compound_lengths_must_add_up() {
        let report = [0x80, 201, 0, 1, 1, 2, 3, 4];
        assert!(well_formed(&report));
        assert!(well_formed(&[report, report].concat()));
        for len in 1..8 {
            assert!(!well_formed(&report[..len]));
        }
        assert!(!well_formed(&[0x40, 201, 0, 0]));
    }
}
