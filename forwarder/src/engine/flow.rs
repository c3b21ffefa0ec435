//! What the egress path needs of one stream and its leg, looked up once per table generation and kept beside the
//! stream's running state, so that a packet touches no configuration. Never valid for another generation.

use sluice_srtp::key::SessionKeys;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::DropReason;

use super::index_store::IndexRow;
use super::ports::PortId;
use super::rows::{EgressConfig, LegConfig, Shape};
use super::staged::Generation;
use crate::io::TX_CAPACITY;
use crate::wire::checksum::PADDING;
use crate::wire::frame::MAX_HEADERS;
use crate::wire::rtp::FIXED_LEN;
use crate::wire::template::Template;

/// Packets at the start of a stream that carry the mid extension even without a receiver report.
pub(super) const MID_PACKETS: u64 = 500;

/// Something that is not a plain copy of the payload behind a fixed header.
pub(super) mod special {
    /// The stream's packets name their mid still.
    pub(crate) const NAMED: u8 = 1;
    /// The leg has no keys on purpose.
    pub(crate) const PLAIN: u8 = 4;
    /// The leg is sent to only while its peer consents.
    pub(crate) const CONSENT: u8 = 8;
    /// The leg is choosy about whom virtual sources bring.
    pub(crate) const CHOOSY: u8 = 32;
    /// Sealed packets are kept.
    pub(crate) const KEPT: u8 = 128;
    /// What is not for the loop over the usual receivers.
    pub(crate) const UNUSUAL: u8 = NAMED | PLAIN | KEPT;
}

/// Which packets a flow is set up for: those of one list that came in with one payload type, under one generation. The
/// context of the stream's rewriter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) generation: Generation,
    pub(super) list: u32,
    pub(super) payload_type: u8,
}

impl Setup {
    pub(super) fn new(generation: Generation, list: u32, payload_type: u8) -> Setup {
        debug_assert!(generation != Generation::NEVER, "what a rewriter starts with");
        Setup { generation, list, payload_type }
    }

    /// The same for packets of another list.
    pub(super) fn of_list(self, list: u32) -> Setup {
        Setup { list, ..self }
    }

    /// As a rewriter keeps it.
    #[inline(always)]
    pub(super) fn context(self) -> [u64; 2] {
        [self.generation.0, u64::from(self.payload_type) << 32 | u64::from(self.list)]
    }
}

/// One egress stream as the packets it is set up for see it. What every packet reads is in the first line; an IPv4 leg's
/// headers end in the second.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Flow {
    keys: *const SessionKeys,
    index: *const IndexRow,
    /// Packets sealed, and their bytes, RTP header and tag included; counts of the stream, not of the set-up.
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Bytes of header extensions among them.
    pub(super) extension_bytes: u64,
    /// The extension blocks that packets to the leg have.
    pub(super) shape: Shape,
    /// SSRC in network order.
    pub(super) ssrc: u32,
    /// Version-free first header word: CSRC count, and the payload type that such packets go out with.
    pub(super) word: u32,
    pub(super) leg: u32,
    /// RTP bytes beside the payload, extensions not counted.
    pub(super) overhead: u16,
    /// Largest RTP packet. With the headers in front and [`PADDING`] behind it is within [`TX_CAPACITY`].
    pub(super) room: u16,
    /// Largest payload with that, extensions not counted.
    pub(super) largest: u16,
    pub(super) header_len: u8,
    pub(super) profile: Profile,
    pub(super) port: PortId,
    pub(super) special: u8,
    pub(super) template: Template,
}

// SAFETY: the pointers lead to configurations of the same engine, which moves between threads as a whole, and to an
// index row, which consists of atomics.
unsafe impl Send for Flow {}

impl Default for Flow {
    fn default() -> Self {
        Flow {
            keys: std::ptr::null(),
            index: std::ptr::null(),
            packets: 0,
            bytes: 0,
            extension_bytes: 0,
            shape: Shape::NONE,
            ssrc: 0,
            word: 0,
            leg: 0,
            overhead: 0,
            room: 0,
            largest: 0,
            header_len: 0,
            profile: Profile::AeadAes128Gcm,
            port: PortId(0),
            special: 0,
            template: Template::default(),
        }
    }
}

