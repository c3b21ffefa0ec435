//! What every fuzz target checks, one function a parser: no panic, and what was understood is true of the input.
//! Shared by libFuzzer's binaries and by the test that runs the corpora; reads and writes nothing.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_forwarder::engine::rtcp::well_formed;
use sluice_forwarder::engine::stun::message::{Builder, IntegrityKey, Message as StunMessage};
use sluice_forwarder::io::headers::Headers;
use sluice_forwarder::wire::extension::{BlockWriter, Elements};
use sluice_forwarder::wire::frame::{Class, classify, parse};
use sluice_forwarder::wire::rtcp::{Message, Walk};
use sluice_forwarder::wire::rtp as header;
use sluice_table::file::{Origin, parse as parse_table};
use sluice_table::protocol::frame::decode;
use sluice_table::protocol::{Call, Decoder, Greeting, Hello, PacketMessage, Reply, Request, TABLE_LIMIT, encode};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Names are those of the binaries and of the directories below `corpus`.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("stun", stun),
    ("table_protocol", table_protocol),
    ("table_file", table_file),
];

/// Ethernet, VLAN, IP and UDP headers by both readers, and the class of the payload.
pub fn frame(data: &[u8]) {
    let engine = parse(data);
    let port = Headers::parse(data);
    if let Ok(datagram) = engine {
        let payload = &data[datagram.payload_at..datagram.payload_at + datagram.payload_len];
        let class = classify(payload);
        assert_eq!(payload.first().is_some_and(|first| first >> 6 == 2), matches!(class, Class::Rtp | Class::Rtcp));
        // Whatever both understand they understand alike.
        if let Some((headers, range)) = &port {
            assert_eq!((range.start, range.len()), (datagram.payload_at, datagram.payload_len));
            assert_eq!(std::net::SocketAddr::from(datagram.destination).port(), headers.destination.port());
        }
    }
    if let Some((_, range)) = port {
        assert!(range.start <= range.end && range.end <= data.len());
    }
}

/// RTP headers and RFC 8285 elements; what was read is written again and read back.
pub fn rtp(data: &[u8]) {
    let data = &data[..data.len().min(usize::from(u16::MAX))];
    let Ok(header) = header::parse(data) else { return };
    assert!(header.len >= header::FIXED_LEN + usize::from(header.csrc_count) * 4 && header.len <= data.len());
    let Some(block) = header.extension else { return };
    assert!(usize::from(block.end) == header.len);
    let mut elements = Elements::new(data, block);
    let mut found = Vec::new();
    for element in elements.by_ref() {
        let (at, len) = (usize::from(element.at), usize::from(element.len));
        assert!(at > usize::from(block.start) && at + len <= usize::from(block.end) && element.id != 0);
        found.push((element.id, &data[at..at + len]));
        assert!(found.len() <= data.len());
    }
    // A block never grows by being written in the form it had; one word of slack is the writer's.
    let mut out = vec![0xff; data.len() + 8];
    let two_byte = block.profile != sluice_forwarder::wire::extension::ONE_BYTE;
    let mut writer = BlockWriter::new(&mut out, two_byte);
    for (id, bytes) in &found {
        assert!(writer.push(*id, bytes), "id {id} of {} bytes", bytes.len());
    }
    let len = writer.finish();
    assert_eq!(len % 4, 0);
    let again = header::ExtensionBlock {
        profile: if len == 0 { 0 } else { u16::from_be_bytes([out[0], out[1]]) },
        start: 4,
        end: len.max(4) as u16,
    };
    let read: Vec<_> = Elements::new(&out, again)
        .map(|e| (e.id, &out[usize::from(e.at)..usize::from(e.at) + usize::from(e.len)]))
        .collect();
    assert_eq!(read, found);
}

/// Compound RTCP: lengths that add up cover the packet exactly, and what a packet says stays inside it.
pub fn rtcp(data: &[u8]) {
    for packet in Walk::new(data) {
        assert!(packet.whole.len() % 4 == 0 && packet.body.len() + 4 <= packet.whole.len());
        match packet.message() {
            Some(Message::SenderReport { blocks, .. } | Message::ReceiverReport { blocks, .. }) => {
                assert_eq!(blocks.iter().count(), usize::from(packet.count));
            }
            Some(Message::Nack(nack)) => assert!(nack.lost().count() <= packet.body.len() * 17 / 4),
            Some(Message::Transport(feedback)) => {
                assert_eq!(feedback.arrivals().count(), usize::from(feedback.packets));
            }
            Some(Message::FullIntra(fir)) => assert!(fir.streams().count() * 8 <= packet.body.len()),
            _ => {}
        }
    }
    if !well_formed(data) {
        return;
    }
    let mut at = 0;
    while at < data.len() {
        assert_eq!(data[at] >> 6, 2);
        at += 4 * (usize::from(u16::from_be_bytes([data[at + 2], data[at + 3]])) + 1);
    }
    assert_eq!(at, data.len());
}

