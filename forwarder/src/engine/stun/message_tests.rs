use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// RFC 5769 §2.1.
fn sample_request() -> Vec<u8> {
    unhex(
        "00010058 2112a442 b7e7a701bc34d686fa87dfae
         80220010 5354554e207465737420636c69656e74
         00240004 6e0001ff
         80290008 932ff9b151263b36
         00060009 6576746a3a68367659202020
         00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
         80280004 e57a3bcf",
    )
}

/// RFC 5769 §2.2.
fn sample_ipv4_response() -> Vec<u8> {
    unhex(
        "0101003c 2112a442 b7e7a701bc34d686fa87dfae
         8022000b 7465737420766563746f7220
         00200008 0001a147e112a643
         00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
         80280004 c07d4c96",
    )
}

/// RFC 5769 §2.3.
fn sample_ipv6_response() -> Vec<u8> {
    unhex(
        "01010048 2112a442 b7e7a701bc34d686fa87dfae
         8022000b 7465737420766563746f7220
         00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
         00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
         80280004 c8fb0b4c",
    )
}

#[test]
fn rfc_5769_vectors() {
    let key = IntegrityKey::new(PASSWORD);
    let request = sample_request();
    let message = Message::parse(&request).unwrap();
    assert_eq!((message.class, message.method), (Class::Request, BINDING));
    assert_eq!(message.username, Some(&b"evtj:h6vY"[..]));
    assert!(message.is_for("evtj", "h6vY"));
    assert!(!message.is_for("evtj", "h6v") && !message.is_for("evt", "h6vY") && !message.is_for("evtj:", "h6vY"));
    assert_eq!(message.priority, Some(0x6e00_01ff));
    assert_eq!(message.role, Some((Role::Controlled, 0x932f_f9b1_5126_3b36)));
    assert!(message.fingerprint && message.verify(&key) && !message.verify(&IntegrityKey::new("another")));
    assert!(!message.unknown_required);

    for (bytes, mapped) in [
        (sample_ipv4_response(), "192.0.2.1:32853"),
        (sample_ipv6_response(), "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class, message.method), (Class::Success, BINDING));
        assert_eq!(message.mapped.map(SocketAddr::from), Some(mapped.parse().unwrap()));
        assert!(message.fingerprint && message.verify(&key));
    }
}

#[test]
fn what_is_built_parses() {
    let key = IntegrityKey::new(PASSWORD);
    let id = [7; 12];
    let mut out = [0xaa; MAX_BUILT];
    let long = "x".repeat(256);
    let len = Builder::new(&mut out, Class::Request, BINDING, &id)
        .username(&long, &long)
        .priority(9)
        .role(Role::Controlling, 77)
        .use_candidate()
        .finish(&key)
        .unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!((message.class, message.method, message.transaction), (Class::Request, BINDING, id));
    assert!(message.is_for(&long, &long) && message.use_candidate && message.fingerprint && message.verify(&key));
    assert_eq!((message.priority, message.role), (Some(9), Some((Role::Controlling, 77))));

    for address in ["192.0.2.9:1", "[2001:db8::9]:65535"] {
        let address = Address::from(address.parse::<SocketAddr>().unwrap());
        let len = Builder::new(&mut out, Class::Success, BINDING, &id).mapped(address).finish(&key).unwrap();
        assert_eq!(Message::parse(&out[..len]).unwrap().mapped, Some(address));
    }
    let len = Builder::new(&mut out, Class::Error, 3, &id).error(487).finish(&key).unwrap();
    let message = Message::parse(&out[..len]).unwrap();
    assert_eq!((message.class, message.method, message.error), (Class::Error, 3, Some(487)));

    for room in 0..len {
        let built = Builder::new(&mut out[..room], Class::Error, 3, &id).error(487).finish(&key);
        assert_eq!(built, None, "{len} bytes do not fit into {room}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let key = IntegrityKey::new(PASSWORD);
    let good = sample_request();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A longer attribute may swallow the fingerprint, but then there is none, and no integrity.
        let passes = |bytes: &[u8]| Message::parse(bytes).is_ok_and(|m| m.fingerprint || m.verify(&key));
        if bit / 8 >= good.len() - 8 {
            // The fingerprint is behind the integrity, which holds without it.
            assert!(!Message::parse(&bytes).is_ok_and(|m| m.fingerprint), "bit {bit} passes");
            continue;
        }
        assert!(!passes(&bytes), "bit {bit} passes");
        // Without the fingerprint the integrity must notice it.
        bytes.truncate(good.len() - 8);
        if bit / 8 != 2 && bit / 8 != 3 {
            bytes[2..4].copy_from_slice(&((good.len() - 8 - HEADER_LEN) as u16).to_be_bytes());
            assert!(!passes(&bytes), "bit {bit} passes the integrity");
        }
    }
}

#[test]
fn attributes_behind_the_integrity_do_not_count() {
    let mut bytes = sample_request();
    bytes.truncate(bytes.len() - 8);
    bytes.extend([0, 0x25, 0, 0]);
    let len = (bytes.len() - HEADER_LEN) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify(&IntegrityKey::new(PASSWORD)) && !message.use_candidate);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), frame in any::<bool>()) {
        if frame && bytes.len() >= HEADER_LEN {
            bytes.truncate(bytes.len() / 4 * 4);
            let len = (bytes.len() - HEADER_LEN) as u16;
            bytes[0] &= 0x3f;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&COOKIE.to_be_bytes());
        }
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(!message.verify(&IntegrityKey::new(PASSWORD)));
        }
    }

    #[test]
    fn scribbled_messages_never_panic(at in 0usize..108, byte in any::<u8>(), len in 0usize..109) {
        let mut bytes = sample_request();
        bytes[at] = byte;
        let _ = Message::parse(&bytes);
        let _ = Message::parse(&bytes[..len.min(bytes.len())]);
    }
}
