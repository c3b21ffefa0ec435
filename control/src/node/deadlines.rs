//! When each participant wants to be woken. One entry each; never reads a clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::conference::ParticipantId;

/// Deadlines in order.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    order: BTreeSet<(Instant, ParticipantId)>,
    at: HashMap<ParticipantId, Instant>,
}

impl Deadlines {
    /// Sets or clears a participant's deadline.
    pub(super) fn set(&mut self, participant: ParticipantId, deadline: Option<Instant>) {
        let old = match deadline {
            Some(deadline) => self.at.insert(participant, deadline),
            None => self.at.remove(&participant),
        };
        if old == deadline {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, participant));
        }
        if let Some(deadline) = deadline {
            self.order.insert((deadline, participant));
        }
    }

    /// The next deadline of all.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out a participant whose deadline has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<ParticipantId> {
        let (at, participant) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.set(participant, None);
        Some(participant)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_deadline_each_and_in_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::default();
        deadlines.set(ParticipantId(1), Some(at(30)));
        deadlines.set(ParticipantId(2), Some(at(20)));
        deadlines.set(ParticipantId(1), Some(at(10)));
        deadlines.set(ParticipantId(3), Some(at(10)));
        deadlines.set(ParticipantId(3), None);
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop(at(9)), None);
        assert_eq!(deadlines.pop(at(25)), Some(ParticipantId(1)));
        assert_eq!(deadlines.pop(at(25)), Some(ParticipantId(2)));
        assert_eq!((deadlines.pop(at(99)), deadlines.next()), (None, None));
    }
}
