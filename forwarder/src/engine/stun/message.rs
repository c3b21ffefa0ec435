//! STUN messages (RFC 8489) as far as ICE needs them: parsing without copies, building in place, short-term
//! integrity and fingerprint. Knows no leg and keeps no state.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::wire::frame::Address;
use crate::wire::{be16, be32};

/// Header length in bytes.
pub const HEADER_LEN: usize = 20;
/// The binding method.
pub const BINDING: u16 = 1;
/// Largest message that [`Builder`] writes for a leg: a binding request with two user fragments of 256 characters.
pub const MAX_BUILT: usize = 640;

const COOKIE: u32 = 0x2112_a442;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const INTEGRITY_LEN: usize = 20;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;
/// Comprehension-required attributes without meaning here: MAPPED-ADDRESS, UNKNOWN-ATTRIBUTES, REALM, NONCE,
/// MESSAGE-INTEGRITY-SHA256.
const HARMLESS: [u16; 5] = [0x0001, 0x000a, 0x0014, 0x0015, 0x001c];

/// A transaction id.
pub type TransactionId = [u8; 12];

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Header, magic cookie or length wrong.
    #[error("header malformed")]
    Header,
    /// An attribute is longer than the message, or shorter than its kind needs.
    #[error("attribute malformed")]
    Attribute,
    /// The fingerprint does not match, or is not the last attribute.
    #[error("fingerprint wrong")]
    Fingerprint,
}

/// A message's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// An ICE role (RFC 8445 §6.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nominates.
    Controlling,
    /// Is nominated to.
    Controlled,
}

/// A short-term password, prepared for HMAC-SHA1. Zeroed on drop, never printed.
#[derive(Clone)]
pub struct IntegrityKey(Hmac<Sha1>);

impl std::fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IntegrityKey")
    }
}

impl IntegrityKey {
    /// From a password of any length.
    pub fn new(password: &str) -> IntegrityKey {
        // HMAC takes keys of every length; the fallback is a key nobody can guess to have.
        let mac = <Hmac<Sha1> as KeyInit>::new_from_slice(password.as_bytes());
        IntegrityKey(mac.unwrap_or_else(|_| <Hmac<Sha1> as KeyInit>::new(&hmac::digest::Key::<Hmac<Sha1>>::default())))
    }

    /// Over the message up to its integrity attribute at `at`, with the length that ends behind it.
    fn over(&self, message: &[u8], at: usize) -> Hmac<Sha1> {
        let mut mac = self.0.clone();
        mac.update(&message[..2]);
        mac.update(&((at + 4 + INTEGRITY_LEN - HEADER_LEN) as u16).to_be_bytes());
        mac.update(&message[4..at]);
        mac
    }
}

/// A parsed message. Of an attribute that occurs twice the first one counts; what follows MESSAGE-INTEGRITY is
/// ignored, except the fingerprint.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// Class.
    pub class: Class,
    /// Method, 12 bits.
    pub method: u16,
    /// Transaction id.
    pub transaction: TransactionId,
    /// USERNAME.
    pub username: Option<&'a [u8]>,
    /// PRIORITY.
    pub priority: Option<u32>,
    /// USE-CANDIDATE.
    pub use_candidate: bool,
    /// The sender's role and tie-breaker.
    pub role: Option<(Role, u64)>,
    /// XOR-MAPPED-ADDRESS.
    pub mapped: Option<Address>,
    /// ERROR-CODE, 300 to 699.
    pub error: Option<u16>,
    /// Whether there is a comprehension-required attribute that is not known here.
    pub unknown_required: bool,
    /// Whether a fingerprint is present; a wrong one is an error of [`Message::parse`].
    pub fingerprint: bool,
    integrity_at: Option<usize>,
}

