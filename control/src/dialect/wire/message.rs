//! Messages of clients, read tolerantly: unknown fields do not count, numbers and flags may be strings, and a field of
//! another type counts as missing. Only the envelope is strict. Never written here; [`super::reply`] does that.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The version of the protocol.
pub(super) const VERSION: &str = "3.0";
/// Longest id of a user, client or session.
const MAX_ID: usize = 127;

/// A client's message: the envelope and every field any type of it may have.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    version: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) sessid: String,
    #[serde(deserialize_with = "strict_flag")]
    pub(super) resp: bool,
    #[serde(default)]
    pub(super) src_userid: Text,
    #[serde(default)]
    pub(super) src_clientid: Text,
    #[serde(default)]
    pub(super) sdp: Text,
    #[serde(default)]
    pub(super) props: Properties,
    #[serde(default)]
    pub(super) update: Flag,
    #[serde(default)]
    pub(super) tool: Text,
    #[serde(default)]
    pub(super) toolver: Text,
    #[serde(default)]
    pub(super) selective_video: Flag,
    #[serde(default)]
    pub(super) vstreams: Int,
    #[serde(default)]
    pub(super) username: Text,
    #[serde(default)]
    pub(super) credential: Text,
    #[serde(default)]
    pub(super) sft_url: Text,
    #[serde(default)]
    pub(super) sft_tuple: Text,
    #[serde(default)]
    pub(super) mode: Text,
    /// A list; read by [`entries`].
    #[serde(default, borrow)]
    pub(super) participants: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) streams: List<Stream>,
}

/// An entry of a client's list of participants.
#[derive(Debug, Deserialize)]
pub(super) struct Participant<'a> {
    #[serde(default, borrow)]
    pub(super) userid: Word<'a>,
    #[serde(default, borrow)]
    pub(super) clientid: Word<'a>,
    #[serde(default)]
    pub(super) authorized: Flag,
    #[serde(default)]
    pub(super) ssrc_audio: Int,
    #[serde(default)]
    pub(super) ssrc_video: Int,
}

/// An entry of a client's list of wanted streams.
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    #[serde(default)]
    pub(super) userid: Text,
    #[serde(default)]
    pub(super) clientid: Text,
    #[serde(default)]
    pub(super) quality: Int,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    /// Not JSON, or not an envelope.
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version of the protocol.
    #[error("version {0:?} of the protocol; expected \"3.0\"")]
    Version(String),
    /// An id that is missing, too long or not printable.
    #[error("{0} must be 1 to 127 printable ASCII characters")]
    Id(&'static str),
}

impl<'a> Message<'a> {
    /// Reads a message and checks its envelope.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Message<'a>, MessageError> {
        let message: Message<'a> = serde_json::from_slice(bytes)?;
        if message.version != VERSION {
            return Err(MessageError::Version(message.version.chars().take(16).collect()));
        }
        Ok(message)
    }

    /// Who sent it: user and client; a client without id is `_`.
    pub(super) fn sender(&self) -> Result<(&str, &str), MessageError> {
        let user = self.src_userid.as_str();
        let client = self.src_clientid.as_str().unwrap_or("_");
        match user {
            Some(user) if is_id(user) && is_id(client) => Ok((user, client)),
            Some(user) if is_id(user) => Err(MessageError::Id("src_clientid")),
            _ => Err(MessageError::Id("src_userid")),
        }
    }
}

/// Entries of a client's list of participants from an offset on, each with the offset behind it; 0 is the beginning.
pub(super) fn entries(
    list: &RawValue,
    from: usize,
) -> impl Iterator<Item = Result<(Participant<'_>, usize), MessageError>> {
    let text = list.get();
    let mut at = from;
    let mut broken = false;
    std::iter::from_fn(move || {
        // The whole is one value of JSON; what is left to find out is whether it is a list of the right things.
        let skip = |at: usize| at + text[at..].len() - text[at..].trim_ascii_start().len();
        at = skip(at);
        let opened = at == 0 && text.starts_with('[');
        if opened || text[at..].starts_with(',') {
            at = skip(at + 1);
        }
        let rest = &text[at..];
        if broken || rest == "]" || rest == "null" {
            return None;
        }
        let mut read = serde_json::Deserializer::from_str(rest).into_iter::<Participant<'_>>();
        let entry = match read.next()? {
            _ if at == 0 => Err(de::Error::custom("participants must be a list")),
            entry => entry,
        };
        at += read.byte_offset();
        broken = entry.is_err();
        Some(entry.map(|entry| (entry, at)).map_err(MessageError::from))
    })
}

/// Whether a text can be an id.
pub(super) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A text; missing if it is anything else.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text(Option<String>);

impl Text {
    pub(super) fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// A text where there are many, not copied unless it has escapes; missing if it is anything else.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Word<'a>(pub(super) Option<Cow<'a, str>>);

/// A number or a text that is one; missing if it is anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Int(pub(super) Option<u64>);

/// A flag; `"true"` and every number but 0 are true, everything else is false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

/// A list; missing if it is anything else.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Option<Vec<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        List(None)
    }
}

/// An object; missing if it is anything else.
#[derive(Debug, Default)]
pub(super) struct Properties(pub(super) Option<Map<String, Value>>);

