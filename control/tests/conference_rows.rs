//! Conferences under random event orders: the table stays valid, and nobody gets what is not for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_control::conference::{
    Action, AudioIn, Conference, ConferenceLimits, Connection, Description, DescriptionError, Event, Layer,
    ParticipantId, Path, Quality, Refusal, Slots, Subscription, VideoIn, VideoSlot,
};
use sluice_srtp::key::MasterKey;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::{Change, Endpoint, Entry, EntryKind, ExtensionIds, Ice, Name, Rtx, Table};

#[derive(Clone, Debug)]
enum Step {
    Join { video: u8 },
    Connect(usize),
    Move(usize),
    Alive(usize),
    Authorise(usize, Vec<usize>),
    Subscribe(usize, Vec<Option<(usize, u8)>>),
    Leave(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0_usize..12;
    prop_oneof![
        4 => (0_u8..4).prop_map(|video| Step::Join { video }),
        6 => who().prop_map(Step::Connect),
        1 => who().prop_map(Step::Move),
        1 => who().prop_map(Step::Alive),
        8 => (who(), prop::collection::vec(who(), 0..12)).prop_map(|(a, b)| Step::Authorise(a, b)),
        6 => (who(), prop::collection::vec(prop::option::of((who(), 0_u8..3)), 0..5))
            .prop_map(|(a, b)| Step::Subscribe(a, b)),
        2 => who().prop_map(Step::Leave),
        1 => (0_u64..4_000).prop_map(Step::Pass),
    ]
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn empty() -> Table {
    let row = Endpoint { interface: "eth0".to_owned(), address: "192.0.2.1:3478".parse().unwrap() };
    let mut table = Table::default();
    table.apply(&[Change::Put(name("public"), Entry::Endpoint(row))]).unwrap();
    table
}

fn description(id: u64, video: u8) -> Description {
    let id = id as u32;
    let layers = match video {
        1 => vec![Layer::Ssrc { ssrc: Ssrc(2_000 + id), rtx: Some(Ssrc(3_000 + id)) }],
        2 => vec![Layer::Rid("l".to_owned()), Layer::Rid("h".to_owned())],
        _ => vec![Layer::Rid("h".to_owned())],
    };
    let slot = |at: u32| VideoSlot {
        ssrc: Ssrc(10 + at),
        rtx: Some(Rtx { ssrc: Ssrc(20 + at), payload_types: vec![(100, 101)] }),
        history: 64,
    };
    Description {
        audio: Some(AudioIn { ssrc: Ssrc(1_000 + id), payload_types: vec![111], clock_rate: 48_000 }),
        video: (video > 0).then(|| VideoIn {
            announced: Ssrc(4_000 + id),
            layers,
            payload_types: vec![100],
            rtx_payload_types: vec![(101, 100)],
            clock_rate: 90_000,
        }),
        slots: Slots { audio: (1..=5).map(Ssrc).collect(), video: vec![Some(slot(0)), None, Some(slot(2))] },
        extensions: ExtensionIds { rid: Some(4), repaired_rid: Some(5), ..ExtensionIds::default() },
        ..Description::default()
    }
}

fn ice(tuples: Vec<SocketAddr>) -> Ice {
    Ice {
        local_ufrag: "local".to_owned(),
        local_password: "l".repeat(24),
        remote_ufrag: "remote".to_owned(),
        remote_password: "r".repeat(24),
        controlling: true,
        tie_breaker: 1,
        tuples,
    }
}

fn tuple(id: u64, port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, (id >> 8) as u8, id as u8], port))
}

fn connection(id: u64) -> Connection {
    let key = |direction: u8| {
        let mut bytes = [direction; 44];
        bytes[..8].copy_from_slice(&id.to_be_bytes());
        MasterKey::from_bytes(Profile::AeadAes256Gcm, &bytes).unwrap()
    };
    Connection { endpoint: name("public"), inbound: key(1), outbound: key(2), ice: ice(vec![tuple(id, 1)]) }
}

/// What the conference was told, kept naively.
#[derive(Default)]
struct Model {
    /// Everyone who ever joined; who is there now.
    ids: Vec<u64>,
    present: BTreeSet<u64>,
    allowed: BTreeSet<(u64, u64)>,
}

struct World {
    conference: Conference,
    table: Table,
    model: Model,
    now: Instant,
    /// Whether agreements and subscriptions may not have settled.
    waiting: bool,
    settle: Duration,
}

