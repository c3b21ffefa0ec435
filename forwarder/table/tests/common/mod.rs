//! A table that uses every kind of row.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "every test binary uses a part")]

use sluice_srtp::key::MasterKey;
use sluice_srtp::{Profile, Ssrc};
use sluice_table::{
    Egress, Endpoint, ExtensionIds, Ice, Ingress, Kind, Learn, Leg, LegKind, Limits, Name, Remote, Source, Table,
};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn key(profile: Profile, seed: u8) -> MasterKey {
    let bytes: Vec<u8> = (0..profile.key_len() + profile.salt_len()).map(|i| seed.wrapping_add(i as u8)).collect();
    MasterKey::from_bytes(profile, &bytes).unwrap()
}

pub(crate) fn leg(seed: u8, remote: &str) -> Leg {
    Leg {
        endpoint: name("lan"),
        kind: LegKind::Client,
        remote: Remote::Fixed(remote.parse().unwrap()),
        inbound: Some(key(Profile::AeadAes128Gcm, seed)),
        outbound: Some(key(Profile::Aes128CmSha1_80, seed.wrapping_add(100))),
        accept_key_reuse: false,
        extensions: ExtensionIds { mid: Some(4), rid: Some(5), ..ExtensionIds::default() },
        limits: Limits::default(),
        ice: None,
        feedback: sluice_table::Feedback::default(),
        member: None,
        hears: None,
    }
}

pub(crate) fn egress(leg: &str, ssrc: u32, source: &str) -> Egress {
    Egress {
        leg: name(leg),
        ssrc: Ssrc(ssrc),
        source: name(source),
        payload_types: vec![(96, 100)],
        first_sequence: Some(1),
        mid: Some("0".to_owned()),
        csrc: true,
        dscp: None,
        layer: None,
        rtx: None,
        history: 0,
    }
}

pub(crate) fn table() -> Table {
    let mut table = Table::default();
    let endpoint = Endpoint { interface: "eth0".to_owned(), address: "192.0.2.1:3478".parse().unwrap() };
    table.endpoints.insert(name("lan"), endpoint);
    table.legs.insert(name("alice"), leg(1, "192.0.2.10:5000"));
    table.legs.insert(name("bob"), leg(2, "192.0.2.11:5000"));
    let mut carol = leg(3, "192.0.2.12:5000");
    carol.ice = Some(Ice {
        local_ufrag: "abcd".to_owned(),
        local_password: "LOCALPASSWORDLOCALPASSWORD".to_owned(),
        remote_ufrag: "efgh".to_owned(),
        remote_password: "REMOTEPASSWORDREMOTEPASSWORD".to_owned(),
        controlling: false,
        tie_breaker: 7,
        tuples: vec!["192.0.2.12:5000".parse().unwrap(), "192.0.2.12:5001".parse().unwrap()],
    });
    table.legs.insert(name("carol"), carol);
    let ingress = Ingress {
        leg: name("alice"),
        ssrc: Ssrc(1000),
        kind: Kind::Video,
        clock_rate: 90_000,
        payload_types: vec![96],
        role: sluice_table::StreamRole::default(),
    };
    table.ingress.insert(name("alice-cam"), ingress);
    let learn = Learn {
        leg: name("bob"),
        mid: Some("1".to_owned()),
        rid: Some("hi".to_owned()),
        repaired_rid: None,
        kind: Kind::Video,
        clock_rate: 90_000,
        payload_types: vec![96],
        role: sluice_table::StreamRole::default(),
    };
    table.learn.insert(name("bob-hi"), learn);
    let source = Source {
        kind: Kind::Video,
        clock_rate: 90_000,
        input: Some(name("alice-cam")),
        layers: Vec::new(),
        select: None,
    };
    table.sources.insert(name("stage"), source);
    table.egress.insert(name("bob-sees-stage"), egress("bob", 2000, "stage"));
    table.egress.insert(name("carol-sees-alice"), egress("carol", 2000, "alice-cam"));
    table.egress.insert(name("carol-sees-bob"), egress("carol", 2001, "bob-hi"));
    table
}
