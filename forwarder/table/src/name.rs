//! Checked names. Never resolves a name to a row.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Name;

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("a name is empty; expected 1 to 120 printable ASCII characters without spaces")]
    Empty,
    /// More than [`Name::MAX_LEN`] bytes.
    #[error("a name is {0} bytes long; expected at most 120")]
    TooLong(usize),
    /// A space, a control character or something outside ASCII.
    #[error("a name holds {found:?} at byte {at}; expected printable ASCII without spaces")]
    Character {
        /// The character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
}

impl Name {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 120;

    /// Checks and takes a name.
    pub fn new(text: &str) -> Result<Name, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Name::MAX_LEN {
            return Err(NameError::TooLong(text.len()));
        }
        match text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
            Some((at, found)) => Err(NameError::Character { found, at }),
            None => Ok(Name(Arc::from(text))),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Name, NameError> {
        Name::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Name, NameError> {
        Name::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("1 to 120 printable ASCII characters without spaces")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_printable_ascii_only() {
        assert_eq!(Name::new("room-1/alice:v0").unwrap().as_str(), "room-1/alice:v0");
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(&"x".repeat(120)).unwrap().as_str().len(), 120);
        assert_eq!(Name::new(&"x".repeat(121)), Err(NameError::TooLong(121)));
        assert_eq!(Name::new("a b"), Err(NameError::Character { found: ' ', at: 1 }));
        assert_eq!(Name::new("é"), Err(NameError::Character { found: 'é', at: 0 }));
        assert_eq!(Name::new("a\u{7f}"), Err(NameError::Character { found: '\u{7f}', at: 1 }));
    }

    #[test]
    fn decoding_checks() {
        let good = postcard::to_stdvec("leg-1").unwrap();
        assert_eq!(postcard::from_bytes::<Name>(&good).unwrap().as_str(), "leg-1");
        for bad in ["", "a b", "\n"] {
            let bytes = postcard::to_stdvec(bad).unwrap();
            assert!(postcard::from_bytes::<Name>(&bytes).is_err(), "{bad:?}");
        }
    }
}