impl World {
    fn new(limits: ConferenceLimits) -> World {
        World {
            conference: Conference::new(3, limits),
            table: empty(),
            model: Model::default(),
            now: Instant::now(),
            waiting: false,
            settle: limits.settle,
        }
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.conference.handle(self.now, event, &mut actions);
        let transactions = actions.iter().filter(|action| matches!(action, Action::Table(_))).count();
        assert!(transactions <= 1, "{transactions} transactions for one event");
        for action in &actions {
            match action {
                Action::Table(changes) => self.apply(changes),
                Action::TimedOut(id) => self.gone(id.0),
                Action::Agreed(..) | Action::Refused(..) => {}
            }
        }
        actions
    }

    fn gone(&mut self, id: u64) {
        self.model.present.remove(&id);
        self.model.allowed.retain(|(a, b)| *a != id && *b != id);
    }

    fn apply(&mut self, changes: &[Change]) {
        let mut rows = BTreeSet::new();
        for change in changes {
            let (kind, name) = change.row();
            assert!(rows.insert((kind, name.clone())), "{name} changes twice");
            if let Change::Put(_, entry) = change {
                assert_ne!(self.table.get(kind, name).as_ref(), Some(entry), "{name} is put unchanged");
            }
        }
        if let Err(problems) = self.table.apply(changes) {
            panic!("{}: {changes:#?}", problems[0]);
        }
    }

