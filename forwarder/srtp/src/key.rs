//! Master keys (what control hands over) and session keys (what a provider expanded from them).

use std::fmt;

use serde::{Deserialize, Serialize};
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

/// A master key and salt for one direction. Zeroed on drop, printed as its fingerprint.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
pub struct MasterKey {
    #[zeroize(skip)]
    profile: Profile,
    bytes: Vec<u8>,
}

/// A master key expanded by a provider, one direction, RTP and RTCP. Zeroed on drop.
#[derive(Debug)]
pub struct SessionKeys {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.profile.name())
    }
}
