//! A packet as all its receivers see it, prepared once before the walk over them. Never changes what it was made of.

use sluice_srtp::Seq;

use super::super::cell::{Cell, Meta};
use super::super::flow::{Flow, Setup};
use super::super::gate::Offer;
use super::super::inputs::Inputs;
use super::super::rewrite::{Incoming, Ticket};
use super::super::staged::Generation;
use super::extensions::Block;

/// A packet as every receiver sees it.
#[derive(Debug)]
pub(super) struct Packet<'s> {
    pub(super) incoming: Incoming,
    pub(super) payload: &'s [u8],
    /// First header word without what the receiver decides.
    pub(super) word: u32,
    /// SSRC for the CSRC list in network order.
    pub(super) source: u32,
    /// What a receiver must be set up for to get it.
    pub(super) setup: Setup,
    /// What it shows to those that are.
    pub(super) ticket: Ticket,
    /// Its header extensions for the receivers of one shape.
    pub(super) block: Block,
    /// How the virtual source that is walked offers it.
    pub(super) offer: Option<Offer>,
    pub(super) cell: &'s Cell,
}

impl<'s> Packet<'s> {
    pub(super) fn of(cell: &'s Cell, generation: Generation) -> Self {
        let meta = &cell.meta;
        let Meta { source, index, timestamp, arrival, .. } = *meta;
        let incoming = Incoming { source, index, timestamp, arrival };
        let setup = Setup::new(generation, meta.list, meta.payload_type);
        Packet {
            setup,
            ticket: Ticket::new(setup.context(), &incoming),
            incoming,
            payload: &cell.payload[..usize::from(meta.payload_len)],
            word: (0x80 | u32::from(meta.padding) << 5) << 24 | u32::from(meta.marker) << 23,
            source: meta.announced.0.to_be(),
            block: Block::NONE,
            offer: None,
            cell,
        }
    }

    /// Sets the packet up for the receivers of `list`: its own, or that of a virtual source that carries it.
    pub(super) fn offer(&mut self, list: u32, of: Option<(Inputs, u8)>, now_ms: u32) {
        let meta = &self.cell.meta;
        self.setup = self.setup.of_list(list);
        self.ticket = Ticket::new(self.setup.context(), &self.incoming);
        self.offer = of.map(|(inputs, layer)| Offer {
            inputs,
            layer,
            key_frame: meta.key_frame,
            member: meta.member,
            source: meta.source,
            now_ms,
        });
    }

    /// Writes the fixed header and a CSRC as one receiver gets them; `extended` is the bit for extensions.
    ///
    /// # Safety
    /// `rtp` must be writable for 16 bytes. The CSRC's place is payload when there is none, and is written over then.
    #[inline(always)]
    pub(super) unsafe fn write_header(&self, rtp: *mut u8, flow: &Flow, extended: u32, seq: Seq, timestamp: u32) {
        let word = self.word | extended | flow.word | u32::from(seq.0);
        let words = rtp.cast::<[u8; 4]>();
        // SAFETY: the four words the caller promises.
        unsafe {
            words.write(word.to_be_bytes());
            words.add(1).write(timestamp.to_be_bytes());
            words.add(2).write(flow.ssrc.to_ne_bytes());
            words.add(3).write(self.source.to_ne_bytes());
        }
    }
}
