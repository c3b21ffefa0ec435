//! What a plan touches: rows to prepare again, slots to give back once it is made.

use std::collections::{BTreeSet, HashSet};

use sluice_srtp::key::KeyId;
use sluice_table::{Change, EntryKind, Name, StreamRole, Table};

use crate::engine::index_store::IndexHandle;

/// Rows whose configuration must be prepared again.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) legs: BTreeSet<Name>,
    pub(super) ingress: HashSet<Name>,
    pub(super) egress: HashSet<Name>,
    /// Legs with a new key: every stream of theirs starts over.
    pub(super) keyed: HashSet<Name>,
}

impl Touched {
    pub(super) fn of(changes: &[Change], old: &Table, next: &Table) -> Self {
        let mut touched = Touched::default();
        for change in changes {
            let (kind, name) = match change {
                Change::Put(name, entry) => (entry.kind(), name),
                Change::Remove(kind, name) => (*kind, name),
                Change::Switch { .. } => continue,
            };
            match kind {
                EntryKind::Leg => {
                    touched.legs.insert(name.clone());
                    // Limits of a leg are limits of its streams.
                    let limits = |table: &Table| table.legs.get(name).map(|leg| leg.limits);
                    if limits(old) != limits(next) {
                        touched
                            .ingress
                            .extend(next.ingress.iter().filter(|(_, r)| r.leg == *name).map(|(n, _)| n.clone()));
                    }
                }
                EntryKind::Endpoint => {
                    touched.legs.extend(next.legs.iter().filter(|(_, l)| l.endpoint == *name).map(|(n, _)| n.clone()));
                }
                EntryKind::Ingress => {
                    touched.ingress.insert(name.clone());
                    // What repairs it knows its SSRC.
                    let repairs = |role: &StreamRole| role.repairs.as_ref().is_some_and(|r| r.stream == *name);
                    touched
                        .ingress
                        .extend(next.ingress.iter().filter(|(_, r)| repairs(&r.role)).map(|(name, _)| name.clone()));
                    touched.legs.extend(next.learn.values().filter(|r| repairs(&r.role)).map(|r| r.leg.clone()));
                    touched
                        .egress
                        .extend(next.egress.iter().filter(|(_, r)| r.source == *name).map(|(n, _)| n.clone()));
                }
                EntryKind::Egress => {
                    touched.egress.insert(name.clone());
                }
                EntryKind::Learn => {
                    let leg = |table: &Table| table.learn.get(name).map(|rule| rule.leg.clone());
                    touched
                        .legs
                        .extend([leg(old), leg(next)].into_iter().flatten().filter(|l| next.legs.contains_key(l)));
                    touched
                        .egress
                        .extend(next.egress.iter().filter(|(_, r)| r.source == *name).map(|(n, _)| n.clone()));
                }
                EntryKind::Source => {}
            }
        }
        touched
    }
}

/// Slots to give back once the plan is made; the next plan is made only after this one was swept.
#[derive(Debug, Default)]
pub(super) struct Freed {
    pub(super) legs: Vec<(u8, u32)>,
    pub(super) ingress: Vec<(u8, u32)>,
    pub(super) egress: Vec<(u8, u32)>,
    pub(super) lists: Vec<u32>,
    pub(super) rows: Vec<IndexHandle>,
    pub(super) keys: Vec<KeyId>,
}
