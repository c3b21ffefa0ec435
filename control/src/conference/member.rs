//! One participant as a conference keeps it. Never decides anything.

use std::time::Instant;

use sluice_table::{Hears, Ice, Name};

use super::{Connection, Description, ParticipantId, Path, Subscription};

/// A participant of a conference.
#[derive(Debug)]
pub(super) struct Member {
    /// Its number; the bit it has in the others' sets.
    pub(super) number: u16,
    pub(super) description: Box<Description>,
    pub(super) connection: Option<Box<Connection>>,
    /// Members it agrees to.
    pub(super) allows: Hears,
    /// Members that agree to it as it does to them.
    pub(super) hears: Hears,
    /// What it wants on its slots.
    pub(super) wants: Vec<Option<Subscription>>,
    pub(super) deadline: Instant,
    pub(super) names: Names,
}

impl Member {
    /// Takes keys and addresses; false if no leg can be made of them.
    pub(super) fn connect(&mut self, mut connection: Box<Connection>) -> bool {
        tidy(&mut connection.ice);
        let usable = !connection.ice.tuples.is_empty();
        if usable {
            self.connection = Some(connection);
        }
        usable
    }

    /// Takes addresses; false if it has no leg or no leg can be made of them.
    pub(super) fn relocate(&mut self, mut path: Path) -> bool {
        tidy(&mut path.ice);
        match &mut self.connection {
            Some(connection) if !path.ice.tuples.is_empty() => {
                connection.endpoint = path.endpoint;
                connection.ice = path.ice;
                true
            }
            _ => false,
        }
    }

    /// Whether others can be sent its picture.
    pub(super) fn publishes(&self) -> bool {
        self.connection.is_some() && self.description.video.is_some()
    }
}

/// No tuple twice and not more than a leg may have.
fn tidy(ice: &mut Ice) {
    let mut kept = Vec::with_capacity(ice.tuples.len().min(Ice::MAX_TUPLES));
    for tuple in &ice.tuples {
        if !kept.contains(tuple) && kept.len() < Ice::MAX_TUPLES {
            kept.push(*tuple);
        }
    }
    ice.tuples = kept;
}

/// Names of a participant's rows.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) leg: Name,
    pub(super) audio: Name,
    pub(super) video: Name,
}

impl Names {
    pub(super) fn new(conference: u64, participant: ParticipantId) -> Names {
        let leg = format!("c{conference}/{participant}");
        Names { audio: name(&format!("{leg}/a")), video: name(&format!("{leg}/v")), leg: name(&leg) }
    }

    /// A layer's ingress stream or learn rule.
    pub(super) fn layer(&self, layer: usize) -> Name {
        name(&format!("{}{layer}", self.video))
    }

    /// The stream or rule that repairs a layer.
    pub(super) fn repair(&self, layer: usize) -> Name {
        name(&format!("{}{layer}r", self.video))
    }

    /// The stream sent on an audio slot.
    pub(super) fn audio_slot(&self, slot: usize) -> Name {
        name(&format!("{}/to/a{slot}", self.leg))
    }

    /// The stream sent on a video slot.
    pub(super) fn video_slot(&self, slot: usize) -> Name {
        name(&format!("{}/to/v{slot}", self.leg))
    }
}

/// A name made of numbers and fixed letters only, so that it needs no check.
pub(super) fn name(text: &str) -> Name {
    Name(text.into())
}
