//! What the egress path needs of one stream and its leg, looked up once per table generation and kept beside the
//! stream's running state, so that a packet touches no configuration. Never valid for another generation.

use sluice_srtp::key::SessionKeys;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::DropReason;

use super::index_store::IndexRow;
use super::ports::PortId;
use super::rows::{EgressConfig, LegConfig, PayloadTypeMap};
use super::staged::Generation;
use crate::io::TX_CAPACITY;
use crate::wire::checksum::PADDING;
use crate::wire::frame::MAX_HEADERS;
use crate::wire::rtp::FIXED_LEN;
use crate::wire::template::Template;

/// Something that is not a plain copy of the payload behind a fixed header.
pub(super) mod special {
    /// The leg inserts header extensions of its own.
    pub(crate) const INSERTS: u8 = 1;
    /// The packet carries header extensions.
    pub(crate) const CARRIES: u8 = 2;
    /// The leg has no keys on purpose.
    pub(crate) const PLAIN: u8 = 4;
    /// The leg is sent to only while its peer consents.
    pub(crate) const CONSENT: u8 = 8;
    /// A virtual source brings the packet.
    pub(crate) const VIRTUAL: u8 = 16;
    /// The leg is choosy about whom virtual sources bring.
    pub(crate) const CHOOSY: u8 = 32;
    /// Sealed packets are kept.
    pub(crate) const KEPT: u8 = 128;
}

/// One egress stream as the packets of one generation see it. What every packet reads fills the first line; an IPv4
/// leg's headers end in the second.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Flow {
    pub(super) generation: Generation,
    keys: *const SessionKeys,
    index: *const IndexRow,
    /// Bytes sealed, RTP header and tag included; a count of the stream, not of the generation.
    pub(super) bytes: u64,
    pub(super) list: u32,
    /// SSRC in network order.
    pub(super) ssrc: u32,
    /// Version-free first header word: CSRC count, and the payload type that `payload_type` goes out as.
    pub(super) word: u32,
    pub(super) leg: u32,
    /// RTP bytes beside the payload, extensions not counted.
    pub(super) overhead: u16,
    /// Largest RTP packet. With the headers in front and [`PADDING`] behind it is within [`TX_CAPACITY`].
    pub(super) room: u16,
    /// The payload type in that `word` is for; above 127 before the first packet.
    pub(super) payload_type: u8,
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
            generation: Generation::NEVER,
            keys: std::ptr::null(),
            index: std::ptr::null(),
            bytes: 0,
            list: 0,
            ssrc: 0,
            word: 0,
            leg: 0,
            overhead: 0,
            room: 0,
            payload_type: u8::MAX,
            header_len: 0,
            profile: Profile::AeadAes128Gcm,
            port: PortId(0),
            special: 0,
            template: Template::default(),
        }
    }
}

impl Flow {
    /// Looks up what packets of `generation` need; both configurations must be the ones in force then. Says why not
    /// if the leg cannot be sent to.
    pub(super) fn resolve(
        &mut self,
        generation: Generation,
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
        let tag = keys.map_or(0, |keys| keys.profile().rtp_tag_len());
        *self = Flow {
            generation,
            keys: keys.map_or(std::ptr::null(), std::ptr::from_ref),
            index: config.index.as_ptr(),
            bytes: self.bytes,
            list: config.list,
            ssrc: config.ssrc.0.to_be(),
            word: u32::from(config.csrc) << 24,
            leg: config.leg,
            overhead: (header_len + tag) as u16,
            room: leg.largest_rtp.min((TX_CAPACITY - MAX_HEADERS - PADDING) as u16),
            payload_type: u8::MAX,
            header_len: header_len as u8,
            profile: keys.map_or(Profile::AeadAes128Gcm, SessionKeys::profile),
            port: leg.port,
            special: if leg.extensions.inserts { special::INSERTS } else { 0 }
                | if keys.is_none() { special::PLAIN } else { 0 }
                | if leg.ice.is_some() { special::CONSENT } else { 0 }
                | if leg.is_choosy() { special::CHOOSY } else { 0 }
                | if config.history > 0 && config.rtx.is_none() { special::KEPT } else { 0 },
            template: template.with_dscp(config.dscp),
        };
        Ok(())
    }

    /// Sets `word` up for packets that come in with `payload_type`.
    #[cold]
    pub(super) fn take_payload_type(&mut self, payload_type: u8, map: &PayloadTypeMap) {
        self.word = (self.word & 0xff00_0000) | (u32::from(map.map(payload_type)) << 16);
        self.payload_type = payload_type;
    }

    /// The SSRC on the wire.
    #[inline(always)]
    pub(super) fn ssrc(&self) -> Ssrc {
        Ssrc(u32::from_be(self.ssrc))
    }

    /// The leg's keys; `None` on a plain leg.
    ///
    /// # Safety
    /// The generation in force must be the one this was resolved for, and stay so for `'s`, which must not outlive a
    /// borrow of the engine's legs: a configuration in force is neither moved nor freed.
    #[inline(always)]
    pub(super) unsafe fn keys<'s>(&self) -> Option<&'s SessionKeys> {
        // SAFETY: as the caller promises.
        unsafe { self.keys.as_ref() }
    }

    /// The stream's index row.
    ///
    /// # Safety
    /// The generation in force must be the one this was resolved for: the row lives while the configuration does.
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
