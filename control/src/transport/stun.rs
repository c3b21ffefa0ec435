//! What tells datagrams of one socket apart (RFC 7983, RFC 9443) and the binding messages ICE sends. Looks only at the
//! bytes; who may send what is decided in `agent`.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use is::stun::{StunMessage, TransId};

use super::Credentials;

const HEADER: usize = 20;
const MAGIC: [u8; 4] = 0x2112_a442_u32.to_be_bytes();
const USERNAME: u16 = 0x0006;
/// Longest message read; peers send some 110 bytes, the rest is room for attributes nobody needs.
pub(super) const MAX_STUN: usize = 1_280;
/// Room for anything sent: header, two fragments of 256 characters, priority, role, integrity, fingerprint.
const MAX_SENT: usize = 640;

/// A 96-bit transaction id (RFC 8489 §5).
pub type TransactionId = [u8; 12];

/// What a datagram carries, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 0 to 3.
    Stun,
    /// 20 to 63: DTLS 1.2 and 1.3 records.
    Dtls,
    /// Anything else, media among it.
    Other,
}

/// Tells what a datagram carries.
pub fn protocol(bytes: &[u8]) -> Protocol {
    match bytes.first() {
        Some(0..=3) => Protocol::Stun,
        Some(20..=63) => Protocol::Dtls,
        _ => Protocol::Other,
    }
}

fn header(bytes: &[u8]) -> Option<u16> {
    let kind = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    let length = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    let sound = bytes.len() >= HEADER && kind < 0x4000 && length % 4 == 0 && bytes[4..8] == MAGIC;
    (sound && length + HEADER == bytes.len()).then_some(kind)
}

/// Whether the bytes are a binding request.
pub fn is_stun_request(bytes: &[u8]) -> bool {
    header(bytes) == Some(0x0001)
}

/// Whether the bytes are a success or error response to a binding request.
pub fn is_stun_response(bytes: &[u8]) -> bool {
    matches!(header(bytes), Some(0x0101 | 0x0111))
}

/// The transaction id of a STUN message; a response carries its request's.
pub fn transaction_id(bytes: &[u8]) -> Option<TransactionId> {
    header(bytes)?;
    bytes.get(8..HEADER)?.try_into().ok()
}

/// The receiver's user fragment in a binding request, which is what tells whose request it is; nothing is verified.
pub fn stun_ufrag(bytes: &[u8]) -> Option<&str> {
    if !is_stun_request(bytes) {
        return None;
    }
    let mut rest = &bytes[HEADER..];
    while let [k0, k1, l0, l1, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = tail.get(..length)?;
        if u16::from_be_bytes([*k0, *k1]) == USERNAME {
            return std::str::from_utf8(value).ok()?.split_once(':').map(|(local, _)| local);
        }
        rest = tail.get(length.next_multiple_of(4)..)?;
    }
    None
}

pub(super) fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// A check of ours about to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) transaction: TransId,
    pub(super) controlling: bool,
    pub(super) tie_breaker: u64,
    pub(super) priority: u32,
    pub(super) nominate: bool,
}

pub(super) fn write_check(local: &Credentials, remote: &Credentials, check: &Check) -> Option<Vec<u8>> {
    let username = format!("{}:{}", remote.ufrag, local.ufrag);
    let Check { transaction, controlling, tie_breaker, priority, nominate } = *check;
    let message = StunMessage::binding_request(&username, transaction, controlling, tie_breaker, priority, nominate);
    write(message, &remote.password)
}

pub(super) fn write_reply(local: &Credentials, transaction: TransId, to: SocketAddr) -> Option<Vec<u8>> {
    write(StunMessage::binding_reply(transaction, to), &local.password)
}

pub(super) fn write_role_conflict(local: &Credentials, transaction: TransId) -> Option<Vec<u8>> {
    write(StunMessage::binding_role_conflict_reply(transaction), &local.password)
}

#[allow(clippy::large_types_passed_by_value, reason = "`is` takes it by value")]
fn write(message: StunMessage<'_>, password: &str) -> Option<Vec<u8>> {
    let mut buffer = [0; MAX_SENT];
    let length = message.to_bytes(Some(password.as_bytes()), &mut buffer, hmac_sha1).ok()?;
    Some(buffer[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(ufrag: &str) -> Credentials {
        Credentials { ufrag: ufrag.into(), password: "0123456789abcdef012345".into() }
    }

    fn request() -> Vec<u8> {
        let check =
            Check { transaction: TransId::new(), controlling: true, tie_breaker: 7, priority: 1, nominate: true };
        write_check(&credentials("mine"), &credentials("theirs"), &check).unwrap()
    }

    #[test]
    fn a_request_names_its_receiver() {
        let bytes = request();
        assert_eq!(stun_ufrag(&bytes), Some("theirs"));
        assert!(is_stun_request(&bytes) && !is_stun_response(&bytes));
        assert_eq!(transaction_id(&bytes).unwrap(), bytes[8..20]);
        assert_eq!(protocol(&bytes), Protocol::Stun);
    }

    #[test]
    fn a_response_is_told_apart() {
        let bytes = write_reply(&credentials("mine"), TransId::new(), "192.0.2.1:9".parse().unwrap()).unwrap();
        assert!(is_stun_response(&bytes));
        assert_eq!(stun_ufrag(&bytes), None);
    }

    #[test]
    fn cut_and_lengthened_messages_name_nobody() {
        let bytes = request();
        for end in 0..bytes.len() {
            assert_eq!(stun_ufrag(&bytes[..end]), None, "{end}");
            assert_eq!(transaction_id(&bytes[..end]), None, "{end}");
        }
        for at in 20..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] = 0xff;
            let _ = stun_ufrag(&broken);
        }
    }

    #[test]
    fn long_messages_are_read() {
        let mut bytes = request();
        bytes.resize(1_200, 0);
        let length = (bytes.len() - HEADER) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(stun_ufrag(&bytes), Some("theirs"));
    }

    #[test]
    fn first_bytes() {
        let kinds = [(0, Protocol::Stun), (3, Protocol::Stun), (4, Protocol::Other), (19, Protocol::Other)];
        for (byte, kind) in kinds.into_iter().chain([(20, Protocol::Dtls), (63, Protocol::Dtls), (64, Protocol::Other)])
        {
            assert_eq!(protocol(&[byte]), kind, "{byte}");
        }
        assert_eq!(protocol(&[]), Protocol::Other);
    }
}
