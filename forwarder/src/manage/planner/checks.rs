//! What is refused before anything changes: no room, and keys that must not seal again.

use std::collections::HashMap;

use sluice_table::protocol::{Refusal, Refused};
use sluice_table::{Egress, EntryKind, Ingress, Leg, Name, Store, Table};

use super::Planner;
use super::rows::full;
use super::touched::{Touched, referrers};
use crate::engine::rtcp::KEY_ROW;
use crate::manage::ice::{self};
use crate::manage::indexes::{Direction, Indexes};

impl Planner {
    pub(super) fn check_capacity(&self, next: &Table, touched: &Touched) -> Result<(), Refused> {
        let workers = usize::from(self.config.workers);
        let c = &self.config.capacity;
        let wanted = [
            ("endpoints", next.endpoints.len(), c.endpoints),
            ("legs", next.legs.len(), c.legs * workers),
            ("tuples", self.tuples_during(next, touched), c.tuples),
            ("lists", next.ingress.len() + next.sources.len() + next.learn.len(), c.lists),
        ];
        for (what, used, size) in wanted {
            if used > size {
                return Err(full(what, used, size));
            }
        }
        // A slot given up by this commit is free only after it, so additions must fit beside what is there.
        let add = touched.endpoints.iter().filter(|name| next.endpoints.contains_key(*name));
        let add = add.filter(|name| !self.endpoints.contains_key(*name)).count();
        if add > self.endpoint_slots.free() {
            return Err(full("endpoints", next.endpoints.len(), c.endpoints));
        }
        let homes = self.homes(next, touched)?;
        let home = |leg: &Name| {
            let known = || self.legs.get(leg).map(|leg| usize::from(leg.worker));
            homes.get(leg).copied().or_else(known).unwrap_or(0)
        };
        let mut add = vec![[0usize; 2]; workers];
        let new_in = |row: &&Ingress| !self.ingress.contains_key(&(row.leg.clone(), row.ssrc));
        for row in touched.ingress.iter().filter_map(|name| next.ingress.get(name)).filter(new_in) {
            add[home(&row.leg)][0] += 1;
        }
        let new_out = |row: &&Egress| !self.egress.contains_key(&(row.leg.clone(), row.ssrc));
        for row in touched.egress.iter().filter_map(|name| next.egress.get(name)).filter(new_out) {
            add[home(&row.leg)][1] += 1;
        }
        for (worker, [new_in, new_out]) in add.iter().enumerate() {
            if *new_in > self.ingress_slots[worker].free() {
                return Err(full("ingress streams", next.ingress.len(), c.ingress * workers));
            }
            if *new_out > self.egress_slots[worker].free() {
                return Err(full("egress streams", next.egress.len(), c.egress * workers));
            }
        }
        let new_sources = touched.sources.iter().filter(|name| next.sources.contains_key(*name));
        let new_sources = new_sources.filter(|name| !self.sources.contains_key(*name)).count();
        let new_rules = touched.learn.iter().filter(|name| next.learn.contains_key(*name));
        let new_rules = new_rules.filter(|name| !self.rules.contains_key(*name)).count();
        if add.iter().map(|[new_in, _]| new_in).sum::<usize>() + new_sources + new_rules > self.list_ids.free() {
            let wanted = next.ingress.len() + next.sources.len() + next.learn.len();
            return Err(full("lists", wanted, c.lists));
        }
        Ok(())
    }

    /// Tuples there are while `next` replaces the table: those that go leave after those that come are in.
    fn tuples_during(&self, next: &Table, touched: &Touched) -> usize {
        let new = |(name, leg): (&Name, &Leg)| {
            let learned = self.legs.get(name).and_then(|state| state.remote);
            let slot = self.endpoints.get(&leg.endpoint);
            let tuples = ice::tuples(leg, slot.copied().unwrap_or(0), ice::selected(leg, learned));
            tuples.iter().filter(|tuple| slot.is_none() || !self.tuples.contains_key(tuple)).count()
        };
        self.tuples.len() + touched.legs.iter().filter_map(|name| next.legs.get_key_value(name)).map(new).sum::<usize>()
    }

    /// A static key whose index rows were given up must not seal again (DESIGN §2).
    pub(super) fn check_key_reuse(store: &Store, touched: &Touched, indexes: &dyn Indexes) -> Result<(), Refused> {
        let next = store.table();
        let streams = |leg| referrers(store, EntryKind::Leg, leg, EntryKind::Egress);
        let streams = touched.changed_legs.iter().flat_map(streams).chain(touched.egress.iter().cloned());
        // A key's name is a hash of it: made once a leg, not once a stream.
        let mut keys = HashMap::new();
        for name in streams {
            let Some(row) = next.egress.get(&name) else { continue };
            let lost = *keys.entry(&row.leg).or_insert_with(|| {
                let key = next.legs.get(&row.leg).filter(|leg| !leg.accept_key_reuse)?.outbound.as_ref()?;
                Some((key, key.key_id())).filter(|(_, id)| indexes.lost_rows(*id))
            });
            let Some((key, id)) = lost else { continue };
            if !indexes.has_row(id, row.ssrc, Direction::Send) {
                return Err(Refused::new(
                    Refusal::KeyReuse,
                    format!(
                        "egress {name}: key {} of leg {} was used before and its index row is gone",
                        key.fingerprint(),
                        row.leg
                    ),
                    "give the leg a new key, or set accept_key_reuse = true if the key never sealed this SSRC",
                ));
            }
        }
        // SRTCP is sealed under one counter a key, in the key's own row.
        let legs = touched.changed_legs.iter().filter_map(|name| next.legs.get_key_value(name));
        for (name, leg) in legs.filter(|(_, leg)| !leg.accept_key_reuse) {
            let Some(key) = &leg.outbound else { continue };
            let id = key.key_id();
            if indexes.lost_rows(id) && !indexes.has_row(id, KEY_ROW, Direction::Send) {
                return Err(Refused::new(
                    Refusal::KeyReuse,
                    format!("leg {name}: key {} was used before and its SRTCP index row is gone", key.fingerprint()),
                    "give the leg a new key, or set accept_key_reuse = true if the key never sealed RTCP",
                ));
            }
        }
        Ok(())
    }
}
