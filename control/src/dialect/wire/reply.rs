//! Messages to clients, written as text. Never decides who gets them.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::message::VERSION;

/// Who we are in messages.
pub(super) const SELF_USER: &str = "sft";
/// Our client id in messages of ours.
pub(super) const SELF_CLIENT: &str = "_";

/// What a CONFCONN response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnStatus {
    /// Taken.
    Ok = 0,
    /// The client is too old.
    Blacklisted = 1,
    /// No token, or none of ours.
    AuthInvalid = 2,
    /// The token's time is over.
    AuthExpired = 3,
    /// The conference is full.
    AuthLimit = 4,
    /// The token does not start conferences.
    AuthCannotStart = 5,
}

/// Answers a SETUP response, or refuses a CONFCONN, which is no response then.
pub(super) fn confconn(session: &str, status: ConnStatus) -> String {
    json!({
        "version": VERSION, "type": "CONFCONN", "sessid": session, "src_userid": SELF_USER, "src_clientid": SELF_USER,
        "resp": status == ConnStatus::Ok, "update": false, "tool": "", "toolver": "", "env": 0, "status": status as u8,
        "selective_audio": false, "selective_video": false, "vstreams": 0,
    })
    .to_string()
}

/// Our offer: a SETUP, or an UPDATE for a client that has a call and comes back.
pub(super) fn setup(session: &str, user: &str, client: &str, update: bool, sdp: &str, url: &str) -> String {
    json!({
        "version": VERSION, "type": if update { "UPDATE" } else { "SETUP" }, "sessid": session,
        "src_userid": SELF_USER, "src_clientid": SELF_CLIENT, "dest_userid": user, "dest_clientid": client,
        "resp": false, "sdp": sdp, "url": url,
        "props": {"videosend": "true", "screensend": "false", "audiocbr": "false", "muted": "false"},
    })
    .to_string()
}

/// A response without a body: to PING and HANGUP.
pub(super) fn plain(kind: &str, session: &str, user: &str, client: &str) -> String {
    json!({
        "version": VERSION, "type": kind, "sessid": session, "src_userid": SELF_USER, "src_clientid": SELF_CLIENT,
        "dest_userid": user, "dest_clientid": client, "resp": true,
    })
    .to_string()
}

/// A participant's properties, for the others.
pub(super) fn propsync(session: &str, user: &str, client: &str, properties: &Map<String, Value>) -> String {
    json!({
        "version": VERSION, "type": "PROPSYNC", "sessid": session, "src_userid": user, "src_clientid": client,
        "resp": true, "props": properties,
    })
    .to_string()
}

/// What a list of participants is made of besides the participants.
#[derive(Debug)]
pub(super) struct ListHead<'a> {
    pub(super) should_start: bool,
    /// Milliseconds since 1970.
    pub(super) timestamp: u64,
    pub(super) seqno: u64,
    pub(super) entropy: [u8; 16],
    pub(super) url: &'a str,
}

/// A list of participants; `entries` are [`entry`]s with commas between them.
pub(super) fn confpart(head: &ListHead<'_>, entries: &str) -> String {
    let mut text = String::with_capacity(entries.len() + 320);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        r#"{{"version":"{VERSION}","type":"CONFPART","sessid":"","src_userid":"{SELF_USER}","src_clientid":"{SELF_CLIENT}","resp":false,"should_start":{},"timestamp":"{}","seqno":"{}","entropy":"{}","participants":[{entries}],"sfts":[{}]}}"#,
        head.should_start,
        head.timestamp,
        head.seqno,
        STANDARD.encode(head.entropy),
        Value::from(head.url),
    );
    text
}

/// A participant in a list.
pub(super) fn entry(user: &str, client: &str, audio: u32, video: u32, index: u64, muted: bool) -> String {
    format!(
        r#"{{"userid":{},"clientid":{},"authorized":false,"ssrc_audio":"{audio}","ssrc_video":"{video}","timestamp":{index},"muted":{muted}}}"#,
        Value::from(user),
        Value::from(client),
    )
}

/// `sft_servers_all.json`.
pub(super) fn servers(urls: &[String]) -> String {
    json!({ "sft_servers_all": urls }).to_string()
}
