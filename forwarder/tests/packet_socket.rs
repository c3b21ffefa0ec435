//! The running forwarder with both connections: STUN over UDP comes up, answers go down, RTCP crosses in clear,
//! events are numbered and a slow subscriber holds nothing up. Loopback, kernel sockets only.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sluice_forwarder::engine::stun::message::{BINDING, Builder, Class, IntegrityKey, Message, Role as IceRole};
use sluice_srtp::{AnyProvider, MasterKey, Profile, Provider, ProviderKind, Ssrc};
use sluice_table::protocol::{Client, Event, PacketInReason, PacketMessage, Request, Response, Role, Snapshot};
use sluice_table::{Endpoint, Ice, Leg, LegKind, Limits, Name, Remote, Table};

const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(seed: u8) -> MasterKey {
    MasterKey::from_bytes(Profile::AeadAes128Gcm, &[seed; 28]).unwrap()
}

/// A forwarder that ends with the test.
struct Forwarder {
    child: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Forwarder {
    fn start() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let state = directory.path().join("state");
        std::fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
        let socket = directory.path().join("run/table.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_sluice-forwarder"))
            .args(["--io", "udp", "--workers", "2", "--provider", "portable", "--polling", "interrupt", "--socket"])
            .args([&socket, Path::new("--state"), &state])
            .env("SLUICE_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let forwarder = Forwarder { child, socket, _directory: directory };
        let end = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(&forwarder.socket).is_err() {
            assert!(Instant::now() < end, "the forwarder does not serve its socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        forwarder
    }

    fn connect(&self, role: Role) -> Client {
        Client::connect(&self.socket, role, Some(PATIENCE)).unwrap()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// An endpoint address nobody else has: loopback by process id, a port by test.
fn endpoint(test: u16) -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 64 | high, middle, low], 40_000 + test))
}

fn table(media: SocketAddr, peer: SocketAddr) -> Table {
    let mut table = Table::default();
    table.endpoints.insert(name("media"), Endpoint { interface: "lo".to_owned(), address: media });
    let ice = Ice {
        local_ufrag: "ours".to_owned(),
        local_password: "OurPassword0123456789x".to_owned(),
        remote_ufrag: "theirs".to_owned(),
        remote_password: "TheirPassword012345678".to_owned(),
        controlling: true,
        tie_breaker: 1,
        tuples: vec![peer],
    };
    let leg = Leg {
        endpoint: name("media"),
        kind: LegKind::Client,
        remote: Remote::Fixed(peer),
        inbound: Some(key(1)),
        outbound: Some(key(2)),
        accept_key_reuse: false,
        extensions: sluice_table::ExtensionIds::default(),
        limits: Limits::default(),
        ice: Some(ice),
        feedback: sluice_table::Feedback::default(),
        member: None,
        hears: None,
    };
    table.legs.insert(name("alice"), leg);
    table
}

fn apply(control: &mut Client, table: Table) {
    let response = control.call(Request::Apply { table: Box::new(table), dry_run: false }).unwrap();
    assert!(matches!(response, Response::Applied { .. }), "{response:?}");
}

fn snapshot(control: &mut Client) -> Snapshot {
    match control.call(Request::Snapshot).unwrap() {
        Response::Snapshot(snapshot) => *snapshot,
        other => panic!("{other:?}"),
    }
}

fn request(ufrag: &str, password: &str, id: u8) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let len = Builder::new(&mut bytes, Class::Request, BINDING, &[id; 12])
        .username(ufrag, "theirs")
        .role(IceRole::Controlled, 3)
        .finish(&IntegrityKey::new(password))
        .unwrap();
    bytes.truncate(len);
    bytes
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 2_048];
    let (len, from) = socket.recv_from(&mut bytes).unwrap();
    bytes.truncate(len);
    (bytes, from)
}

