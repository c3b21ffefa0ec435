//! Validation, differences and application of tables.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{egress, key, leg, name, table};
use proptest::prelude::*;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::{Action, Change, Endpoint, Entry, EntryKind, Kind, LegKind, Remote, Repair, Rtx, StreamRole, Table};

fn problems(edit: impl FnOnce(&mut Table)) -> Vec<String> {
    let mut table = table();
    edit(&mut table);
    table.validate().map_or_else(|found| found.iter().map(ToString::to_string).collect(), |()| Vec::new())
}

/// Asserts that `edit` causes exactly one problem, which starts with `expected`.
#[track_caller]
fn one(expected: &str, edit: impl FnOnce(&mut Table)) {
    let found = problems(edit);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with(expected), "{:?} does not start with {expected:?}", found[0]);
}

#[test]
fn the_sample_is_valid() {
    assert_eq!(problems(|_| {}), Vec::<String>::new());
}

#[test]
fn references_must_hold() {
    one("egress bob-sees-stage: leg: no leg is called dave", |t| {
        t.egress.get_mut("bob-sees-stage").unwrap().leg = name("dave");
    });
    one("egress bob-sees-stage: source: no ingress stream, learn rule or source is called x", |t| {
        t.egress.get_mut("bob-sees-stage").unwrap().source = name("x");
    });
    one("source stage: input: no ingress stream or learn rule is called x", |t| {
        t.sources.get_mut("stage").unwrap().input = Some(name("x"));
    });
    one("leg bob: endpoint: no endpoint is called wan", |t| t.legs.get_mut("bob").unwrap().endpoint = name("wan"));
    one("ingress alice-cam: leg: no leg is called dave", |t| {
        t.ingress.get_mut("alice-cam").unwrap().leg = name("dave");
    });
}

#[test]
fn feedback_and_repair_make_sense() {
    let rtx = |ssrc, payload_types: &[(u8, u8)]| Some(Rtx { ssrc: Ssrc(ssrc), payload_types: payload_types.to_vec() });
    let repairs = |stream: &str| {
        let repairs = Some(Repair { stream: name(stream), payload_types: vec![(97, 96)] });
        StreamRole { repairs, ..StreamRole::default() }
    };
    one("leg bob: feedback.transport_cc: needs extensions.transport_cc", |t| {
        t.legs.get_mut("bob").unwrap().feedback.transport_cc = true;
    });
    let edit = |t: &mut Table, row: Option<Rtx>, history| {
        let egress = t.egress.get_mut("carol-sees-bob").unwrap();
        (egress.rtx, egress.history) = (row, history);
    };
    assert_eq!(problems(|t| edit(t, rtx(77, &[(100, 101)]), 1_024)), Vec::<String>::new());
    one("egress carol-sees-bob: history: is 0", |t| edit(t, rtx(77, &[(100, 101)]), 0));
    one("egress carol-sees-bob: history: 1025 is out of range", |t| edit(t, None, 1_025));
    one("egress carol-sees-bob: rtx.payload_types: expected 1 to 4 pairs", |t| edit(t, rtx(77, &[]), 1));
    one("egress carol-sees-bob: rtx.payload_types: 96 is mapped twice", |t| edit(t, rtx(77, &[(96, 97), (96, 98)]), 1));
    let taken = table().egress["carol-sees-alice"].ssrc.0;
    one("egress carol-sees-bob: ssrc: egress carol-sees-alice of the same leg has this SSRC already", |t| {
        edit(t, rtx(taken, &[(96, 97)]), 1);
    });
    one("ingress alice-cam: repairs.stream: no ingress stream or learn rule is called x", |t| {
        t.ingress.get_mut("alice-cam").unwrap().role = repairs("x");
    });
    one("ingress alice-cam: repairs.stream: alice-cam repairs a stream itself", |t| {
        t.ingress.get_mut("alice-cam").unwrap().role = repairs("alice-cam");
    });
}

