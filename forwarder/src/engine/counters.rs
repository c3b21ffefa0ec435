//! A worker's counters: plain cumulative numbers with one writer.

use sluice_table::DropReason;

/// Counts of one worker. Every received media packet ends in exactly one of the drop reasons, in `opened`, or in
/// one of the control counts.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Frames looked at.
    pub received: u64,
    /// RTP packets opened.
    pub opened: u64,
    /// RTCP packets handed up.
    pub rtcp_in: u64,
    /// STUN and DTLS packets handed up.
    pub packet_in: u64,
    /// Binding requests answered.
    pub stun_answered: u64,
    /// Consent checks sent.
    pub consent_checks: u64,
    /// Valid responses to consent checks.
    pub consent_renewed: u64,
    /// RTCP packets of control sealed and submitted.
    pub rtcp_out: u64,
    /// Datagrams of control submitted.
    pub packet_out: u64,
    /// Packets handed to the owner of their leg.
    pub stray_out: u64,
    /// Packets taken over from other workers as owner.
    pub stray_in: u64,
    /// Packets sealed and submitted.
    pub sent: u64,
    /// Bytes submitted, headers included.
    pub sent_bytes: u64,
    /// Steps taken.
    pub steps: u64,
    /// Transport-wide feedback messages sent.
    pub transport_out: u64,
    /// Compounds of reports sent.
    pub reports_out: u64,
    /// Compounds of requests sent.
    pub requests_out: u64,
    /// Requests for key frames received from peers.
    pub key_frames_asked: u64,
    /// Requests for key frames that reached the owner of the stream.
    pub key_frames_wanted: u64,
    /// Requests that a key frame made needless.
    pub key_frames_saved: u64,
    /// Requests for key frames sent to peers.
    pub key_frame_requests: u64,
    /// Packets that peers asked for again.
    pub nacks_in: u64,
    /// Packets sent again.
    pub sent_again: u64,
    /// Packets asked for again.
    pub nacks_out: u64,
    /// Lost packets that never came.
    pub nacks_given_up: u64,
    /// Lost packets that came on a repair stream.
    pub repaired: u64,
    drops: [u64; DropReason::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            received: 0,
            opened: 0,
            rtcp_in: 0,
            packet_in: 0,
            stun_answered: 0,
            consent_checks: 0,
            consent_renewed: 0,
            rtcp_out: 0,
            packet_out: 0,
            stray_out: 0,
            stray_in: 0,
            sent: 0,
            sent_bytes: 0,
            steps: 0,
            transport_out: 0,
            reports_out: 0,
            requests_out: 0,
            key_frames_asked: 0,
            key_frames_wanted: 0,
            key_frames_saved: 0,
            key_frame_requests: 0,
            nacks_in: 0,
            sent_again: 0,
            nacks_out: 0,
            nacks_given_up: 0,
            repaired: 0,
            drops: [0; DropReason::COUNT],
        }
    }
}

impl Counters {
    /// Counts one dropped packet.
    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason.index()] += 1;
    }

    /// Counts `n` dropped packets.
    pub fn drop_many(&mut self, reason: DropReason, n: u64) {
        self.drops[reason.index()] += n;
    }

    /// Packets dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// All reasons with at least one drop.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|r| (*r, self.dropped(*r))).filter(|(_, n)| *n > 0)
    }

    /// All drops together.
    pub fn total_dropped(&self) -> u64 {
        self.drops.iter().sum()
    }
}