#[test]
fn packets_cross_between_the_wire_and_control() {
    let forwarder = Forwarder::start();
    let (mut control, mut packets) = (forwarder.connect(Role::Table), forwarder.connect(Role::Packet));
    let (alice, alice_at) = udp();
    let (stranger, stranger_at) = udp();
    let media = endpoint(1);
    apply(&mut control, table(media, alice_at));

    // A tuple of no leg: up to control, and control's answer out of the same port.
    let hello = request("fresh", "whatever password this", 1);
    stranger.send_to(&hello, media).unwrap();
    let up = packets.read::<PacketMessage>().unwrap();
    let expected = PacketMessage::PacketIn {
        endpoint: name("media"),
        leg: None,
        from: stranger_at,
        reason: PacketInReason::StunUnknown,
        bytes: hello,
    };
    assert_eq!(up, expected);
    let answer = PacketMessage::PacketOut { endpoint: name("media"), to: stranger_at, bytes: b"answer".to_vec() };
    packets.write(&answer).unwrap();
    assert_eq!(receive(&stranger), (b"answer".to_vec(), media));

    // An established leg: answered without control; a restart goes up; control's packet leaves by the leg's owner.
    alice.send_to(&request("ours", "OurPassword0123456789x", 2), media).unwrap();
    let (bytes, from) = receive(&alice);
    let answer = Message::parse(&bytes).unwrap();
    assert_eq!((from, answer.class, answer.mapped), (media, Class::Success, Some(alice_at.into())));
    assert!(answer.verify(&IntegrityKey::new("OurPassword0123456789x")));
    let restart = request("fresh", "whatever password this", 3);
    alice.send_to(&restart, media).unwrap();
    match packets.read::<PacketMessage>().unwrap() {
        PacketMessage::PacketIn { leg, reason, bytes, .. } => {
            assert_eq!((leg, reason, bytes), (Some(name("alice")), PacketInReason::StunPolicy, restart));
        }
        other => panic!("{other:?}"),
    }
    let dtls = vec![22, 254, 253, 1, 2, 3];
    packets.write(&PacketMessage::PacketOut { endpoint: name("media"), to: alice_at, bytes: dtls.clone() }).unwrap();
    assert_eq!(receive(&alice), (dtls, media));

    // RTCP crosses in clear.
    let mut crypto = AnyProvider::new(ProviderKind::Portable).unwrap();
    let (to_us, from_us) = (crypto.expand(&key(1)), crypto.expand(&key(2)));
    let clear = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
    let mut sealed = clear.clone();
    sealed.resize(64, 0);
    let len = crypto.seal_rtcp(&to_us, Ssrc(9), 1, &mut sealed, clear.len());
    alice.send_to(&sealed[..len], media).unwrap();
    let up = packets.read::<PacketMessage>().unwrap();
    assert_eq!(up, PacketMessage::RtcpIn { leg: name("alice"), bytes: clear.clone() });
    for index in 0..3 {
        packets.write(&PacketMessage::RtcpOut { leg: name("alice"), bytes: clear.clone() }).unwrap();
        let (mut bytes, from) = receive(&alice);
        let (len, got) = crypto.open_rtcp(&from_us, &mut bytes).unwrap();
        assert_eq!((&bytes[..len], got, from), (&clear[..], index, media));
    }

    // Unknown names are counted, not answered.
    packets.write(&PacketMessage::RtcpOut { leg: name("nobody"), bytes: clear }).unwrap();
    let counted = |control: &mut Client| {
        let Response::Counters(groups) = control.call(Request::Counters).unwrap() else { panic!("no counters") };
        let group = groups.into_iter().find(|group| group.group == "control").unwrap();
        group.counters.into_iter().find(|(name, _)| name == "down_unknown").unwrap().1
    };
    let end = Instant::now() + PATIENCE;
    while counted(&mut control) == 0 {
        assert!(Instant::now() < end);
    }
    assert_eq!(counted(&mut control), 1);
}