#[test]
fn wire_identities_are_unique() {
    one("leg bob: remote: leg alice of the same endpoint has this address already", |t| {
        t.legs.get_mut("bob").unwrap().remote = Remote::Fixed("192.0.2.10:5000".parse().unwrap());
    });
    one("leg carol: remote: leg bob of the same endpoint has this address already", |t| {
        t.legs.get_mut("carol").unwrap().ice.as_mut().unwrap().tuples[1] = "192.0.2.11:5000".parse().unwrap();
    });
    one("leg carol: remote: 192.0.2.99:5000 is not the selected tuple", |t| {
        t.legs.get_mut("carol").unwrap().remote = Remote::Fixed("192.0.2.99:5000".parse().unwrap());
    });
    one("egress carol-sees-bob: ssrc: egress carol-sees-alice of the same leg has this SSRC already", |t| {
        t.egress.get_mut("carol-sees-bob").unwrap().ssrc = Ssrc(2000);
    });
    one("ingress z: ssrc: ingress alice-cam of the same leg has this SSRC already", |t| {
        let row = t.ingress["alice-cam"].clone();
        t.ingress.insert(name("z"), row);
    });
    one("leg bob: srtp_out: leg alice sends under the same master key", |t| {
        t.legs.get_mut("bob").unwrap().outbound = Some(key(Profile::Aes128CmSha1_80, 101));
    });
    one("endpoint z: address: endpoint lan has this address already", |t| {
        let row = Endpoint { interface: "eth1".to_owned(), address: "192.0.2.1:3478".parse().unwrap() };
        t.endpoints.insert(name("z"), row);
    });
    one("learn alice-cam: name: an ingress stream has this name", |t| {
        let row = t.learn["bob-hi"].clone();
        t.learn.get_mut("bob-hi").unwrap().rid = Some("lo".to_owned());
        t.learn.insert(name("alice-cam"), row);
    });
}

#[test]
fn ranges_are_checked() {
    one("ingress alice-cam: payload_types: 128 is out of range", |t| {
        t.ingress.get_mut("alice-cam").unwrap().payload_types.push(128);
    });
    one("ingress alice-cam: clock_rate: 0 Hz is out of range", |t| {
        // Keep the source out of it: it would differ in clock rate.
        t.sources.get_mut("stage").unwrap().input = None;
        t.ingress.get_mut("alice-cam").unwrap().clock_rate = 0;
    });
    one("egress bob-sees-stage: dscp: 64", |t| t.egress.get_mut("bob-sees-stage").unwrap().dscp = Some(64));
    one("egress bob-sees-stage: payload_types: 96 is mapped twice", |t| {
        t.egress.get_mut("bob-sees-stage").unwrap().payload_types.push((96, 101));
    });
    for (first, fine) in [(0, false), (1, true), (16_384, true), (16_385, false)] {
        let found = problems(|t| t.egress.get_mut("bob-sees-stage").unwrap().first_sequence = Some(first));
        assert_eq!(found.is_empty(), fine, "{first}: {found:?}");
    }
    one("leg alice: extensions.transport_cc: id 0", |t| {
        t.legs.get_mut("alice").unwrap().extensions.transport_cc = Some(0);
    });
    one("leg alice: extensions.transport_cc: id 5 is taken by rid", |t| {
        t.legs.get_mut("alice").unwrap().extensions.transport_cc = Some(5);
    });
    one("leg alice: limits.packets_per_second: is 0", |t| {
        t.legs.get_mut("alice").unwrap().limits.packets_per_second = 0;
    });
    one("endpoint lan: address: 0.0.0.0:3478 is not a unicast address", |t| {
        t.endpoints.get_mut("lan").unwrap().address = "0.0.0.0:3478".parse().unwrap();
    });
    one("source stage: input: alice-cam is video, the source is audio", |t| {
        t.sources.get_mut("stage").unwrap().kind = Kind::Audio;
    });
    one("egress bob-sees-stage: mid: leg bob has no extensions.mid id", |t| {
        t.legs.get_mut("bob").unwrap().extensions.mid = None;
        t.learn.get_mut("bob-hi").unwrap().mid = None;
    });
}

