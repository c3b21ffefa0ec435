//! What happens to a conference and what follows from it.

use std::time::Instant;

use sluice_table::Change;

use super::{Connection, Description, DescriptionError, ParticipantId, Path};

/// What happens to a conference. Events of a participant that is not in it change nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A participant comes in; it has no leg yet.
    Join {
        /// Who; a number never used before.
        participant: ParticipantId,
        /// What it sends and takes.
        description: Box<Description>,
        /// It is removed then, unless [`Event::Alive`] says otherwise.
        deadline: Instant,
    },
    /// Its transport is up.
    Connected {
        /// Who.
        participant: ParticipantId,
        /// Keys and addresses.
        connection: Box<Connection>,
    },
    /// It is reached elsewhere now, or by other tuples.
    Moved {
        /// Who.
        participant: ParticipantId,
        /// Where.
        path: Box<Path>,
    },
    /// It gave a sign of life.
    Alive {
        /// Who.
        participant: ParticipantId,
        /// It is removed then.
        deadline: Instant,
    },
    /// It agrees to exchange media with exactly these; media flows between two that agree to each other.
    Authorise {
        /// Who.
        participant: ParticipantId,
        /// With whom; itself and those not in the conference are left out.
        peers: Vec<ParticipantId>,
    },
    /// It agrees to exchange media with these as well.
    AuthoriseMore {
        /// Who.
        participant: ParticipantId,
        /// With whom; itself and those not in the conference are left out.
        peers: Vec<ParticipantId>,
    },
    /// What it wants on its video slots, all of them; those beyond its slots are left out.
    Subscribe {
        /// Who.
        participant: ParticipantId,
        /// One entry a slot.
        slots: Vec<Option<Subscription>>,
    },
    /// It goes.
    Leave {
        /// Who.
        participant: ParticipantId,
    },
    /// Time passed.
    Tick,
}

/// What a participant wants on a video slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Whose picture; one that is not in the conference leaves the slot empty.
    pub publisher: ParticipantId,
    /// Which encoding of it.
    pub quality: Quality,
}

/// Which encoding of a picture is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quality {
    /// The best there is.
    #[default]
    Any,
    /// The lowest.
    Low,
    /// The highest.
    High,
}

impl Quality {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Quality::Any => "any",
            Quality::Low => "low",
            Quality::High => "high",
        }
    }
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// One transaction of the forwarder's table.
    Table(Vec<Change>),
    /// Two participants agree to each other now and did not before.
    Agreed(ParticipantId, ParticipantId),
    /// A participant was removed because its deadline passed.
    TimedOut(ParticipantId),
    /// A participant was not let in.
    Refused(ParticipantId, Refusal),
}

/// Why a participant is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many are in as the limits allow.
    #[error("the conference is full ({0} participants)")]
    Full(usize),
    /// It is in already.
    #[error("the participant is in the conference already")]
    Present,
    /// No rows can be made of what it sends and takes.
    #[error(transparent)]
    Description(#[from] DescriptionError),
}