impl<'a> Message<'a> {
    /// Parses one message that fills `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, StunError> {
        if bytes.len() < HEADER_LEN || !bytes.len().is_multiple_of(4) || bytes[0] >> 6 != 0 {
            return Err(StunError::Header);
        }
        if be32(bytes, 4) != COOKIE || usize::from(be16(bytes, 2)) + HEADER_LEN != bytes.len() {
            return Err(StunError::Header);
        }
        let kind = be16(bytes, 0);
        let mut message = Message {
            bytes,
            class: match (kind >> 8 & 1, kind >> 4 & 1) {
                (0, 0) => Class::Request,
                (0, _) => Class::Indication,
                (_, 0) => Class::Success,
                (_, _) => Class::Error,
            },
            method: (kind & 0x000f) | (kind >> 1 & 0x0070) | (kind >> 2 & 0x0f80),
            transaction: transaction(bytes),
            username: None,
            priority: None,
            use_candidate: false,
            role: None,
            mapped: None,
            error: None,
            unknown_required: false,
            fingerprint: false,
            integrity_at: None,
        };
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            // The length is a multiple of four, so there are four bytes at least.
            let (kind, len) = (be16(bytes, at), usize::from(be16(bytes, at + 2)));
            let value = bytes.get(at + 4..at + 4 + len).ok_or(StunError::Attribute)?;
            let next = at + 4 + len.next_multiple_of(4);
            if next > bytes.len() {
                return Err(StunError::Attribute);
            }
            message.attribute(kind, value, at, next)?;
            at = next;
        }
        Ok(message)
    }

    fn attribute(&mut self, kind: u16, value: &'a [u8], at: usize, next: usize) -> Result<(), StunError> {
        if kind == FINGERPRINT {
            let [a, b, c, d] = *value else { return Err(StunError::Fingerprint) };
            if next != self.bytes.len() || u32::from_be_bytes([a, b, c, d]) != fingerprint(&self.bytes[..at]) {
                return Err(StunError::Fingerprint);
            }
            self.fingerprint = true;
            return Ok(());
        }
        if self.integrity_at.is_some() {
            return Ok(());
        }
        match kind {
            USERNAME if value.len() > 513 => return Err(StunError::Attribute),
            USERNAME => self.username = self.username.or(Some(value)),
            MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => self.integrity_at = Some(at),
            PRIORITY if value.len() == 4 => self.priority = self.priority.or(Some(be32(value, 0))),
            USE_CANDIDATE if value.is_empty() => self.use_candidate = true,
            ICE_CONTROLLED | ICE_CONTROLLING if value.len() == 8 => {
                let role = if kind == ICE_CONTROLLED { Role::Controlled } else { Role::Controlling };
                let tie_breaker = u64::from(be32(value, 0)) << 32 | u64::from(be32(value, 4));
                self.role = self.role.or(Some((role, tie_breaker)));
            }
            XOR_MAPPED_ADDRESS => {
                let mapped = self.unmap(value).ok_or(StunError::Attribute)?;
                self.mapped = self.mapped.or(Some(mapped));
            }
            ERROR_CODE if value.len() >= 4 => {
                let code = u16::from(value[2] & 7) * 100 + u16::from(value[3]);
                if !(300..700).contains(&code) || value[3] > 99 {
                    return Err(StunError::Attribute);
                }
                self.error = self.error.or(Some(code));
            }
            MESSAGE_INTEGRITY | PRIORITY | USE_CANDIDATE | ICE_CONTROLLED | ICE_CONTROLLING | ERROR_CODE => {
                return Err(StunError::Attribute);
            }
            _ if kind & 0x8000 == 0 && !HARMLESS.contains(&kind) => self.unknown_required = true,
            _ => {}
        }
        Ok(())
    }

    fn unmap(&self, value: &[u8]) -> Option<Address> {
        let port = |value: &[u8]| be16(value, 2) ^ (COOKIE >> 16) as u16;
        match (value.get(1)?, value.len()) {
            (1, 8) => Some(Address::v4(be32(value, 4) ^ COOKIE, port(value))),
            (2, 20) => {
                let bytes: [u8; 16] = value[4..].try_into().ok()?;
                Some(Address { ip: u128::from_be_bytes(bytes) ^ mask(&self.transaction), port: port(value) })
            }
            _ => None,
        }
    }

    /// Whether MESSAGE-INTEGRITY is there and right; compares in constant time.
    pub fn verify(&self, key: &IntegrityKey) -> bool {
        self.integrity_at.is_some_and(|at| {
            let tag = &self.bytes[at + 4..at + 4 + INTEGRITY_LEN];
            key.over(self.bytes, at).verify_slice(tag).is_ok()
        })
    }

    /// Whether MESSAGE-INTEGRITY is there.
    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    /// Whether USERNAME is `ours:theirs`.
    pub fn is_for(&self, ours: &str, theirs: &str) -> bool {
        let rest = self.username.and_then(|name| name.strip_prefix(ours.as_bytes()));
        rest.and_then(|rest| rest.strip_prefix(b":")) == Some(theirs.as_bytes())
    }
}

