//! Why a packet was dropped: one enum shared by the data plane, the protocol and the command line. Never
//! counts anything itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// Why a packet was dropped. Every drop is counted under exactly one of these.
        ///
        /// From the first release on variants are only ever appended: counters and the protocol use their position.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum DropReason {
            $(
                #[doc = $text]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];
            /// How many reasons there are; the size of a counter array.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The stable name used in counters, traces and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// One line for an operator.
            pub const fn description(self) -> &'static str {
                match self { $(DropReason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    Truncated "truncated" "shorter than its own headers say";
    BadIp "bad_ip" "IP header invalid, a fragment, or a wrong header checksum";
    BadUdp "bad_udp" "UDP length or checksum invalid";
    NotOurs "not_ours" "not addressed to a media endpoint";
    ZeroLength "zero_length" "UDP datagram without payload";
    FirstByte "first_byte" "first byte names no protocol of RFC 7983";
    RtpHeader "rtp_header" "RTP header, CSRC list or padding longer than the packet";
    RtpExtension "rtp_extension" "RTP header extension malformed (RFC 8285)";
    RtcpHeader "rtcp_header" "RTCP header or a length in the compound malformed";
    StunMalformed "stun_malformed" "STUN message malformed or its fingerprint wrong";
    UnknownTuple "unknown_tuple" "media from an address that belongs to no leg";
    UnknownSsrc "unknown_ssrc" "SSRC is neither listed nor matched by a learn rule";
    PayloadType "payload_type" "payload type not allowed for the stream";
    PolicedLeg "policed_leg" "the leg sent more than its limits allow";
    PolicedStream "policed_stream" "the stream sent more than its limits allow";
    LearnBudget "learn_budget" "unlisted SSRCs failed to authenticate too often; the leg's learn budget is spent";
    LearnFull "learn_full" "the leg, or the forwarder, has no room for another learned stream";
    Replayed "replayed" "a packet with this index was received before";
    TooOld "too_old" "index lies behind the replay window";
    AuthTag "auth_tag" "SRTP authentication tag does not match";
    NoKey "no_key" "the leg has no key for this direction";
    PendingExpired "pending_expired" "waited for keys longer than allowed, or newer packets took its place";
    SourceSpoofed "source_spoofed" "authenticated stream came from an address that is not the leg's";
    NoReceiver "no_receiver" "opened, but nothing subscribes to the stream";
    DeadlineAudio "deadline_audio" "audio waited longer than 60 ms for transmit room";
    DeadlineVideo "deadline_video" "video waited longer than 200 ms for transmit room";
    TxFull "tx_full" "no free transmit frame";
    SlabFull "slab_full" "no free slot for an opened packet";
    QueueFull "queue_full" "queue to another worker or to control is full";
    StrayOverflow "stray_overflow" "arrived at the wrong worker and the owner's queue is full";
    Mtu "mtu" "larger than the route's MTU after optional extensions were left out";
    NoNextHop "no_next_hop" "no route or no neighbour entry for the destination";
    IndexReissued "index_reissued" "send index was already used under this key";
    IndexExhausted "index_exhausted" "the key reached its last packet index; it must be replaced";
    LatePacket "late_packet" "packet of an earlier source that no longer fits into the reserved gap";
    ConsentLost "consent_lost" "the peer has not renewed consent (RFC 7675)";
    NoRemote "no_remote" "the leg's address is not known yet";
    SrtcpAuthTag "srtcp_auth_tag" "SRTCP authentication tag does not match";
    SrtcpReplayed "srtcp_replayed" "SRTCP packet with this index was received before";
    SrtcpTooOld "srtcp_too_old" "SRTCP index lies behind the replay window";
    SrtcpShort "srtcp_short" "shorter than an SRTCP header, index and tag";
    SrtcpNoKey "srtcp_no_key" "RTCP arrived at a leg without a key for this direction";
    SrtcpIndexExhausted "srtcp_index_exhausted" "the key reached its last SRTCP index; it must be replaced";
    PacketInLimited "packet_in_limited" "too many packets for control; the surplus is dropped";
    TxFailed "tx_failed" "the kernel refused to send";
    Removed "removed" "its leg or stream was removed while the packet waited";
    StunIntegrity "stun_integrity" "STUN message whose integrity does not verify, or a response from another address than the one asked";
    KeyFrame "key_frame" "of a layer or source the receiver can only be switched to at a key frame, which it awaits";
    NackUnknown "nack_unknown" "asked for again by a receiver, but not or no longer kept";
    NackLimited "nack_limited" "asked for again by a receiver too often";
    RepairUnneeded "repair_unneeded" "repair packet of a packet that arrived, or that is too old to be forwarded";
    RepairEmpty "repair_empty" "repair packet without a payload: padding that probes for bandwidth";
    RepairUnknown "repair_unknown" "repair packet of a stream or payload type that is not known";
}

impl DropReason {
    /// Position in [`DropReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason at a position.
    pub fn from_index(index: usize) -> Option<DropReason> {
        DropReason::ALL.get(index).copied()
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no [`DropReason`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no drop reason is called {0:?}; `sluice counters` lists them")]
pub struct UnknownReason(pub String);

impl FromStr for DropReason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<DropReason, UnknownReason> {
        DropReason::ALL.iter().copied().find(|r| r.name() == text).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_snake_case_and_reversible() {
        let mut seen = BTreeSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(DropReason::from_index(index), Some(*reason));
            assert!(seen.insert(reason.name()), "{reason} twice");
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert_eq!(reason.name().parse::<DropReason>(), Ok(*reason));
            assert!(!reason.description().is_empty());
        }
        assert_eq!(DropReason::from_index(DropReason::COUNT), None);
        assert!("nonsense".parse::<DropReason>().is_err());
    }
}