/// STUN: what was understood is built again, signed, and understood in the same way.
pub fn stun(data: &[u8]) {
    let Ok(message) = StunMessage::parse(data) else { return };
    let key = IntegrityKey::new("a password of 22 bytes");
    assert!(message.has_integrity() || !message.verify(&key));
    let mut out = [0; 2_048];
    let mut builder = Builder::new(&mut out, message.class, message.method, &message.transaction);
    let name = message.username.and_then(|name| std::str::from_utf8(name).ok()).and_then(|name| name.split_once(':'));
    if let Some((ours, theirs)) = name {
        assert!(message.is_for(ours, theirs));
        builder = builder.username(ours, theirs);
    }
    if let Some(priority) = message.priority {
        builder = builder.priority(priority);
    }
    if message.use_candidate {
        builder = builder.use_candidate();
    }
    if let Some((role, tie_breaker)) = message.role {
        builder = builder.role(role, tie_breaker);
    }
    if let Some(mapped) = message.mapped {
        builder = builder.mapped(mapped);
    }
    if let Some(code) = message.error {
        builder = builder.error(code);
    }
    let len = builder.finish(&key).expect("a user name of 513 bytes and the rest fit");
    let again = StunMessage::parse(&out[..len]).expect("it was just built");
    assert!(again.verify(&key) && again.fingerprint);
    assert!(!again.verify(&IntegrityKey::new("another password of 22")));
    assert_eq!((again.class, again.method, again.transaction), (message.class, message.method, message.transaction));
    assert_eq!(again.username.is_some(), name.is_some());
    assert_eq!(
        (again.priority, again.use_candidate, again.role, again.mapped, again.error),
        (message.priority, message.use_candidate, message.role, message.mapped, message.error)
    );
}

/// Messages of both connections. The first byte chooses the message, the rest is its body; the same bytes also go
/// through the stream decoder in pieces.
pub fn table_protocol(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    match choice % 5 {
        0 => drop(message::<Hello>(body)),
        1 => drop(message::<Greeting>(body)),
        2 => {
            if let Some(Call { request, .. }) = message::<Call>(body) {
                call(request);
            }
        }
        3 => drop(message::<Reply>(body)),
        _ => drop(message::<PacketMessage>(body)),
    }
    let limit = 4_096;
    let mut decoder = Decoder::new(limit);
    for piece in body.chunks(usize::from(*choice).max(1)) {
        decoder.extend(piece);
        loop {
            match decoder.next::<Call>() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return, // the connection ends here
            }
        }
        assert!(decoder.buffered() <= limit + 4 + piece.len());
    }
}

/// A message that is understood can be written and read again.
fn message<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) -> Option<T> {
    let message: T = decode(body).ok()?;
    let frame = encode(&message, TABLE_LIMIT).expect("it came from a smaller body");
    let again: T = decode(&frame[4..]).expect("it was just written");
    assert_eq!(again, message);
    Some(message)
}

/// What the forwarder does with a request before anything else.
fn call(request: Request) {
    match request {
        Request::Apply { table, .. } => {
            let valid = table.validate();
            let diff = sluice_table::Table::default().diff(&table);
            let mut applied = sluice_table::Table::default();
            assert_eq!(applied.apply(&diff).is_ok(), valid.is_ok());
            if valid.is_ok() {
                assert_eq!(applied, *table);
            } else {
                assert!(applied.is_empty(), "a refused table left rows behind");
            }
        }
        Request::Transaction { changes, .. } => {
            let mut table = sluice_table::Table::default();
            if table.apply(&changes).is_ok() {
                assert!(table.validate().is_ok());
            } else {
                assert!(table.is_empty(), "refused changes left rows behind");
            }
        }
        _ => {}
    }
}

/// Table files: a table that is taken is valid, one that is not says where and why, without the value of a key.
pub fn table_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let origin = Origin { file: PathBuf::from("/nonexistent/fuzz.toml"), mode: 0o600 };
    match parse_table(text, &origin) {
        Ok(table) => assert!(table.validate().is_ok()),
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(error.line <= text.split('\n').count() + 1, "{error}");
                assert!(!error.message.is_empty());
            }
        }
    }
}