fn transaction(bytes: &[u8]) -> TransactionId {
    let mut id = [0; 12];
    id.copy_from_slice(&bytes[8..HEADER_LEN]);
    id
}

/// What an `IPv6` address is masked with.
fn mask(transaction: &TransactionId) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&COOKIE.to_be_bytes());
    bytes[4..].copy_from_slice(transaction);
    u128::from_be_bytes(bytes)
}

fn fingerprint(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) ^ FINGERPRINT_XOR
}

/// Writes one message into the memory it is sent from.
#[derive(Debug)]
pub struct Builder<'a> {
    out: &'a mut [u8],
    len: usize,
    full: bool,
}

impl<'a> Builder<'a> {
    /// Starts a message in `out`.
    pub fn new(out: &'a mut [u8], class: Class, method: u16, transaction: &TransactionId) -> Builder<'a> {
        let class = class as u16;
        let kind =
            (method & 0x000f) | (method & 0x0070) << 1 | (method & 0x0f80) << 2 | (class & 1) << 4 | (class & 2) << 7;
        let mut builder = Builder { out, len: 0, full: false };
        for part in [&kind.to_be_bytes()[..], &[0, 0], &COOKIE.to_be_bytes(), transaction] {
            builder.push(part);
        }
        builder
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.len..self.len + bytes.len()) {
            Some(place) if !self.full => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.full = true,
        }
    }

    fn attribute(&mut self, kind: u16, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.push(&kind.to_be_bytes());
        self.push(&(len as u16).to_be_bytes());
        for part in parts {
            self.push(part);
        }
        self.push(&[0; 3][..len.next_multiple_of(4) - len]);
    }

    /// USERNAME of the receiver's and the sender's user fragment.
    #[must_use]
    pub fn username(mut self, theirs: &str, ours: &str) -> Self {
        self.attribute(USERNAME, &[theirs.as_bytes(), b":", ours.as_bytes()]);
        self
    }

    /// PRIORITY.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.attribute(PRIORITY, &[&priority.to_be_bytes()]);
        self
    }

    /// USE-CANDIDATE.
    #[must_use]
    pub fn use_candidate(mut self) -> Self {
        self.attribute(USE_CANDIDATE, &[]);
        self
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED.
    #[must_use]
    pub fn role(mut self, role: Role, tie_breaker: u64) -> Self {
        let kind = if role == Role::Controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
        self.attribute(kind, &[&tie_breaker.to_be_bytes()]);
        self
    }

    /// XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn mapped(mut self, address: Address) -> Self {
        let port = (address.port ^ (COOKIE >> 16) as u16).to_be_bytes();
        if address.is_v4() {
            let ip = (address.ip as u32 ^ COOKIE).to_be_bytes();
            self.attribute(XOR_MAPPED_ADDRESS, &[&[0, 1], &port, &ip]);
        } else {
            let mask = self.out.get(..HEADER_LEN).map_or(0, |header| mask(&transaction(header)));
            self.attribute(XOR_MAPPED_ADDRESS, &[&[0, 2], &port, &(address.ip ^ mask).to_be_bytes()]);
        }
        self
    }

    /// ERROR-CODE, 300 to 699, without a reason phrase.
    #[must_use]
    pub fn error(mut self, code: u16) -> Self {
        self.attribute(ERROR_CODE, &[&[0, 0, (code / 100) as u8, (code % 100) as u8]]);
        self
    }

    /// Adds MESSAGE-INTEGRITY and FINGERPRINT; returns the message's length, `None` if it did not fit.
    pub fn finish(mut self, key: &IntegrityKey) -> Option<usize> {
        let at = self.len;
        if self.full {
            return None;
        }
        let tag = key.over(&self.out[..at], at).finalize().into_bytes();
        self.attribute(MESSAGE_INTEGRITY, &[&tag]);
        let at = self.len;
        if self.full {
            return None;
        }
        self.set_length(at + 8);
        let crc = fingerprint(&self.out[..at]);
        self.attribute(FINGERPRINT, &[&crc.to_be_bytes()]);
        (!self.full).then_some(self.len)
    }

    fn set_length(&mut self, len: usize) {
        self.out[2..4].copy_from_slice(&((len - HEADER_LEN) as u16).to_be_bytes());
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
