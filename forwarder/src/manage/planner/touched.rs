//! What a plan touches: rows to look at again, slots to give back once it is made. Found from what changed and who
//! refers to it, never by going through a table.

use std::collections::BTreeSet;

use sluice_srtp::key::KeyId;
use sluice_table::{Change, EntryKind, Name, Store, Table, Undo};

use super::Planner;
use crate::engine::index_store::IndexHandle;

/// Rows to look at again, by name; those that are not in the table any more are to go.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Changed rows as they were before.
    pub(super) before: Table,
    /// Legs that changed themselves; others are only prepared again.
    pub(super) changed_legs: BTreeSet<Name>,
    pub(super) endpoints: BTreeSet<Name>,
    pub(super) legs: BTreeSet<Name>,
    pub(super) ingress: BTreeSet<Name>,
    pub(super) learn: BTreeSet<Name>,
    pub(super) sources: BTreeSet<Name>,
    pub(super) egress: BTreeSet<Name>,
    /// Legs with a new key: every stream of theirs starts over.
    pub(super) keyed: BTreeSet<Name>,
}

impl Touched {
    /// What `changes` touch, with the rows they replaced.
    pub(super) fn of(changes: &[Change], before: Table, store: &Store, planner: &Planner) -> Self {
        let mut touched = Touched { before, ..Touched::default() };
        for change in changes {
            let (kind, name) = change.row();
            match kind {
                EntryKind::Endpoint => {
                    touched.endpoints.insert(name.clone());
                    touched.legs.extend(referrers(store, kind, name, EntryKind::Leg));
                }
                EntryKind::Leg => touched.leg(name, store),
                EntryKind::Ingress => {
                    touched.ingress.insert(name.clone());
                    touched.carriers(kind, name, store, planner);
                }
                EntryKind::Learn => {
                    touched.learn.insert(name.clone());
                    touched.carriers(kind, name, store, planner);
                    let rules = [touched.before.learn.get(name), store.table().learn.get(name)];
                    let legs = rules.into_iter().flatten().map(|rule| rule.leg.clone());
                    touched.legs.extend(legs.filter(|leg| store.table().legs.contains_key(leg)));
                }
                EntryKind::Source => {
                    touched.sources.insert(name.clone());
                    let media = |table: &Table| table.sources.get(name).map(|row| (row.kind, row.clock_rate));
                    if media(&touched.before) != media(store.table()) {
                        touched.egress.extend(referrers(store, kind, name, EntryKind::Egress));
                    }
                }
                EntryKind::Egress => {
                    touched.egress.insert(name.clone());
                }
            }
        }
        touched
    }

    fn leg(&mut self, name: &Name, store: &Store) {
        self.legs.insert(name.clone());
        self.changed_legs.insert(name.clone());
        // Limits of a leg are limits of its streams.
        let limits = |table: &Table| table.legs.get(name).map(|leg| leg.limits);
        if limits(&self.before) != limits(store.table()) {
            self.ingress.extend(referrers(store, EntryKind::Leg, name, EntryKind::Ingress));
        }
    }

    /// What carries an ingress stream or a learn rule.
    fn carriers(&mut self, kind: EntryKind, name: &Name, store: &Store, planner: &Planner) {
        self.egress.extend(referrers(store, kind, name, EntryKind::Egress));
        self.sources.extend(referrers(store, kind, name, EntryKind::Source));
        self.sources.extend(planner.selecting.get(name).cloned());
        // What repairs it knows its SSRC or list.
        self.ingress.extend(referrers(store, kind, name, EntryKind::Ingress));
        let rules = referrers(store, kind, name, EntryKind::Learn);
        self.legs.extend(rules.filter_map(|rule| store.table().learn.get(&rule).map(|rule| rule.leg.clone())));
    }

    /// A leg as it was before; `None` if it is new.
    pub(super) fn former_leg<'a>(&'a self, name: &Name, next: &'a Table) -> Option<&'a sluice_table::Leg> {
        if self.changed_legs.contains(name) { self.before.legs.get(name) } else { next.legs.get(name) }
    }

    /// Every stream of a leg with a new key.
    pub(super) fn rekey(&mut self, store: &Store) {
        for leg in &self.keyed {
            self.ingress.extend(referrers(store, EntryKind::Leg, leg, EntryKind::Ingress));
            self.egress.extend(referrers(store, EntryKind::Leg, leg, EntryKind::Egress));
        }
    }

    /// Rows of one change each, from what the rows were before; what did not change is left out.
    pub(super) fn effective(undo: &Undo, next: &Table, mut changes: Vec<Change>) -> (Vec<Change>, Table) {
        let mut before = Table::default();
        let mut rows = undo.rows();
        // The last change of a row is what it became.
        changes.reverse();
        changes.retain(|change| {
            let (kind, name) = change.row();
            let Some(was) = rows.get_mut(&kind).and_then(|rows| rows.remove(name)) else { return false };
            // What was put last is what is there: no need for a copy of it.
            let same = match (change, was) {
                (Change::Put(_, entry), was) => was == Some(entry),
                (Change::Remove(..), was) => was.is_none(),
                (Change::Switch { .. }, was) => next.get(kind, name).as_ref() == was,
            };
            if same {
                return false;
            }
            if let Some(was) = was {
                before.put(name.clone(), was.clone());
            }
            true
        });
        changes.reverse();
        (changes, before)
    }
}

/// Names of the rows of one kind that refer to a row.
pub(super) fn referrers<'a>(
    store: &'a Store,
    kind: EntryKind,
    name: &Name,
    of: EntryKind,
) -> impl Iterator<Item = Name> + 'a {
    let found: Vec<Name> =
        store.referrers(kind, name).filter(|(kind, _)| *kind == of).map(|(_, name)| name.clone()).collect();
    found.into_iter()
}

/// Slots to give back once the plan is made; the next plan is made only after this one was swept.
#[derive(Debug, Default)]
pub(super) struct Freed {
    pub(super) legs: Vec<(u8, u32)>,
    pub(super) ingress: Vec<(u8, u32)>,
    pub(super) egress: Vec<(u8, u32)>,
    pub(super) lists: Vec<u32>,
    pub(super) rows: Vec<IndexHandle>,
    /// Rows that nobody will ask for again.
    pub(super) spent: Vec<IndexHandle>,
    pub(super) keys: Vec<KeyId>,
}
