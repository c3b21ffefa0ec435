//! RTCP from a peer, opened and in clear: what it says takes effect here; what control must see is handed up.

use sluice_srtp::Ssrc;
use sluice_srtp::provider::Provider;

use super::super::link::Message as ToWorker;
use super::super::rows::StreamKey;
use super::super::run::Engine;
use super::super::time::Nanos;
use super::anchor::Anchor;
use super::send::ntp_of;
use crate::wire::rtcp::report::{Blocks, SenderInfo};
use crate::wire::rtcp::{Message, Walk};

impl<C: Provider> Engine<C> {
    /// Takes a compound of a leg in. Returns what control should see of it when the leg's reports are made here: what
    /// is neither report nor feedback.
    pub(in super::super) fn take_rtcp(&mut self, now: Nanos, leg: u32, compound: &[u8]) -> Option<Box<[u8]>> {
        let mut foreign = 0;
        for packet in Walk::new(compound) {
            match packet.message() {
                Some(Message::SenderReport { ssrc, info, blocks }) => {
                    self.take_sender_report(now, leg, ssrc, &info);
                    self.take_blocks(now, leg, blocks);
                }
                Some(Message::ReceiverReport { blocks, .. }) => self.take_blocks(now, leg, blocks),
                Some(Message::PictureLoss { media, .. }) => self.asked(now, leg, media),
                Some(Message::FullIntra(fir)) => fir.streams().for_each(|(media, _)| self.asked(now, leg, media)),
                Some(Message::Nack(nack)) => self.take_nack(now, leg, &nack),
                Some(Message::Description | Message::Transport(_) | Message::Remb) => {}
                Some(Message::Other) | None => foreign += packet.whole.len(),
            }
        }
        if foreign == 0 {
            return None;
        }
        let mut handed = Vec::with_capacity(foreign);
        for packet in Walk::new(compound) {
            if matches!(packet.message(), Some(Message::Other) | None) {
                handed.extend_from_slice(packet.whole);
            }
        }
        Some(handed.into_boxed_slice())
    }

    fn asked(&mut self, now: Nanos, leg: u32, media: Ssrc) {
        self.counters.key_frames_asked += 1;
        self.feedback.legs[leg as usize].asks = true;
        if let Some(slot) = self.feedback.outs.get(StreamKey { leg, ssrc: media }) {
            self.key_frame_for(now, slot);
        }
    }

    fn take_sender_report(&mut self, now: Nanos, leg: u32, ssrc: Ssrc, info: &SenderInfo) {
        let Some(slot) = self.known_stream(StreamKey { leg, ssrc }) else { return };
        let Some(config) = self.ingress[slot as usize].config.get(self.generation) else { return };
        self.feedback.ingress[slot as usize].reception.reported(now, info.short_ntp());
        let at = self.feedback.legs[leg as usize].offset.take(info.ntp, now);
        let anchor = Anchor { source: config.source, timestamp: info.timestamp, at };
        self.feedback.anchors.put(anchor);
        // A worker whose queue is full hears of the next one.
        for link in self.links.iter().flatten() {
            link.send(ToWorker::Anchor(anchor));
        }
    }

    fn take_blocks(&mut self, now: Nanos, leg: u32, blocks: Blocks<'_>) {
        for block in blocks.iter() {
            let Some(slot) = self.feedback.outs.get(StreamKey { leg, ssrc: Ssrc(block.ssrc) }) else { continue };
            if block.last_report != 0 {
                let elapsed = ((ntp_of(now) >> 16) as u32).wrapping_sub(block.last_report).wrapping_sub(block.delay);
                // More than half the range is a peer that says it got the report before it was sent.
                if elapsed < 1 << 31 {
                    let rtt = Nanos(u64::from(elapsed) * 1_000_000_000 / 65_536);
                    self.feedback.legs[leg as usize].rtt = Some(rtt);
                }
            }
            let before = std::mem::replace(&mut self.feedback.egress[slot as usize].lost, block.lost);
            // Who cannot say that its picture is broken says what it lost.
            if block.lost > before && block.fraction_lost > 0 && !self.feedback.legs[leg as usize].asks {
                self.key_frame_for(now, slot);
            }
        }
    }

    /// Another worker knows a source's time.
    pub(in super::super) fn take_anchor(&mut self, anchor: Anchor) {
        self.feedback.anchors.put(anchor);
    }
}
