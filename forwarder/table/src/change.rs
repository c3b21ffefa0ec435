//! The difference between two tables, and applying one. Never validates single rows; [`Table::validate`] does.

use std::collections::BTreeMap;

use crate::model::{Change, Entry, EntryKind, Name, Source, Table};
use crate::validate::Problem;

impl Table {
    /// Rows of all kinds.
    pub fn len(&self) -> usize {
        self.endpoints.len()
            + self.legs.len()
            + self.ingress.len()
            + self.learn.len()
            + self.sources.len()
            + self.egress.len()
    }

    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of one row.
    pub fn get(&self, kind: EntryKind, name: &Name) -> Option<Entry> {
        match kind {
            EntryKind::Endpoint => self.endpoints.get(name).cloned().map(Entry::Endpoint),
            EntryKind::Leg => self.legs.get(name).cloned().map(Entry::Leg),
            EntryKind::Ingress => self.ingress.get(name).cloned().map(Entry::Ingress),
            EntryKind::Learn => self.learn.get(name).cloned().map(Entry::Learn),
            EntryKind::Source => self.sources.get(name).cloned().map(Entry::Source),
            EntryKind::Egress => self.egress.get(name).cloned().map(Entry::Egress),
        }
    }

    /// Whether there is a row of this kind and name.
    pub fn has(&self, kind: EntryKind, name: &Name) -> bool {
        match kind {
            EntryKind::Endpoint => self.endpoints.contains_key(name),
            EntryKind::Leg => self.legs.contains_key(name),
            EntryKind::Ingress => self.ingress.contains_key(name),
            EntryKind::Learn => self.learn.contains_key(name),
            EntryKind::Source => self.sources.contains_key(name),
            EntryKind::Egress => self.egress.contains_key(name),
        }
    }

    /// Adds or replaces one row unchecked; returns the one it replaced.
    pub fn put(&mut self, name: Name, entry: Entry) -> Option<Entry> {
        match entry {
            Entry::Endpoint(row) => self.endpoints.insert(name, row).map(Entry::Endpoint),
            Entry::Leg(row) => self.legs.insert(name, row).map(Entry::Leg),
            Entry::Ingress(row) => self.ingress.insert(name, row).map(Entry::Ingress),
            Entry::Learn(row) => self.learn.insert(name, row).map(Entry::Learn),
            Entry::Source(row) => self.sources.insert(name, row).map(Entry::Source),
            Entry::Egress(row) => self.egress.insert(name, row).map(Entry::Egress),
        }
    }

    /// Removes one row unchecked and returns it.
    pub fn take(&mut self, kind: EntryKind, name: &Name) -> Option<Entry> {
        match kind {
            EntryKind::Endpoint => self.endpoints.remove(name).map(Entry::Endpoint),
            EntryKind::Leg => self.legs.remove(name).map(Entry::Leg),
            EntryKind::Ingress => self.ingress.remove(name).map(Entry::Ingress),
            EntryKind::Learn => self.learn.remove(name).map(Entry::Learn),
            EntryKind::Source => self.sources.remove(name).map(Entry::Source),
            EntryKind::Egress => self.egress.remove(name).map(Entry::Egress),
        }
    }

    /// The changes that turn this table into `new`, ordered so that every reference holds after every step:
    /// egress streams go first, new rows come after what they refer to, and other rows go last.
    pub fn diff(&self, new: &Table) -> Vec<Change> {
        let mut changes = Vec::new();
        removed(&mut changes, EntryKind::Egress, &self.egress, &new.egress);
        put(&mut changes, &self.endpoints, &new.endpoints, Entry::Endpoint);
        put(&mut changes, &self.legs, &new.legs, Entry::Leg);
        put(&mut changes, &self.ingress, &new.ingress, Entry::Ingress);
        put(&mut changes, &self.learn, &new.learn, Entry::Learn);
        for (name, row) in &new.sources {
            match self.sources.get(name) {
                Some(old) if old == row => {}
                Some(old) if Source { input: row.input.clone(), ..old.clone() } == *row => {
                    changes.push(Change::Switch { source: name.clone(), input: row.input.clone() });
                }
                _ => changes.push(Change::Put(name.clone(), Entry::Source(row.clone()))),
            }
        }
        put(&mut changes, &self.egress, &new.egress, Entry::Egress);
        removed(&mut changes, EntryKind::Source, &self.sources, &new.sources);
        removed(&mut changes, EntryKind::Learn, &self.learn, &new.learn);
        removed(&mut changes, EntryKind::Ingress, &self.ingress, &new.ingress);
        removed(&mut changes, EntryKind::Leg, &self.legs, &new.legs);
        removed(&mut changes, EntryKind::Endpoint, &self.endpoints, &new.endpoints);
        changes
    }

    /// Applies changes in order, then validates the result; on a problem the table is left as it was.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Vec<Problem>> {
        let mut undo = Vec::with_capacity(changes.len());
        let mut problems = Vec::new();
        for change in changes {
            let (kind, name) = change.row();
            match change {
                Change::Put(_, entry) => undo.push((kind, name, self.put(name.clone(), entry.clone()))),
                Change::Remove(..) => match self.take(kind, name) {
                    Some(entry) => undo.push((kind, name, Some(entry))),
                    None => problems.push(missing(kind, name, "cannot be removed: there is no such row")),
                },
                Change::Switch { input, .. } => match self.sources.get(name).cloned() {
                    Some(old) => {
                        let switched = Source { input: input.clone(), ..old };
                        undo.push((kind, name, self.put(name.clone(), Entry::Source(switched))));
                    }
                    None => problems.push(missing(kind, name, "cannot be switched: there is no such source")),
                },
            }
        }
        if problems.is_empty() {
            match self.validate() {
                Ok(()) => return Ok(()),
                Err(found) => problems = found,
            }
        }
        for (kind, name, entry) in undo.into_iter().rev() {
            match entry {
                Some(entry) => drop(self.put(name.clone(), entry)),
                None => drop(self.take(kind, name)),
            }
        }
        Err(problems)
    }
}

fn missing(kind: EntryKind, name: &Name, message: &str) -> Problem {
    Problem { kind, name: name.clone(), key: "name".to_owned(), message: message.to_owned() }
}

fn removed<T>(changes: &mut Vec<Change>, kind: EntryKind, old: &BTreeMap<Name, T>, new: &BTreeMap<Name, T>) {
    changes.extend(old.keys().filter(|n| !new.contains_key(*n)).map(|n| Change::Remove(kind, n.clone())));
}

fn put<T: Clone + PartialEq>(
    changes: &mut Vec<Change>,
    old: &BTreeMap<Name, T>,
    new: &BTreeMap<Name, T>,
    wrap: fn(T) -> Entry,
) {
    for (name, row) in new.iter().filter(|(n, row)| old.get(*n) != Some(row)) {
        changes.push(Change::Put(name.clone(), wrap(row.clone())));
    }
}