#[test]
fn a_new_packet_connection_takes_over_and_the_table_stays() {
    let forwarder = Forwarder::start();
    let mut control = forwarder.connect(Role::Table);
    let (alice, alice_at) = udp();
    let media = endpoint(2);
    apply(&mut control, table(media, alice_at));
    let before = snapshot(&mut control);
    let mut first = forwarder.connect(Role::Packet);
    let mut second = forwarder.connect(Role::Packet);
    assert!(first.read::<PacketMessage>().is_err(), "the first connection ends");
    let restart = request("fresh", "whatever password this", 3);
    alice.send_to(&restart, media).unwrap();
    assert!(matches!(second.read().unwrap(), PacketMessage::PacketIn { leg: Some(_), .. }));

    // Control went away and comes back: everything is as it was.
    drop((control, second));
    let mut control = forwarder.connect(Role::Table);
    assert_eq!(snapshot(&mut control), before);
    let text = format!("{before:?}");
    assert!(!text.contains("Password"), "a snapshot holds no secrets");

    // What only the forwarder may send ends the connection, and the forwarder goes on.
    let mut liar = forwarder.connect(Role::Packet);
    liar.write(&PacketMessage::RtcpIn { leg: name("alice"), bytes: vec![1] }).unwrap();
    assert!(liar.read::<PacketMessage>().is_err());
    assert_eq!(snapshot(&mut control), before);
}

#[test]
fn a_stuck_subscriber_loses_events_and_sees_the_gap() {
    let forwarder = Forwarder::start();
    let (mut control, mut stuck) = (forwarder.connect(Role::Table), forwarder.connect(Role::Table));
    assert!(matches!(stuck.call(Request::Subscribe).unwrap(), Response::Ok));
    let (_alice, alice_at) = udp();
    let with = table(endpoint(3), alice_at);
    let mut without = with.clone();
    without.legs.clear();
    // Two events must fit, and more than socket buffer and queue hold must come.
    for round in 0..20_000 {
        let table = if round % 2 == 0 { &with } else { &without };
        apply(&mut control, table.clone());
        if round % 1_000 == 999 && lost(&mut control) > 0 {
            break;
        }
    }
    assert!(lost(&mut control) > 0, "the queue is bounded");
    let total = snapshot(&mut control).event_sequence;
    let mut seen = Vec::new();
    stuck.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    while let Ok(reply) = stuck.receive() {
        let Response::Event(record) = reply.response else { panic!("{reply:?}") };
        assert!(matches!(record.event, Event::TableChanged { .. }));
        assert!(seen.last().is_none_or(|last| record.sequence > *last));
        seen.push(record.sequence);
    }
    assert!((seen.len() as u64) < total, "{} of {total}", seen.len());
}

fn lost(control: &mut Client) -> u64 {
    let Response::Counters(groups) = control.call(Request::Counters).unwrap() else { panic!("no counters") };
    let group = groups.into_iter().find(|group| group.group == "control").unwrap();
    group.counters.into_iter().find(|(name, _)| name == "events_lost").unwrap().1
}

#[test]
fn hostile_bytes_on_the_packet_connection_end_it() {
    use std::io::{Read, Write};
    let forwarder = Forwarder::start();
    let hello = sluice_table::protocol::encode(&sluice_table::protocol::Hello::new(Role::Packet), 1_024).unwrap();
    for junk in [vec![0xff; 64], vec![3, 0, 0, 0, 9, 9, 9], (0..=255).collect::<Vec<u8>>()] {
        let mut stream = std::os::unix::net::UnixStream::connect(&forwarder.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&hello).unwrap();
        stream.write_all(&junk).unwrap();
        let mut rest = Vec::new();
        // Greeting, then the end; a reset if the forwarder had not read all of it.
        let _ = stream.read_to_end(&mut rest);
    }
    let mut wrong = forwarder.connect(Role::Table);
    assert!(matches!(wrong.call(Request::Snapshot).unwrap(), Response::Snapshot(_)));
}
