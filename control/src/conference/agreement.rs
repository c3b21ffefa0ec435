//! Who agrees to exchange media with whom, and when legs are told. Never decides who is in a conference.

use std::time::Instant;

use sluice_table::Hears;

use super::core::Conference;
use super::{Action, ParticipantId};

impl Conference {
    /// It agrees to `allows` and to `peers`; says with whom it agrees mutually now and did not before.
    pub(super) fn authorise(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        mut allows: Hears,
        peers: &[ParticipantId],
        actions: &mut Vec<Action>,
    ) {
        let Some(member) = self.members.get(&participant) else { return };
        let number = member.number;
        for peer in peers.iter().filter(|peer| **peer != participant).filter_map(|peer| self.members.get(peer)) {
            allows.insert(peer.number);
        }
        let changed: Vec<u16> = differing(&member.allows, &allows).collect();
        let mut agreed = Vec::new();
        let mut affected = Vec::new();
        for other in changed {
            let Some(id) = self.holder(other) else { continue };
            let Some(peer) = self.members.get_mut(&id) else { continue };
            if !peer.allows.contains(number) {
                continue;
            }
            if allows.contains(other) {
                peer.hears.insert(number);
                agreed.push(id);
            } else {
                peer.hears.remove(number);
            }
            affected.push((id, other, allows.contains(other)));
        }
        let Some(member) = self.members.get_mut(&participant) else { return };
        for (_, other, agreed) in &affected {
            if *agreed { member.hears.insert(*other) } else { member.hears.remove(*other) }
        }
        member.allows = allows;
        let ended = affected.len() > agreed.len();
        for (id, _, agreed) in &affected {
            if self.limits.settle.is_zero() || !agreed {
                self.refresh_leg(*id);
            }
            self.refresh_pair(participant, *id);
            self.refresh_pair(*id, participant);
        }
        if self.limits.settle.is_zero() || ended {
            self.refresh_leg(participant);
        } else if !agreed.is_empty() {
            self.unsettled.insert(participant);
        }
        if !self.limits.settle.is_zero() && !agreed.is_empty() {
            self.unsettled.extend(&agreed);
            self.settles.get_or_insert(now + self.limits.settle);
        }
        if ended {
            self.commit(actions);
        } else {
            self.soon(now, actions);
        }
        actions.extend(agreed.into_iter().map(|peer| Action::Agreed(participant, peer)));
    }

    /// Tells every leg of the agreements that waited.
    pub(super) fn settle(&mut self) {
        self.settles = None;
        for participant in std::mem::take(&mut self.unsettled) {
            self.refresh_leg(participant);
        }
    }
}

/// Members set in exactly one of two sets.
fn differing<'a>(one: &'a Hears, other: &'a Hears) -> impl Iterator<Item = u16> + 'a {
    let words = one.words().len().max(other.words().len());
    let word = |set: &Hears, at: usize| set.words().get(at).copied().unwrap_or(0);
    (0..words).flat_map(move |at| set_bits(at, word(one, at) ^ word(other, at)))
}

/// Members of a set.
pub(super) fn bits(set: &Hears) -> impl Iterator<Item = u16> + '_ {
    set.words().iter().enumerate().flat_map(|(at, word)| set_bits(at, *word))
}

fn set_bits(at: usize, mut word: u64) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros();
        word &= word - 1;
        Some((at * 64) as u16 + bit as u16)
    })
}
