//! What learn rules stand for: kept with the indexes of each stream, so that a forwarder which is started again knows a
//! stream whose sender no longer announces it. A key of its own makes a stream another one.

use sluice_srtp::Ssrc;
use sluice_srtp::key::KeyId;
use sluice_table::protocol::Refused;
use sluice_table::{Learn, Name};

use super::Planner;
use super::rows::no_row;
use super::touched::Freed;
use crate::engine::Command;
use crate::engine::index_store::IndexHandle;
use crate::engine::learn::KnownStream;
use crate::manage::indexes::{Direction, Indexes};

/// What a worker learned.
#[derive(Clone, Copy, Debug)]
pub struct Learned {
    /// The worker.
    pub worker: u8,
    /// The leg's slot there.
    pub leg: u32,
    /// The list of the rule that matched.
    pub rule: u32,
    /// The SSRC it stands for now.
    pub ssrc: Ssrc,
    /// The stream's number as a source.
    pub source: u32,
    /// Incarnation of the key it was opened with.
    pub incarnation: u64,
}

/// A rule's stream.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    ssrc: Ssrc,
    row: IndexHandle,
    incarnation: u64,
    /// Whether its leg was prepared with it: the worker may use the row until the leg is prepared again.
    staged: bool,
    /// Row of a stream before this one that the leg is still prepared with.
    former: Option<IndexHandle>,
}

impl Remembered {
    /// Its rows.
    pub(super) fn rows(self) -> impl Iterator<Item = IndexHandle> {
        [Some(self.row), self.former].into_iter().flatten()
    }
}

impl Planner {
    /// Notes what a rule stands for now. Gives the command by which the worker keeps the stream's indexes where they
    /// outlive the process; `None` if it does already, or if rule, leg or key are others by now. Never called between a
    /// plan and its flip: rows that the plan let go are in use until then.
    pub fn remember(&mut self, stream: &Learned, indexes: &mut dyn Indexes) -> Option<Command> {
        let Learned { worker, leg, rule, ssrc, source, incarnation } = *stream;
        let rule = self.rule_name(rule)?.clone();
        let row = self.store.table().learn.get(&rule)?;
        let state = self.legs.get(&row.leg).filter(|state| (state.worker, state.slot) == (worker, leg))?;
        let key = state.inbound.as_ref().filter(|key| key.incarnation == incarnation)?;
        let same = |known: &Remembered| (known.ssrc, known.incarnation) == (ssrc, incarnation);
        if self.remembered.get(&rule).is_some_and(same) {
            return None;
        }
        let index = match indexes.row(key.id, ssrc, Direction::Receive) {
            Ok(index) => index,
            Err(error) => {
                tracing::warn!(%rule, ssrc = ssrc.0, %error, "a restarted forwarder will not know this stream");
                return None;
            }
        };
        indexes.set_learned(&index, id(row));
        let pinned = index.pin();
        let mut now = Remembered { ssrc, row: index, incarnation, staged: false, former: None };
        if let Some(before) = self.remembered.remove(&rule) {
            now.former = before.former;
            if before.staged {
                now.former.replace(before.row).iter().for_each(|row| indexes.discard(row));
            } else {
                // The worker let go of it before it learned another. A sender of ever new SSRCs takes no more than a row.
                indexes.discard(&before.row);
            }
        }
        self.remembered.insert(rule, now);
        Some(Command::KeepIndex { leg, ssrc, source, index: pinned })
    }

    /// What a rule stands for under its leg's key, in this process or by what an earlier one left.
    pub(super) fn recall(
        &mut self,
        name: &Name,
        row: &Learn,
        key: Option<(KeyId, u64)>,
        freed: &mut Freed,
        indexes: &mut dyn Indexes,
    ) -> Result<Option<KnownStream>, Refused> {
        let known = |known: &Remembered| KnownStream { ssrc: known.ssrc, index: known.row.pin() };
        if let Some(stream) = self.remembered.get_mut(name)
            && key.is_some_and(|(_, now)| stream.incarnation == now)
        {
            stream.staged = true;
            freed.spent.extend(stream.former.take());
            return Ok(Some(known(stream)));
        }
        freed.rows.extend(self.remembered.remove(name).into_iter().flat_map(Remembered::rows));
        let Some((id, incarnation)) = key else { return Ok(None) };
        let Some(ssrc) = indexes.learned(id, self::id(row)) else { return Ok(None) };
        let row = indexes.row(id, ssrc, Direction::Receive).map_err(|error| no_row(&error))?;
        let recalled = Remembered { ssrc, row, incarnation, staged: true, former: None };
        let known = known(&recalled);
        self.remembered.insert(name.clone(), recalled);
        Ok(Some(known))
    }
}

/// Names what a rule asks of a stream, in every process alike and never 0 (FNV-1a). Only rules of one leg are ever told
/// apart by it.
fn id(rule: &Learn) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for value in [&rule.mid, &rule.rid, &rule.repaired_rid] {
        // No value is longer than a byte tells; none is told apart from an empty one.
        add(&[value.as_ref().map_or(0xff, |value| value.len() as u8)]);
        add(value.as_deref().unwrap_or_default().as_bytes());
    }
    let types = rule.payload_types.iter().fold(0u128, |bits, payload_type| bits | (1 << (payload_type & 0x7f)));
    add(&types.to_le_bytes());
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sluice_table::{Kind, StreamRole};

    use super::*;

    #[test]
    fn rules_that_ask_for_different_things_have_different_names() {
        let rule = |mid: Option<&str>, rid: Option<&str>, repaired: Option<&str>, payload_types: &[u8]| Learn {
            leg: Name::new("leg").unwrap(),
            mid: mid.map(str::to_owned),
            rid: rid.map(str::to_owned),
            repaired_rid: repaired.map(str::to_owned),
            kind: Kind::Video,
            clock_rate: 90_000,
            payload_types: payload_types.to_vec(),
            role: StreamRole::default(),
        };
        let rules = [
            rule(None, None, None, &[96]),
            rule(None, None, None, &[97]),
            rule(Some(""), None, None, &[96]),
            rule(Some("h"), None, None, &[96]),
            rule(None, Some("h"), None, &[96]),
            rule(None, None, Some("h"), &[96]),
            rule(Some("h"), Some("l"), None, &[96]),
            rule(Some("hl"), None, None, &[96]),
        ];
        assert_eq!(rules.iter().map(id).collect::<BTreeSet<_>>().len(), rules.len());
        // The same in every process, or a stream is forgotten with a release.
        assert_eq!(id(&rule(Some("0"), Some("h"), None, &[98, 96])), id(&rule(Some("0"), Some("h"), None, &[96, 98])));
        assert_eq!(id(&rules[4]), 0xaa10_515e_7702_60a1);
    }
}
