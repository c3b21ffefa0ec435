//! Messages of a synthetic client: those it writes and the few fields it reads.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;

/// Client id of every synthetic client.
const DEVICE: &str = "_";

/// A message from the node, as far as a client reads it.
#[derive(Debug, Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) sdp: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) status: Option<u8>,
    #[serde(default, borrow)]
    pub(super) participants: Vec<Entry<'a>>,
}

/// An entry of a list of participants.
#[derive(Debug, Deserialize)]
pub(super) struct Entry<'a> {
    pub(super) userid: &'a str,
    pub(super) ssrc_audio: &'a str,
    pub(super) ssrc_video: &'a str,
}

/// The name of a conference's client.
pub(super) fn user(number: u32) -> String {
    format!("user{number}")
}

/// The number in a name.
pub(super) fn number(user: &str) -> Option<u32> {
    user.strip_prefix("user")?.parse().ok()
}

/// Begins a message; the caller ends it with its own fields and `}`.
fn envelope(kind: &str, session: &str, user: &str, response: bool) -> String {
    format!(
        r#"{{"version":"3.0","type":"{kind}","sessid":"{session}","src_userid":"{user}","src_clientid":"{DEVICE}","dest_userid":"SFT","dest_clientid":"_","resp":{response}"#
    )
}

/// Asks for a place in a conference.
pub(super) fn confconn(session: &str, user: &str, streams: u32) -> String {
    let mut text = envelope("CONFCONN", session, user, false);
    let _ = write!(
        text,
        r#","update":false,"tool":"sluice-bench","toolver":"10.5.8","env":0,"status":0,"selective_audio":true,"selective_video":true,"vstreams":{streams}}}"#
    );
    text
}

/// Answers an offer.
pub(super) fn setup(session: &str, user: &str, sdp: &str) -> String {
    let mut text = envelope("SETUP", session, user, true);
    let _ = write!(text, r#","sdp":{},"props":{PROPERTIES}}}"#, serde_json::Value::from(sdp));
    text
}

const PROPERTIES: &str = r#"{"videosend":"true","screensend":"false","audiocbr":"true","muted":"false"}"#;

/// Tells the client's properties.
pub(super) fn propsync(session: &str, user: &str) -> String {
    let mut text = envelope("PROPSYNC", session, user, false);
    let _ = write!(text, r#","props":{PROPERTIES}}}"#);
    text
}

/// A sign of life.
pub(super) fn ping(session: &str, user: &str) -> String {
    envelope("PING", session, user, false) + "}"
}

/// Agrees to everybody in a list but oneself.
pub(super) fn agreement(user: &str, list: &[Entry<'_>]) -> String {
    let mut text = envelope("CONFPART", "", user, true);
    text.push_str(r#","participants":["#);
    for (at, entry) in list.iter().filter(|entry| entry.userid != user).enumerate() {
        let Entry { userid, ssrc_audio, ssrc_video } = entry;
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(
            text,
            r#"{comma}{{"userid":"{userid}","clientid":"{DEVICE}","authorized":true,"ssrc_audio":"{ssrc_audio}","ssrc_video":"{ssrc_video}","timestamp":0,"muted":false,"pstn":false}}"#
        );
    }
    text.push_str("]}");
    text
}

/// Wants to see these, small.
pub(super) fn confstreams(session: &str, user: &str, wanted: &[String]) -> String {
    let mut text = envelope("CONFSTREAMS", session, user, false);
    text.push_str(r#","mode":"list","streams":["#);
    for (at, other) in wanted.iter().enumerate() {
        let _ = write!(text, r#"{}{{"userid":"{other}","quality":1}}"#, if at == 0 { "" } else { "," });
    }
    text.push_str("]}");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_written_is_json_with_an_envelope() {
        let entry = |user| Entry { userid: user, ssrc_audio: "1", ssrc_video: "2" };
        let list = [entry("user0"), entry("user1"), entry("user2")];
        for text in [
            confconn("c", "user1", 9),
            setup("c", "user1", "v=0\r\n"),
            propsync("c", "user1"),
            ping("c", "user1"),
            agreement("user1", &list),
            agreement("user1", &[]),
            confstreams("c", "user1", &["user0".to_owned(), "user2".to_owned()]),
        ] {
            let value: Value = serde_json::from_str(&text).expect(&text);
            assert_eq!((&value["version"], &value["src_userid"]), (&"3.0".into(), &"user1".into()));
        }
        let value: Value = serde_json::from_str(&agreement("user1", &list)).unwrap();
        let users: Vec<_> = value["participants"].as_array().unwrap().iter().map(|one| one["userid"].clone()).collect();
        assert_eq!(users, ["user0", "user2"]);
        assert_eq!((number(&user(17)), number("x")), (Some(17), None));
    }

    #[test]
    fn a_list_is_read_without_copies() {
        let text = r#"{"version":"3.0","type":"CONFPART","resp":false,"should_start":true,"participants":
            [{"userid":"user3","clientid":"_","authorized":false,"ssrc_audio":"5","ssrc_video":"6","timestamp":0,"muted":false}]}"#;
        let read: Incoming<'_> = serde_json::from_str(text).unwrap();
        assert_eq!((&*read.kind, read.participants.len(), read.participants[0].ssrc_video), ("CONFPART", 1, "6"));
    }
}