/// Any value, as far as it can be a text, a number or a flag.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Flag(bool),
    Other,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar<'de>, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Flag(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Other)
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Other)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Other)
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(value.to_owned())))
            }
            fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(value)))
            }
            fn visit_string<E: de::Error>(self, value: String) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(value)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        Ok(Text(match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Some(text.into_owned()),
            _ => None,
        }))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word<'a>, D::Error> {
        Ok(Word(match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Some(text),
            _ => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Int, D::Error> {
        Ok(Int(match Scalar::deserialize(deserializer)? {
            Scalar::Number(number) => Some(number),
            Scalar::Text(text) => text.parse().ok(),
            _ => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flag, D::Error> {
        Ok(Flag(match Scalar::deserialize(deserializer)? {
            Scalar::Flag(flag) => flag,
            Scalar::Number(number) => number != 0,
            Scalar::Text(text) => text == "true",
            Scalar::Other => false,
        }))
    }
}

/// The flag of the envelope: without it a message means nothing.
fn strict_flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Scalar::deserialize(deserializer)? {
        Scalar::Flag(flag) => Ok(flag),
        Scalar::Text(text) if text == "true" => Ok(true),
        Scalar::Text(text) if text == "false" => Ok(false),
        _ => Err(de::Error::custom("resp must be true or false")),
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List<T>, D::Error> {
        Option::<Vec<T>>::deserialize(deserializer).map(List)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Properties, D::Error> {
        Option::<Map<String, Value>>::deserialize(deserializer).map(Properties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_client_s_request() {
        let text = r#"{"version":"3.0","type":"CONFCONN","sessid":"daf7","src_userid":"dc15","src_clientid":"_",
            "dest_userid":"SFT","dest_clientid":"_","resp":false,"ice_servers":[{"urls":"turn:127.0.0.1:3478"}],
            "update":false,"tool":"avs 10.5.8 (?\/?)","toolver":"10.5.8","env":0,"status":0,"selective_audio":true,
            "selective_video":true,"vstreams":9}"#;
        let message = Message::read(text.as_bytes()).unwrap();
        assert_eq!((message.kind.as_str(), message.sessid.as_str(), message.resp), ("CONFCONN", "daf7", false));
        assert_eq!(message.sender().unwrap(), ("dc15", "_"));
        assert_eq!(message.vstreams, Int(Some(9)));
        assert_eq!(message.tool.as_str(), Some("avs 10.5.8 (?/?)"));
        assert!(message.selective_video.0 && !message.update.0);
    }

    #[test]
    fn numbers_may_be_strings_and_the_other_way() {
        let text = r#"{"version":"3.0","type":"CONFPART","sessid":"","resp":"true","extra":[[1],{"a":2}],"vstreams":"9",
            "update":"true","toolver":7,"username":null,
            "participants":[{"userid":"u","authorized":true,"ssrc_audio":"404135497","ssrc_video":2599752363,"pstn":false},
            {"authorized":"true","ssrc_audio":{"x":1}}]}"#;
        let message = Message::read(text.as_bytes()).unwrap();
        assert!(message.resp && message.update.0);
        assert_eq!((message.vstreams.0, message.toolver.as_str(), message.username.as_str()), (Some(9), None, None));
        let list: Vec<_> = entries(message.participants.unwrap(), 0).map(|entry| entry.unwrap()).collect();
        let (behind_first, list): (usize, Vec<_>) = (list[0].1, list.into_iter().map(|(entry, _)| entry).collect());
        let rest: Vec<_> = entries(message.participants.unwrap(), behind_first).map(|entry| entry.unwrap().0).collect();
        assert!(rest.len() == 1 && rest[0].userid == list[1].userid, "from behind the first");
        assert_eq!((list[0].ssrc_audio.0, list[0].ssrc_video.0), (Some(404_135_497), Some(2_599_752_363)));
        assert!(list[1].authorized.0 && list[1].ssrc_audio.0.is_none());
    }

    #[test]
    fn a_list_is_read_from_anywhere_and_only_a_list() {
        fn read(list: &str, from: usize) -> Result<usize, ()> {
            let raw: &RawValue = serde_json::from_str(list).unwrap();
            entries(raw, from).try_fold(0, |count, entry| entry.map(|_| count + 1)).map_err(|_| ())
        }
        assert_eq!([read("null", 0), read("[]", 0), read("[ ]", 0)], [Ok(0); 3]);
        assert_eq!(read(r#"[ {} , {"userid":"a"},{}]"#, 0), Ok(3));
        assert_eq!(read(r#"[ {} , {"userid":"a"},{}]"#, 4), Ok(2));
        for bad in ["{}", "[1]", "[{},7]", "\"[{}]\"", "7"] {
            assert_eq!(read(bad, 0), Err(()), "{bad}");
        }
    }

    #[test]
    fn the_envelope_is_strict() {
        fn read(text: &str) -> Result<Message<'_>, MessageError> {
            Message::read(text.as_bytes())
        }
        assert!(matches!(
            read(r#"{"version":"2.0","type":"PING","sessid":"x","resp":false}"#),
            Err(MessageError::Version(version)) if version == "2.0"
        ));
        for bad in [
            "",
            "{",
            "[]",
            r#"{"version":3.0,"type":"PING","sessid":"x","resp":false}"#,
            r#"{"version":"3.0","sessid":"x","resp":false}"#,
            r#"{"version":"3.0","type":"PING","resp":false}"#,
            r#"{"version":"3.0","type":"PING","sessid":"x"}"#,
            r#"{"version":"3.0","type":"PING","sessid":"x","resp":null}"#,
        ] {
            assert!(matches!(read(bad), Err(MessageError::Json(_))), "{bad}");
        }
        // A field nobody reads is skipped without recursion, however deep it is.
        let deep = format!(
            r#"{{"version":"3.0","type":"PING","sessid":"x","resp":false,"x":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(read(&deep).is_ok());
        let long = "x".repeat(128);
        let text = format!(r#"{{"version":"3.0","type":"PING","sessid":"x","resp":false,"src_userid":"{long}"}}"#);
        let message = read(&text);
        assert!(message.unwrap().sender().is_err());
    }
}
