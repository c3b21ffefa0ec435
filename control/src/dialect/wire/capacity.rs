//! What the forwarder has room for, and what calls take of it at most. Never asks the forwarder.

use std::ops::{AddAssign, SubAssign};

use sluice_table::protocol::Capacity;

use crate::conference::{Description, Layer};

/// Places in the forwarder's pools: what there is, or what something takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// Legs.
    pub legs: u64,
    /// Streams received that are known by SSRC.
    pub ingress: u64,
    /// Streams received that rules find.
    pub learned: u64,
    /// Streams sent.
    pub egress: u64,
    /// Lists of receivers: one for each stream received, rule and source.
    pub lists: u64,
}

impl Pools {
    /// What a forwarder says it has. What it does not speak of has no bound.
    pub fn of_forwarder(capacity: &[Capacity]) -> Pools {
        let limit = |what: &str| capacity.iter().find(|row| row.what == what).map_or(u64::MAX, |row| row.limit);
        Pools {
            legs: limit("legs"),
            ingress: limit("ingress streams"),
            learned: limit("learned streams"),
            egress: limit("egress streams"),
            lists: limit("lists"),
        }
    }

    /// What a participant takes when every slot is in use and every layer arrives.
    pub(super) fn of(description: &Description) -> Pools {
        let mut pools = Pools { legs: 1, ..Pools::default() };
        pools.ingress += u64::from(description.audio.is_some());
        if let Some(video) = &description.video {
            let repaired = !video.rtx_payload_types.is_empty();
            for layer in &video.layers {
                match layer {
                    Layer::Rid(_) => pools.learned += 1 + u64::from(repaired),
                    Layer::Ssrc { rtx, .. } => pools.ingress += 1 + u64::from(repaired && rtx.is_some()),
                }
            }
            pools.lists += 1;
        }
        pools.lists += pools.ingress + pools.learned;
        pools.egress += (description.slots.audio.len() + description.slots.video.iter().flatten().count()) as u64;
        pools
    }

    /// What a client will probably take that was offered so many slots.
    pub(super) fn expected(audio: usize, video: usize, simulcast: bool) -> Pools {
        let (ingress, learned) = if simulcast { (1, 4) } else { (3, 0) };
        Pools { legs: 1, ingress, learned, egress: (audio + video) as u64, lists: ingress + learned + 1 }
    }

    /// The first of the pools, by name, that has no room for `more` beside what is taken.
    pub(super) fn lacks(&self, taken: &Pools, more: &Pools) -> Option<&'static str> {
        let fits = |limit: u64, taken: u64, more: u64| taken.saturating_add(more) <= limit;
        [
            ("legs", fits(self.legs, taken.legs, more.legs)),
            ("ingress", fits(self.ingress, taken.ingress, more.ingress)),
            ("learned", fits(self.learned, taken.learned, more.learned)),
            ("egress", fits(self.egress, taken.egress, more.egress)),
            ("lists", fits(self.lists, taken.lists, more.lists)),
        ]
        .into_iter()
        .find_map(|(name, fits)| (!fits).then_some(name))
    }
}

impl AddAssign for Pools {
    fn add_assign(&mut self, more: Pools) {
        self.legs += more.legs;
        self.ingress += more.ingress;
        self.learned += more.learned;
        self.egress += more.egress;
        self.lists += more.lists;
    }
}

impl SubAssign for Pools {
    fn sub_assign(&mut self, less: Pools) {
        self.legs -= less.legs;
        self.ingress -= less.ingress;
        self.learned -= less.learned;
        self.egress -= less.egress;
        self.lists -= less.lists;
    }
}
