//! The groups of a table: follows its candidates and slots, takes levels in, says what slots are to carry. Never
//! gives a command; the planner makes one commit of what is said here.

use std::collections::{BTreeSet, HashMap};

use sluice_table::{Change, Entry, EntryKind, Name};

use crate::engine::Nanos;
use crate::select::group::Group;

/// Every group, by name.
#[derive(Debug, Default)]
pub struct Selection {
    groups: HashMap<Name, Group<Name, Name>>,
    /// The group of each candidate, and of each source.
    candidates: HashMap<Name, Name>,
    slots: HashMap<Name, Name>,
    /// Groups in which something can change by time alone.
    active: BTreeSet<Name>,
}

impl Selection {
    /// Follows a table that changed.
    pub fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(name, Entry::Ingress(row)) => self.candidate(name, row.role.candidate.as_ref()),
                Change::Put(name, Entry::Learn(row)) => self.candidate(name, row.role.candidate.as_ref()),
                Change::Remove(EntryKind::Ingress | EntryKind::Learn, name) => self.candidate(name, None),
                Change::Put(name, Entry::Source(row)) => self.slot(name, row.select.as_ref()),
                Change::Remove(EntryKind::Source, name) => self.slot(name, None),
                Change::Put(..) | Change::Remove(..) | Change::Switch { .. } => {}
            }
        }
    }

    fn candidate(&mut self, name: &Name, group: Option<&Name>) {
        if self.candidates.get(name) == group {
            return;
        }
        if let Some(old) = self.candidates.remove(name) {
            self.with(&old, |group| group.remove(name));
        }
        if let Some(group) = group {
            self.candidates.insert(name.clone(), group.clone());
        }
    }

    fn slot(&mut self, name: &Name, group: Option<&Name>) {
        if self.slots.get(name) == group {
            return;
        }
        if let Some(old) = self.slots.remove(name) {
            self.with(&old, |group| group.remove_slot(name));
        }
        if let Some(group) = group {
            self.slots.insert(name.clone(), group.clone());
            self.with(group, |group| group.add_slot(name.clone()));
        }
    }

    fn with(&mut self, name: &Name, work: impl FnOnce(&mut Group<Name, Name>)) {
        let group = self.groups.entry(name.clone()).or_default();
        work(group);
        if group.is_empty() {
            self.groups.remove(name);
            self.active.remove(name);
        } else {
            self.active.insert(name.clone());
        }
    }

    /// Takes a stream's level in; one that competes for nothing is ignored.
    pub fn heard(&mut self, stream: &Name, level: u8, now: Nanos) {
        let Some(group) = self.candidates.get(stream) else { return };
        if let Some(found) = self.groups.get_mut(group) {
            found.report(stream.clone(), level, now);
            if !self.active.contains(group) {
                self.active.insert(group.clone());
            }
        }
    }

    /// Whether a tick would do nothing.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// The sources that are to carry something else from now on, and what.
    pub fn tick(&mut self, now: Nanos) -> Vec<(Name, Option<Name>)> {
        let mut changes = Vec::new();
        let groups = &mut self.groups;
        self.active.retain(|name| {
            let Some(group) = groups.get_mut(name) else { return false };
            changes.extend(group.tick(now));
            !group.is_idle()
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use sluice_srtp::Ssrc;
    use sluice_table::{Ingress, Kind, Source, StreamRole};

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn source(slot: &str, group: Option<&str>) -> Change {
        let row =
            Source { kind: Kind::Audio, clock_rate: 48_000, input: None, layers: Vec::new(), select: group.map(name) };
        Change::Put(name(slot), Entry::Source(row))
    }

    fn stream(stream: &str, group: Option<&str>) -> Change {
        let role = StreamRole { candidate: group.map(name), ..StreamRole::default() };
        let row = Ingress {
            leg: name("leg"),
            ssrc: Ssrc(1),
            kind: Kind::Audio,
            clock_rate: 48_000,
            payload_types: vec![1],
            role,
        };
        Change::Put(name(stream), Entry::Ingress(row))
    }

    #[test]
    fn groups_follow_the_table() {
        let mut selection = Selection::default();
        let now = Nanos::from_millis(5_000);
        selection.follow(&[source("s0", Some("g")), stream("a", Some("g")), stream("b", Some("other"))]);
        selection.heard(&name("a"), 40, now);
        selection.heard(&name("b"), 30, now);
        selection.heard(&name("nobody"), 30, now);
        assert_eq!(selection.tick(now), [(name("s0"), Some(name("a")))]);
        assert_eq!(selection.tick(now), []);
        // Put again as it was: nothing changes. Moved to another group: it leaves this one.
        selection.follow(&[stream("a", Some("g")), source("s0", Some("g"))]);
        assert_eq!(selection.tick(now), []);
        selection.follow(&[stream("a", None), stream("b", Some("g"))]);
        selection.heard(&name("b"), 30, now);
        assert_eq!(selection.tick(now), [(name("s0"), Some(name("b")))]);
        selection
            .follow(&[Change::Remove(EntryKind::Source, name("s0")), Change::Remove(EntryKind::Ingress, name("b"))]);
        assert_eq!(selection.tick(now), []);
        assert!(selection.is_idle() && selection.groups.is_empty());
    }
}