#[test]
fn layers_groups_and_members_are_checked() {
    let stage = |t: &mut Table, layers: &[&str], select: Option<&str>| {
        let row = t.sources.get_mut("stage").unwrap();
        row.input = None;
        row.layers = layers.iter().map(|layer| name(layer)).collect();
        row.select = select.map(name);
    };
    assert_eq!(problems(|t| stage(t, &["alice-cam", "bob-hi"], None)), Vec::<String>::new());
    one("source stage: layers: no ingress stream or learn rule is called x", |t| stage(t, &["alice-cam", "x"], None));
    one("source stage: layers: no ingress stream or learn rule is called stage", |t| stage(t, &["stage"], None));
    one("source stage: layers: names a stream twice", |t| stage(t, &["bob-hi", "bob-hi"], None));
    one("source stage: layers: bob-hi has clock rate 48000, the source 90000", |t| {
        stage(t, &["alice-cam", "bob-hi"], None);
        t.learn.get_mut("bob-hi").unwrap().clock_rate = 48_000;
    });
    one("source stage: layers: 5 layers; expected at most 4", |t| {
        let names = ["a", "b", "c", "d", "e"];
        for (n, extra) in names.iter().enumerate() {
            let mut row = t.ingress["alice-cam"].clone();
            row.ssrc = Ssrc(5_000 + n as u32);
            t.ingress.insert(name(extra), row);
        }
        stage(t, &names, None);
    });
    one("source stage: input: layers say what the source carries", |t| {
        stage(t, &["bob-hi"], None);
        t.sources.get_mut("stage").unwrap().input = Some(name("alice-cam"));
    });
    one("source stage: layers: the forwarder chooses", |t| stage(t, &["bob-hi"], Some("room")));
    one("source stage: input: the forwarder chooses", |t| {
        t.sources.get_mut("stage").unwrap().select = Some(name("room"));
    });
    let candidate = |t: &mut Table| {
        stage(t, &[], Some("room"));
        t.ingress.get_mut("alice-cam").unwrap().role.candidate = Some(name("room"));
    };
    assert_eq!(problems(candidate), Vec::<String>::new());
    one("ingress alice-cam: candidate: group room is video at 90000 Hz, the stream video at 48000 Hz", |t| {
        candidate(t);
        t.ingress.get_mut("alice-cam").unwrap().clock_rate = 48_000;
    });
    one("source z: select: source stage of the group is video at 90000 Hz", |t| {
        candidate(t);
        let row = sluice_table::Source { kind: Kind::Audio, ..t.sources["stage"].clone() };
        t.sources.insert(name("z"), row);
    });
    one("egress bob-sees-stage: layer: 4 is out of range", |t| {
        t.egress.get_mut("bob-sees-stage").unwrap().layer = Some(4);
    });
    one("leg bob: member: 8192 is out of range", |t| t.legs.get_mut("bob").unwrap().member = Some(8_192));
    assert_eq!(problems(|t| t.legs.get_mut("bob").unwrap().hears = Some([0, 8_191].into_iter().collect())), [""; 0]);
    // What the forwarder chooses cannot be switched.
    let mut table = table();
    candidate(&mut table);
    let switch = |input: Option<&str>| Change::Switch { source: name("stage"), input: input.map(name) };
    assert!(table.apply(&[switch(Some("alice-cam"))]).is_err());
    assert_eq!(table.apply(&[switch(None)]), Ok(()));
}

#[test]
fn keys_fit_the_leg() {
    one("leg alice: srtp_in: missing although the leg sends streams", |t| {
        t.legs.get_mut("alice").unwrap().inbound = None;
    });
    one("leg bob: srtp_out: missing although the leg receives streams", |t| {
        t.legs.get_mut("bob").unwrap().outbound = None;
    });
    // Nothing is sent to alice, and an established leg may wait for its keys.
    assert_eq!(problems(|t| t.legs.get_mut("alice").unwrap().outbound = None), Vec::<String>::new());
    assert_eq!(problems(|t| t.legs.get_mut("carol").unwrap().outbound = None), Vec::<String>::new());
    let found = problems(|t| t.legs.get_mut("bob").unwrap().kind = LegKind::Plain);
    assert_eq!(found.len(), 2, "{found:?}");
    one("leg alice: srtp_out: is also srtp_in", |t| {
        let alice = t.legs.get_mut("alice").unwrap();
        alice.outbound.clone_from(&alice.inbound);
    });
}

#[test]
fn problems_never_show_secrets() {
    let found = problems(|t| {
        let ice = t.legs.get_mut("carol").unwrap();
        ice.ice.as_mut().unwrap().local_password = "short secret!".to_owned();
    });
    assert_eq!(found.len(), 1);
    assert!(!found[0].contains("secret"), "{found:?}");
    let shown = format!("{:?}", table());
    assert!(!shown.contains("LOCALPASSWORD") && !shown.contains("REMOTEPASSWORD"), "{shown}");
}

#[test]
fn a_failed_transaction_changes_nothing() {
    let mut running = table();
    let before = running.clone();
    let changes = [
        Change::Put(name("dave"), Entry::Leg(leg(9, "192.0.2.13:5000"))),
        Change::Switch { source: name("stage"), input: None },
        Change::Remove(EntryKind::Egress, name("carol-sees-bob")),
        Change::Remove(EntryKind::Leg, name("alice")),
    ];
    let found = running.apply(&changes).unwrap_err();
    assert!(found.iter().any(|p| p.to_string().starts_with("ingress alice-cam: leg:")), "{found:?}");
    assert_eq!(running, before);
    let missing = [Change::Remove(EntryKind::Leg, name("nobody"))];
    assert!(running.apply(&missing).is_err());
    assert!(running.apply(&[Change::Switch { source: name("nobody"), input: None }]).is_err());
    assert_eq!(running, before);
}

