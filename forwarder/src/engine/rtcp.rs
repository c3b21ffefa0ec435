//! SRTCP at its leg's owner: packets are opened here and cross to control in clear, control's packets are sealed
//! here under an index that no other packet of the key ever gets.

use sluice_srtp::Ssrc;
use sluice_srtp::job::OpenError;
use sluice_srtp::provider::Provider;
use sluice_srtp::replay::ReplayError;
use sluice_srtp::srtcp::SrtcpReceiver;
use sluice_table::DropReason;

use super::event::Event;
use super::run::Engine;
use crate::wire::be32;

/// Sender SSRCs whose SRTCP indexes a leg keeps; packets of more are refused.
pub const MAX_SENDERS: usize = 16;
/// Largest RTCP packet taken in, in bytes.
const MAX_RTCP: usize = 1_500;

/// SRTCP receive state of a leg, by sender.
#[derive(Debug, Default)]
pub struct RtcpState {
    senders: arrayvec::ArrayVec<(Ssrc, SrtcpReceiver), MAX_SENDERS>,
}

impl<C: Provider> Engine<C> {
    /// Opens an RTCP packet of a leg owned here and hands it up.
    pub(super) fn receive_rtcp(&mut self, packet: &[u8], leg_slot: u32) -> Result<(), DropReason> {
        let row = &mut self.legs[leg_slot as usize];
        let leg = row.config.get(self.generation).ok_or(DropReason::UnknownTuple)?;
        if packet.len() < 8 || packet.len() > MAX_RTCP {
            return Err(DropReason::RtcpHeader);
        }
        let mut clear = [0u8; MAX_RTCP];
        let clear = &mut clear[..packet.len()];
        clear.copy_from_slice(packet);
        let mut len = packet.len();
        if !leg.plain {
            let keys = leg.inbound.as_deref().ok_or(DropReason::SrtcpNoKey)?;
            let sender = Ssrc(be32(packet, 4));
            let (opened, index) = self.crypto.open_rtcp(keys, clear).map_err(|error| match error {
                OpenError::Short => DropReason::SrtcpShort,
                OpenError::Tag | OpenError::Pending => DropReason::SrtcpAuthTag,
                OpenError::Refused => DropReason::SrtcpNoKey,
            })?;
            let senders = &mut row.rtcp.senders;
            let at = match senders.iter().position(|(ssrc, _)| *ssrc == sender) {
                Some(at) => at,
                None if senders.is_full() => return Err(DropReason::LearnFull),
                None => {
                    senders.push((sender, SrtcpReceiver::new()));
                    senders.len() - 1
                }
            };
            let state = &mut senders[at].1;
            state.check(index).map_err(|error| match error {
                ReplayError::Replayed => DropReason::SrtcpReplayed,
                ReplayError::TooOld => DropReason::SrtcpTooOld,
            })?;
            state.accept(index);
            len = opened;
        }
        if !well_formed(&clear[..len]) {
            return Err(DropReason::RtcpHeader);
        }
        let bytes = clear[..len].into();
        self.counters.rtcp_in += 1;
        self.emit(Event::RtcpIn { leg: leg_slot, bytes });
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