    fn id(&self, at: usize) -> Option<u64> {
        let ids = &self.model.ids;
        (!ids.is_empty()).then(|| ids[ids.len().saturating_sub(12) + at % ids.len().min(12)])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Join { video } => {
                let id = self.model.ids.len() as u64;
                let deadline = self.now + Duration::from_secs(10);
                let description = Box::new(description(id, *video));
                let actions = self.handle(Event::Join { participant: ParticipantId(id), description, deadline });
                self.model.ids.push(id);
                if !actions.iter().any(|action| matches!(action, Action::Refused(..))) {
                    self.model.present.insert(id);
                }
            }
            Step::Pass(ms) => {
                self.now += Duration::from_millis(*ms);
                self.handle(Event::Tick);
                if Duration::from_millis(*ms) >= self.settle {
                    self.waiting = false;
                }
            }
            Step::Connect(at) => self.on(*at, |id| Event::Connected {
                participant: ParticipantId(id),
                connection: Box::new(connection(id)),
            }),
            Step::Move(at) => self.on(*at, |id| Event::Moved {
                participant: ParticipantId(id),
                path: Box::new(Path { endpoint: name("public"), ice: ice(vec![tuple(id, 2), tuple(id, 1)]) }),
            }),
            Step::Alive(at) => {
                let deadline = self.now + Duration::from_secs(20);
                self.on(*at, |id| Event::Alive { participant: ParticipantId(id), deadline });
            }
            Step::Leave(at) => {
                self.on(*at, |id| Event::Leave { participant: ParticipantId(id) });
                if let Some(id) = self.id(*at) {
                    self.gone(id);
                }
            }
            Step::Authorise(at, peers) => {
                let Some(id) = self.id(*at) else { return };
                let peers: Vec<u64> = peers.iter().filter_map(|peer| self.id(*peer)).collect();
                if self.model.present.contains(&id) {
                    self.model.allowed.retain(|(a, _)| *a != id);
                    let there = peers.iter().filter(|p| **p != id && self.model.present.contains(p));
                    self.model.allowed.extend(there.map(|peer| (id, *peer)));
                }
                let peers = peers.into_iter().map(ParticipantId).collect();
                self.handle(Event::Authorise { participant: ParticipantId(id), peers });
                self.waiting |= !self.settle.is_zero();
            }
            Step::Subscribe(at, slots) => {
                let quality = [Quality::Any, Quality::Low, Quality::High];
                let slot = |slot: &Option<(usize, u8)>| {
                    let (publisher, q) = (*slot)?;
                    let publisher = ParticipantId(self.id(publisher)?);
                    Some(Subscription { publisher, quality: quality[usize::from(q)] })
                };
                let slots = slots.iter().map(slot).collect();
                self.on(*at, |id| Event::Subscribe { participant: ParticipantId(id), slots });
                self.waiting |= !self.settle.is_zero();
            }
        }
        self.check();
    }

    fn on(&mut self, at: usize, event: impl FnOnce(u64) -> Event) {
        if let Some(id) = self.id(at) {
            self.handle(event(id));
        }
    }

    fn mutual(&self, one: u64, other: u64) -> bool {
        self.model.allowed.contains(&(one, other)) && self.model.allowed.contains(&(other, one))
    }

    /// What holds after every event.
    fn check(&self) {
        let settled = !self.waiting;
        let of = |leg: &Name| leg.as_str().strip_prefix("c3/p").unwrap().split('/').next().unwrap().parse().unwrap();
        let mut members = std::collections::BTreeMap::new();
        for (name, leg) in &self.table.legs {
            let id: u64 = of(name);
            assert!(self.model.present.contains(&id), "{name} left");
            assert!(members.insert(leg.member.unwrap(), id).is_none(), "{name} shares its number");
        }
        for (name, leg) in &self.table.legs {
            let id = of(name);
            let hears = leg.hears.as_ref().unwrap();
            for (number, other) in &members {
                let (told, mutual) = (hears.contains(*number), self.mutual(id, *other));
                assert!(told == mutual || (mutual && !settled), "{name} and p{other}: {told}, {mutual}");
            }
        }
        for (name, egress) in &self.table.egress {
            if egress.source.as_str().ends_with("/v") {
                let (to, from): (u64, u64) = (of(&egress.leg), of(&egress.source));
                assert!(self.mutual(to, from), "{name} carries p{from} unasked");
            }
        }
        // Everyone wanted, connected and agreed to is carried.
        for id in &self.model.present {
            for (slot, want) in self.conference.subscriptions(ParticipantId(*id)).iter().enumerate() {
                let Some(want) = want else { continue };
                let other = want.publisher.0;
                let leg = |id| self.table.legs.contains_key(&name(&format!("c3/p{id}")));
                let shown = self.conference.description(want.publisher).is_some_and(|d| d.video.is_some());
                let carried = leg(*id) && leg(other) && shown && slot != 1 && self.mutual(*id, other);
                let row = self.table.egress.contains_key(&name(&format!("c3/p{id}/to/v{slot}")));
                assert!(row == carried || (carried && !settled), "p{id} slot {slot} of p{other}: {row}, {carried}");
            }
        }
        let mut again = empty();
        again.apply(&self.conference.whole()).unwrap();
        assert!(again == self.table || !settled, "what would be told again is what was told");
    }

    fn finish(mut self) {
        for id in self.model.ids.clone() {
            self.handle(Event::Leave { participant: ParticipantId(id) });
        }
        assert_eq!(self.table, empty());
        assert!(self.conference.is_empty() && self.conference.next_deadline().is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn the_table_follows_the_conference(settle in prop_oneof![Just(0_u64), Just(900)], steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(ConferenceLimits { participants: 9, audio_slots: 5, members: 11, settle: Duration::from_millis(settle) });
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

#[test]
fn numbers_are_used_again_when_no_row_knows_them() {
    let mut world =
        World::new(ConferenceLimits { participants: 3, audio_slots: 1, members: 3, settle: Duration::ZERO });
    for round in 0..10 {
        world.step(&Step::Join { video: 2 });
        let at = (world.model.ids.len() - 1).min(11);
        world.step(&Step::Connect(at));
        for one in 0..12 {
            world.step(&Step::Authorise(one, (0..12).collect()));
        }
        if round >= 2 {
            let first = *world.model.present.first().unwrap();
            world.handle(Event::Leave { participant: ParticipantId(first) });
            world.gone(first);
        }
    }
    assert!(world.model.ids.len() > 3);
    world.finish();
}

#[test]
fn the_full_and_the_unusable_stay_out() {
    let mut world =
        World::new(ConferenceLimits { participants: 1, audio_slots: 1, members: 8, settle: Duration::ZERO });
    let deadline = world.now + Duration::from_secs(1);
    let mut join = |id: u64, description: Description| {
        world.handle(Event::Join { participant: ParticipantId(id), description: Box::new(description), deadline })
    };
    let mut twice = description(0, 1);
    twice.video.as_mut().unwrap().layers.push(Layer::Ssrc { ssrc: Ssrc(1_000), rtx: None });
    let mut nameless = description(0, 2);
    nameless.extensions.rid = None;
    let mut typeless = description(0, 2);
    typeless.audio.as_mut().unwrap().payload_types.clear();
    for (description, error) in [
        (twice, DescriptionError::Ssrc),
        (nameless, DescriptionError::RidExtension),
        (typeless, DescriptionError::PayloadTypes),
    ] {
        assert_eq!(join(0, description), [Action::Refused(ParticipantId(0), Refusal::Description(error))]);
    }
    assert_eq!(join(0, description(0, 2)), []);
    assert_eq!(join(0, description(0, 2)), [Action::Refused(ParticipantId(0), Refusal::Present)]);
    assert_eq!(join(1, description(1, 2)), [Action::Refused(ParticipantId(1), Refusal::Full(1))]);
    world.now += Duration::from_secs(1);
    assert_eq!(world.handle(Event::Tick), [Action::TimedOut(ParticipantId(0))]);
    assert_eq!(world.handle(Event::Leave { participant: ParticipantId(0) }), []);
    assert!(world.table.get(EntryKind::Leg, &name("c3/p0")).is_none());
}
