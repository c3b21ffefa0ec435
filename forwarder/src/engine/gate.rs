//! Whether a receiver gets a packet that a virtual source brings: who may be heard, which layer is forwarded, and
//! from which packet on. Never asked for streams that are subscribed to directly.

use sluice_table::Source;

use super::flow::special;
use super::inputs::Inputs;
use super::rows::{EgressRow, LegRow};
use super::staged::Generation;

/// A layer counts as sent for this long after a packet of it, in milliseconds.
pub(super) const SENT_FOR: u32 = 500;

/// Stands for no list.
const NONE: u32 = u32::MAX;

/// A packet as a virtual source offers it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// What the virtual source carries.
    pub(super) inputs: Inputs,
    /// The packet's place among that.
    pub(super) layer: u8,
    /// Whether a receiver may be switched to the stream with this packet.
    pub(super) key_frame: bool,
    /// The sender's number in its conference; [`NO_MEMBER`] if it has none.
    pub(super) member: u16,
    /// Its source number.
    pub(super) source: u32,
    /// When it is offered, in milliseconds of engine time.
    pub(super) now_ms: u32,
}

/// Stands for the member number of a leg that has none.
pub(super) const NO_MEMBER: u16 = u16::MAX;

/// What becomes of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is forwarded.
    Send,
    /// It is not for this receiver.
    Skip,
    /// It would be forwarded if it started a key frame.
    KeyFrameWanted,
}

/// What one egress stream got of its virtual source so far.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// Which binding of the stream to a source this belongs to.
    binding: u64,
    /// What the source carried when the stream last saw a packet of it.
    lists: [u32; Source::MAX_LAYERS],
    /// When each of them was last offered; 0 is never.
    offered: [u32; Source::MAX_LAYERS],
    epoch: u32,
    /// The list that is forwarded.
    current: u32,
    /// Highest layer wanted.
    wanted: u8,
    /// Whether packets were kept from the receiver since the last one it got.
    interrupted: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            binding: 0,
            lists: [NONE; Source::MAX_LAYERS],
            offered: [0; Source::MAX_LAYERS],
            epoch: 0,
            current: NONE,
            wanted: u8::MAX,
            interrupted: false,
        }
    }
}

impl Gate {
    /// Follows the configuration: another binding starts over, another wish counts from the next packet on.
    pub(super) fn bind(&mut self, binding: u64, layer: Option<u8>) {
        if self.binding != binding {
            *self = Gate { binding, ..Gate::default() };
        }
        self.wanted = layer.unwrap_or(u8::MAX);
    }

    /// Whether the receiver gets nothing of the source yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.current == NONE
    }

    /// Which layer is to be forwarded: the highest one sent that is not above the wish, else the lowest one sent.
    fn target(&self, now_ms: u32) -> Option<u8> {
        let sent = |layer: &u8| {
            let at = self.offered[usize::from(*layer)];
            at != 0 && now_ms.wrapping_sub(at) <= SENT_FOR
        };
        let top = self.wanted.min(Source::MAX_LAYERS as u8 - 1);
        (0..=top).rev().find(sent).or_else(|| (top + 1..Source::MAX_LAYERS as u8).find(sent))
    }

    /// Takes over what the source carries now; what is known of streams it carried before stays.
    #[cold]
    fn follow(&mut self, inputs: &Inputs) {
        let before = std::mem::replace(&mut self.lists, [NONE; Source::MAX_LAYERS]);
        let offered = std::mem::take(&mut self.offered);
        for (at, list) in inputs.lists().iter().enumerate() {
            self.lists[at] = *list;
            if let Some(was) = before.iter().position(|l| l == list) {
                self.offered[at] = offered[was];
            }
        }
        if !self.lists.contains(&self.current) {
            self.current = NONE;
        }
    }

    fn choose(&mut self, offer: &Offer) -> Verdict {
        if self.epoch != offer.inputs.epoch {
            self.follow(&offer.inputs);
        }
        let Some(list) = self.lists.get(usize::from(offer.layer)).copied() else { return Verdict::Skip };
        self.offered[usize::from(offer.layer)] = offer.now_ms.max(1);
        if self.target(offer.now_ms) != Some(offer.layer) {
            // The layer before goes on until the switch.
            return if list == self.current { Verdict::Send } else { Verdict::Skip };
        }
        if list == self.current {
            return Verdict::Send;
        }
        if !offer.key_frame {
            return Verdict::KeyFrameWanted;
        }
        self.current = list;
        self.interrupted = true;
        Verdict::Send
    }
}