impl Flow {
    /// Looks up what packets with `payload_type` need; both configurations must be the ones in force. Says why not if
    /// the leg cannot be sent to.
    pub(super) fn resolve(
        &mut self,
        payload_type: u8,
        config: &EgressConfig,
        leg: &LegConfig,
    ) -> Result<(), DropReason> {
        let no_template = || if leg.remote.is_none() { DropReason::NoRemote } else { DropReason::NoNextHop };
        let template = leg.template.as_ref().ok_or_else(no_template)?;
        let keys = leg.outbound.as_deref();
        if keys.is_none() && !leg.plain {
            return Err(DropReason::NoKey);
        }
        let header_len = FIXED_LEN + usize::from(config.csrc) * 4;
        let overhead = header_len + keys.map_or(0, |keys| keys.profile().rtp_tag_len());
        let room = leg.largest_rtp.min((TX_CAPACITY - MAX_HEADERS - PADDING) as u16);
        let largest = room.checked_sub(overhead as u16).ok_or(DropReason::Mtu)?;
        *self = Flow {
            keys: keys.map_or(std::ptr::null(), std::ptr::from_ref),
            index: config.index.as_ptr(),
            packets: self.packets,
            bytes: self.bytes,
            extension_bytes: self.extension_bytes,
            shape: leg.extensions.shape(),
            ssrc: config.ssrc.0.to_be(),
            word: u32::from(config.csrc) << 24 | u32::from(config.payload_types.map(payload_type)) << 16,
            leg: config.leg,
            overhead: overhead as u16,
            room,
            largest,
            header_len: header_len as u8,
            profile: keys.map_or(Profile::AeadAes128Gcm, SessionKeys::profile),
            port: leg.port,
            special: if self.packets < MID_PACKETS && config.mid.is_some() { special::NAMED } else { 0 }
                | if keys.is_none() { special::PLAIN } else { 0 }
                | if leg.ice.is_some() { special::CONSENT } else { 0 }
                | if leg.is_choosy() { special::CHOOSY } else { 0 }
                | if config.history > 0 && config.rtx.is_none() { special::KEPT } else { 0 },
            template: template.with_dscp(config.dscp),
        };
        Ok(())
    }

    /// The SSRC on the wire.
    #[inline(always)]
    pub(super) fn ssrc(&self) -> Ssrc {
        Ssrc(u32::from_be(self.ssrc))
    }

    /// The leg's keys; `None` on a plain leg.
    ///
    /// # Safety
    /// The generation in force must be the one this was set up for, and stay so for `'s`, which must not outlive a
    /// borrow of the engine's legs: a configuration in force is neither moved nor freed.
    #[inline(always)]
    pub(super) unsafe fn keys<'s>(&self) -> Option<&'s SessionKeys> {
        // SAFETY: as the caller promises.
        unsafe { self.keys.as_ref() }
    }

    /// The keys of a leg that is not plain.
    ///
    /// # Safety
    /// As for [`keys`](Self::keys), and `special` must lack [`special::PLAIN`].
    #[inline(always)]
    pub(super) unsafe fn keys_unchecked<'s>(&self) -> &'s SessionKeys {
        debug_assert!(!self.keys.is_null());
        // SAFETY: as the caller promises; `resolve` leaves no null pointer without that mark.
        unsafe { &*self.keys }
    }

    /// The stream's index row.
    ///
    /// # Safety
    /// The generation in force must be the one this was set up for: the row lives while the configuration does.
    #[inline(always)]
    pub(super) unsafe fn index_row(&self) -> &IndexRow {
        // SAFETY: as the caller promises; `resolve` never leaves a null pointer with a generation.
        unsafe { &*self.index }
    }

    /// Fetches what the next packet of the stream writes and reads besides its row.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(self.index);
        prefetch(self.keys);
    }
}

/// Asks for a cache line; any address is allowed.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