#[test]
fn switching_is_one_change() {
    let old = table();
    let mut new = table();
    new.sources.get_mut("stage").unwrap().input = Some(name("bob-hi"));
    let changes = old.diff(&new);
    assert_eq!(changes, [Change::Switch { source: name("stage"), input: Some(name("bob-hi")) }]);
    let views = old.describe(&changes);
    assert_eq!(views[0].action, Action::Changed);
    assert_eq!(views[0].fields.len(), 1);
    assert_eq!((views[0].fields[0].old.as_str(), views[0].fields[0].new.as_str()), ("alice-cam", "bob-hi"));
}

#[test]
fn descriptions_show_fingerprints() {
    let old = table();
    let mut new = table();
    let fresh = key(Profile::Aes128CmSha1_80, 200);
    new.legs.get_mut("bob").unwrap().outbound = Some(fresh.clone());
    let views = old.describe(&old.diff(&new));
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].fields[0].key, "srtp_out");
    assert_eq!(views[0].fields[0].new, format!("aes128-cm-sha1-80 {}", fresh.fingerprint()));
    let mut quiet = table();
    quiet.legs.get_mut("carol").unwrap().ice.as_mut().unwrap().local_password = "z".repeat(30);
    let views = old.describe(&old.diff(&quiet));
    assert_eq!(views[0].fields[0].key, "secret");
}

/// A valid table of legs, streams and egress drawn from small pools, so that two of them overlap.
fn arbitrary_table() -> impl Strategy<Value = Table> {
    let legs = proptest::collection::btree_map(0u8..6, 0u8..3, 1..6);
    let streams = proptest::collection::btree_map(0u8..6, (any::<prop::sample::Index>(), 0u32..3), 1..6);
    let outs = proptest::collection::btree_map(
        0u8..8,
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()),
        0..8,
    );
    (legs, streams, outs).prop_map(|(legs, streams, outs)| {
        let mut made = Table::default();
        let endpoint = Endpoint { interface: "eth0".to_owned(), address: "192.0.2.1:3478".parse().unwrap() };
        made.endpoints.insert(name("lan"), endpoint);
        for (id, generation) in &legs {
            made.legs.insert(name(&format!("l{id}")), leg(id * 3 + generation, &format!("192.0.2.{}:5000", id + 10)));
        }
        let leg_names: Vec<_> = made.legs.keys().cloned().collect();
        for (id, (at, switched)) in &streams {
            let mut row = table().ingress["alice-cam"].clone();
            row.leg = leg_names[at.index(leg_names.len())].clone();
            row.ssrc = Ssrc(u32::from(*id));
            made.ingress.insert(name(&format!("i{id}")), row);
            if *switched > 0 {
                let mut source = table().sources["stage"].clone();
                source.input = (*switched == 1).then(|| name(&format!("i{id}")));
                made.sources.insert(name(&format!("s{id}")), source);
            }
        }
        let inputs: Vec<_> = made.ingress.keys().chain(made.sources.keys()).cloned().collect();
        for (id, (to, from, csrc)) in &outs {
            let to = &leg_names[to.index(leg_names.len())];
            let mut row = egress(to.as_str(), u32::from(*id), inputs[from.index(inputs.len())].as_str());
            row.csrc = *csrc;
            made.egress.insert(name(&format!("e{id}")), row);
        }
        made
    })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: prop::test_runner::RngSeed::Fixed(2), cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn diff_then_apply_arrives(old in arbitrary_table(), new in arbitrary_table()) {
        prop_assert_eq!(old.validate(), Ok(()));
        let changes = old.diff(&new);
        let mut whole = old.clone();
        prop_assert_eq!(whole.apply(&changes), Ok(()));
        prop_assert_eq!(&whole, &new);
        prop_assert!(new.diff(&whole).is_empty());
        prop_assert_eq!(old.describe(&changes).len(), changes.len());
        // Every reference holds after every step (wire identities may clash half way; a transaction is atomic).
        let mut stepwise = old.clone();
        for change in &changes {
            let mut edited = stepwise.clone();
            if edited.apply(std::slice::from_ref(change)).is_err() {
                match change {
                    Change::Put(name, entry) => drop(edited.put(name.clone(), entry.clone())),
                    Change::Remove(kind, name) => drop(edited.take(*kind, name)),
                    Change::Switch { source, input } => edited.sources.get_mut(source).unwrap().input.clone_from(input),
                }
            }
            if let Err(found) = edited.validate() {
                for problem in found {
                    prop_assert!(!problem.message.starts_with("no "), "{}", problem);
                }
            }
            stepwise = edited;
        }
    }
}
