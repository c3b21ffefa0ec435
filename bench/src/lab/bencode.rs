//! The encoding of rtpengine's control messages: byte strings, integers, lists, dictionaries.

use std::collections::BTreeMap;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A byte string.
    Text(Vec<u8>),
    /// An integer.
    Number(i64),
    /// A list.
    List(Vec<Value>),
    /// A dictionary; keys in order.
    Dictionary(BTreeMap<Vec<u8>, Value>),
}

/// Values inside values that are followed; more is an error.
const DEPTH: u32 = 16;

impl Value {
    /// A string.
    pub(crate) fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().to_vec())
    }

    /// A dictionary.
    pub(crate) fn dictionary(pairs: &[(&str, Value)]) -> Value {
        Value::Dictionary(pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.clone())).collect())
    }

    /// The string under a key of a dictionary.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let Value::Dictionary(map) = self else { return None };
        match map.get(key.as_bytes()) {
            Some(Value::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// Appends the encoded value.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let string = |text: &[u8], into: &mut Vec<u8>| {
            into.extend_from_slice(text.len().to_string().as_bytes());
            into.push(b':');
            into.extend_from_slice(text);
        };
        match self {
            Value::Text(text) => string(text, into),
            Value::Number(number) => into.extend_from_slice(format!("i{number}e").as_bytes()),
            Value::List(values) => {
                into.push(b'l');
                for value in values {
                    value.encode(into);
                }
                into.push(b'e');
            }
            Value::Dictionary(map) => {
                into.push(b'd');
                for (key, value) in map {
                    string(key, into);
                    value.encode(into);
                }
                into.push(b'e');
            }
        }
    }

    /// Reads one value that fills `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Value> {
        let (value, rest) = Value::read(bytes, DEPTH)?;
        rest.is_empty().then_some(value)
    }

    fn read(bytes: &[u8], depth: u32) -> Option<(Value, &[u8])> {
        let depth = depth.checked_sub(1)?;
        match bytes.first()? {
            b'i' => {
                let end = bytes.iter().position(|byte| *byte == b'e')?;
                let number = std::str::from_utf8(&bytes[1..end]).ok()?.parse().ok()?;
                Some((Value::Number(number), &bytes[end + 1..]))
            }
            b'l' => {
                let (mut values, mut rest) = (Vec::new(), &bytes[1..]);
                while *rest.first()? != b'e' {
                    let (value, behind) = Value::read(rest, depth)?;
                    values.push(value);
                    rest = behind;
                }
                Some((Value::List(values), &rest[1..]))
            }
            b'd' => {
                let (mut map, mut rest) = (BTreeMap::new(), &bytes[1..]);
                while *rest.first()? != b'e' {
                    let (key, behind) = string(rest)?;
                    let (value, behind) = Value::read(behind, depth)?;
                    map.insert(key.to_vec(), value);
                    rest = behind;
                }
                Some((Value::Dictionary(map), &rest[1..]))
            }
            _ => string(bytes).map(|(text, rest)| (Value::Text(text.to_vec()), rest)),
        }
    }
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(10).position(|byte| *byte == b':')?;
    let len: usize = std::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let rest = &bytes[colon + 1..];
    (rest.len() >= len).then(|| rest.split_at(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let value = Value::dictionary(&[
            ("sdp", Value::text("v=0\r\n")),
            ("flags", Value::List(vec![Value::text("a"), Value::text("")])),
            ("n", Value::Number(-7)),
        ]);
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        assert_eq!(bytes, b"d5:flagsl1:a0:e1:ni-7e3:sdp5:v=0\r\ne");
        assert_eq!(Value::decode(&bytes), Some(value.clone()));
        assert_eq!(value.get("sdp").as_deref(), Some("v=0\r\n"));
        assert_eq!(value.get("n"), None);
        for len in 0..bytes.len() {
            assert_eq!(Value::decode(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in ["", "e", "i1", "ie", "5:abc", "99999999999:a", "d1:ae", "i1ei2e", "l1:a"] {
            assert_eq!(Value::decode(bytes.as_bytes()), None, "{bytes}");
        }
        assert_eq!(Value::decode("l".repeat(1000).as_bytes()), None);
    }
}
