//! What follows when the forwarder refuses a transaction: what it holds is compared with what it should hold, one
//! conference at a time, and the difference is sent again. Refused again, whoever cannot be programmed has to go. Never
//! ends anybody itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sluice_table::protocol::{Refusal, Refused};
use sluice_table::{Change, EntryKind, Name, Table};

use crate::conference::ParticipantId;

/// A conference whose rows the forwarder does not hold as it should.
#[derive(Debug, Default)]
struct Broken {
    state: State,
    /// Whether a repair was refused.
    tried: bool,
    /// Rows the forwarder named.
    faults: Vec<Name>,
    /// Numbers of transactions that were not sent because of the repair.
    held: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The forwarder's table is to be asked for.
    #[default]
    New,
    /// It was asked for; transactions are held back, since the repair holds all they do.
    Asked,
    /// The repair was sent, as this transaction.
    Sent(u64),
}

/// A conference to repair.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) conference: u64,
    /// The last repair was refused: somebody has to go first. Rows the forwarder named.
    pub(super) faults: Option<Vec<Name>>,
    /// Transactions the repair stands for.
    pub(super) held: Vec<u64>,
}

/// Conferences under repair, and whose transactions are under way.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Transactions that are not answered, with their conference.
    sent: VecDeque<(u64, u64)>,
    broken: BTreeMap<u64, Broken>,
    asked: bool,
}

impl Repair {
    /// Whether a transaction is to be sent now; if not, the repair will hold what it does.
    pub(super) fn send(&mut self, id: u64, changes: &[Change]) -> bool {
        let Some(conference) = changes.first().and_then(|change| number(change.row().1)) else { return true };
        match self.broken.get_mut(&conference) {
            Some(broken) if !matches!(broken.state, State::Sent(_)) => {
                broken.held.push(id);
                false
            }
            _ => {
                self.sent.push_back((id, conference));
                true
            }
        }
    }

    /// Takes note of an answer; true if the forwarder's table is to be asked for.
    pub(super) fn answered(&mut self, id: u64, result: Result<(), &Refused>) -> bool {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == id) else { return false };
        let Some((_, conference)) = self.sent.remove(at) else { return false };
        let repair = self.broken.get(&conference).is_some_and(|broken| broken.state == State::Sent(id));
        match result {
            Ok(()) if repair => drop(self.broken.remove(&conference)),
            Ok(()) => {}
            Err(refused) => {
                let broken = self.broken.entry(conference).or_default();
                broken.tried |= repair;
                if repair || matches!(broken.state, State::New | State::Asked) {
                    broken.state = State::New;
                    broken.faults.extend(refused.problems.iter().map(|problem| problem.name.clone()));
                    // Whoever waits for it waits for the repair.
                    broken.held.push(id);
                }
            }
        }
        self.ask()
    }

    /// Whether the table is to be asked for now. Only one question at a time; its answer follows all that was sent.
    fn ask(&mut self) -> bool {
        if self.asked {
            return false;
        }
        for broken in self.broken.values_mut().filter(|broken| broken.state == State::New) {
            broken.state = State::Asked;
            self.asked = true;
        }
        self.asked
    }

    /// The table came: what is to be repaired with it.
    pub(super) fn jobs(&mut self) -> Vec<Job> {
        self.asked = false;
        let asked = self.broken.iter_mut().filter(|(_, broken)| broken.state == State::Asked);
        let job = |(conference, broken): (&u64, &mut Broken)| {
            let faults = std::mem::take(&mut broken.faults);
            Job {
                conference: *conference,
                faults: std::mem::take(&mut broken.tried).then_some(faults),
                held: std::mem::take(&mut broken.held),
            }
        };
        asked.map(job).collect()
    }

    /// The next transaction of a conference is its repair.
    pub(super) fn open(&mut self, conference: u64, id: u64) {
        if let Some(broken) = self.broken.get_mut(&conference) {
            broken.state = State::Sent(id);
        }
    }

    /// Transactions held since the job was made; the repair stands for them too.
    pub(super) fn held(&mut self, conference: u64) -> Vec<u64> {
        self.broken.get_mut(&conference).map(|broken| std::mem::take(&mut broken.held)).unwrap_or_default()
    }

    /// There is nothing left to repair, or no way to.
    pub(super) fn close(&mut self, conference: u64) {
        self.broken.remove(&conference);
    }

    /// Whether the table is to be asked for again, for refusals heard of since it was asked for.
    pub(super) fn go_on(&mut self) -> bool {
        self.ask()
    }

    /// The connection is gone: everything will be programmed again.
    pub(super) fn forget(&mut self) {
        *self = Repair::default();
    }
}

/// Whether a refusal may be over when others' rows are gone.
pub(super) fn is_full(refused: &Refused) -> bool {
    refused.reason == Refusal::Capacity
}

/// Who has to go so that the rest of a conference can be programmed: whom the forwarder named; else whoever has no leg
/// there; else whoever lacks any row; else the newest.
pub(super) fn culprits(
    wanted: &Table,
    present: &BTreeSet<(EntryKind, Name)>,
    faults: &[Name],
    whose: impl Fn(&Name) -> Option<ParticipantId>,
) -> BTreeSet<ParticipantId> {
    let named: BTreeSet<_> = faults.iter().filter_map(&whose).collect();
    if !named.is_empty() {
        return named;
    }
    let lacks_leg = wanted.legs.keys().filter(|name| !present.contains(&(EntryKind::Leg, (*name).clone())));
    let without_leg: BTreeSet<_> = lacks_leg.filter_map(&whose).collect();
    if !without_leg.is_empty() {
        return without_leg;
    }
    let rows = Table::default().diff(wanted);
    let lacking = rows.iter().map(Change::row).filter(|(kind, name)| !present.contains(&(*kind, (*name).clone())));
    let lacking: BTreeSet<_> = lacking.filter_map(|(_, name)| whose(name)).collect();
    if !lacking.is_empty() {
        return lacking;
    }
    wanted.legs.keys().filter_map(whose).max().into_iter().collect()
}

/// The conference a row's name says it is of.
fn number(row: &Name) -> Option<u64> {
    row.as_str().strip_prefix('c')?.split_once('/')?.0.parse().ok()
}