/// Decides on one offer to one receiver, which is set up for its list.
#[inline(never)]
pub(super) fn decide(row: &mut EgressRow, legs: &[LegRow], offer: &Offer, generation: Generation) -> Verdict {
    let choosy = row.flow.special & special::CHOOSY != 0;
    let leg = if choosy { legs[row.flow.leg as usize].config.get(generation) } else { None };
    let gate = &mut row.gate;
    if leg.is_some_and(|leg| !leg.hears(offer.member)) {
        gate.current = NONE;
        gate.interrupted = true;
        return Verdict::Skip;
    }
    if offer.inputs.is_layered() {
        match gate.choose(offer) {
            Verdict::Send => {}
            withheld => {
                gate.epoch = offer.inputs.epoch;
                return withheld;
            }
        }
    } else if gate.epoch != offer.inputs.epoch {
        gate.interrupted = true;
    }
    gate.epoch = offer.inputs.epoch;
    // What was left out on purpose is not to look like a loss.
    if std::mem::take(&mut gate.interrupted) && row.rewriter.source() == Some(offer.source) {
        row.rewriter.interrupt();
    }
    Verdict::Send
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lists: &[u32], layer: u8, key_frame: bool, now_ms: u32) -> Offer {
        let inputs = Inputs::layers(lists, 1).unwrap();
        Offer { inputs, layer, key_frame, member: NO_MEMBER, source: lists[usize::from(layer)], now_ms }
    }

    #[test]
    fn the_wish_then_lower_then_higher() {
        let mut gate = Gate { offered: [0, 10, 0, 10], ..Gate::default() };
        for (wish, target) in [(None, 3), (Some(3), 3), (Some(2), 1), (Some(1), 1), (Some(0), 1)] {
            gate.bind(0, wish);
            assert_eq!(gate.target(20), Some(target), "{wish:?}");
        }
        assert_eq!(gate.target(10 + SENT_FOR), Some(1));
        assert_eq!(gate.target(11 + SENT_FOR), None);
    }

    #[test]
    fn switches_at_key_frames_only_and_the_old_layer_goes_on() {
        use Verdict::{KeyFrameWanted, Send, Skip};
        let lists = [7, 8];
        let mut gate = Gate::default();
        assert_eq!(gate.choose(&offer(&lists, 0, false, 1)), KeyFrameWanted);
        assert_eq!(gate.choose(&offer(&lists, 0, true, 2)), Send);
        assert_eq!(gate.choose(&offer(&lists, 1, false, 3)), KeyFrameWanted);
        assert_eq!(gate.choose(&offer(&lists, 0, false, 4)), Send);
        assert_eq!(gate.choose(&offer(&lists, 1, true, 5)), Send);
        assert_eq!(gate.choose(&offer(&lists, 0, true, 6)), Skip);
        assert_eq!(gate.choose(&offer(&lists, 1, false, 7)), Send);
        // The high layer stops: the low one comes back at its key frame, once the high one counts as gone.
        assert_eq!(gate.choose(&offer(&lists, 0, true, 7 + SENT_FOR)), Skip);
        assert_eq!(gate.choose(&offer(&lists, 0, false, 8 + SENT_FOR)), KeyFrameWanted);
        assert_eq!(gate.choose(&offer(&lists, 0, true, 9 + SENT_FOR)), Send);
    }

    #[test]
    fn another_binding_starts_over_and_another_wish_does_not() {
        let lists = [7, 8];
        let mut gate = Gate::default();
        gate.bind(3, None);
        assert_eq!(gate.choose(&offer(&lists, 1, true, 5)), Verdict::Send);
        gate.bind(3, Some(0));
        assert_eq!(gate.choose(&offer(&lists, 1, false, 6)), Verdict::Send);
        gate.bind(4, Some(0));
        assert_eq!(gate.choose(&offer(&lists, 1, false, 7)), Verdict::KeyFrameWanted);
    }
}
