//! Master keys (what control hands over) and session keys (what a provider expanded from them).
//! Nothing here ever prints, logs or returns a session key; a master key prints as its fingerprint.

use std::fmt;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::profile::Profile;

/// A key's public name: 8 hex digits of a one-way hash; the only form in which keys are ever printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub u32);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A 16-byte one-way name of a master key, wide enough to find index rows by and to notice a key that is in
/// use elsewhere. Equal for keys that would derive the same session keys, whatever their profile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A prefix is enough to tell rows apart while reading.
        write!(f, "KeyId({:02x}{:02x}{:02x}{:02x}..)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// Why bytes are not a master key of the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key part has the wrong length.
    #[error("a {} master key is {expected} bytes, got {got}", profile.name())]
    KeyLength {
        /// Profile asked for.
        profile: Profile,
        /// Bytes the profile takes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The salt part has the wrong length.
    #[error("a {} master salt is {expected} bytes, got {got}", profile.name())]
    SaltLength {
        /// Profile asked for.
        profile: Profile,
        /// Bytes the profile takes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// Key and salt together have the wrong length.
    #[error("a {} key and salt are {expected} bytes together, got {got}", profile.name())]
    Length {
        /// Profile asked for.
        profile: Profile,
        /// Bytes the profile takes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}

/// A master key and salt for one direction. Zeroed on drop, printed as its fingerprint, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "RawMasterKey")]
pub struct MasterKey {
    #[zeroize(skip)]
    profile: Profile,
    /// Key, then salt; on the heap so that moving the owner leaves no copy behind.
    bytes: Vec<u8>,
}

impl MasterKey {
    /// A master key from its key and salt ([`Profile::key_len`] and [`Profile::salt_len`] bytes).
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        if key.len() != profile.key_len() {
            return Err(KeyError::KeyLength { profile, expected: profile.key_len(), got: key.len() });
        }
        if salt.len() != profile.salt_len() {
            return Err(KeyError::SaltLength { profile, expected: profile.salt_len(), got: salt.len() });
        }
        let mut bytes = Vec::with_capacity(key.len() + salt.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(salt);
        Ok(MasterKey { profile, bytes })
    }

    /// A master key from key and salt written one after the other, as SDES (RFC 4568 §6.1) carries them.
    pub fn from_bytes(profile: Profile, key_and_salt: &[u8]) -> Result<Self, KeyError> {
        let expected = profile.key_len() + profile.salt_len();
        if key_and_salt.len() != expected {
            return Err(KeyError::Length { profile, expected, got: key_and_salt.len() });
        }
        Ok(MasterKey { profile, bytes: key_and_salt.to_vec() })
    }

    /// The profile the key is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The master key, secret.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.profile.key_len()]
    }

    /// The master salt; treated as secret too.
    pub fn salt(&self) -> &[u8] {
        &self.bytes[self.profile.key_len()..]
    }

    /// The public name: 32 bits of a labelled SHA-256.
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = self.labelled_hash(b"sluice srtp key fingerprint v1");
        Fingerprint(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
    }

    /// The wide one-way name, for index rows and for finding a second user of a key.
    pub fn key_id(&self) -> KeyId {
        let hash = self.labelled_hash(b"sluice srtp key id v1");
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        KeyId(id)
    }

    /// The profile stays out and short salts are padded as key derivation pads them (RFC 7714 §12), so that two
    /// master keys which derive the same session keys get one name.
    fn labelled_hash(&self, label: &[u8]) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[label.len() as u8]);
        context.update(label);
        context.update(&[self.key().len() as u8]);
        context.update(self.key());
        context.update(self.salt());
        context.update(&[0; 14][self.salt().len()..]);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.profile == other.profile && bool::from(self.bytes.ct_eq(&other.bytes))
    }
}

impl Eq for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({}, {})", self.profile.name(), self.fingerprint())
    }
}

/// What a master key is read from, before its lengths are checked.
#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct RawMasterKey {
    #[zeroize(skip)]
    profile: Profile,
    bytes: Vec<u8>,
}

impl TryFrom<RawMasterKey> for MasterKey {
    type Error = KeyError;

    fn try_from(raw: RawMasterKey) -> Result<Self, KeyError> {
        MasterKey::from_bytes(raw.profile, &raw.bytes)
    }
}

/// A master key expanded by a provider, one direction, RTP and RTCP. Zeroed on drop.
#[derive(Debug)]
pub struct SessionKeys {}
