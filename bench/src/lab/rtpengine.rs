//! rtpengine as a peer to compare with: one publisher call and its subscriptions, by its control protocol (bencode over
//! UDP). Knows the little SDP that this needs and nothing of media.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use sluice_srtp::Profile;

use super::bencode::Value;
use super::net;
use super::plan::Cast;
use crate::error::BenchError;
use crate::keys::{KeyText, Publisher, Receiver, Session, VIDEO_TYPE};

/// How it is started: in user space, one thread, nothing but the control socket.
pub(crate) const COMMAND_LINE: &[&str] = &[
    "rtpengine",
    "--config-file=none",
    "--foreground",
    "--log-stderr",
    "--log-level=3",
    "--table=-1",
    "--num-threads=1",
    "--listen-ng=127.0.0.1:2223",
    "--port-min=10000",
    "--port-max=60000",
];
const ADDRESS: &str = "127.0.0.1:2223";

/// The control connection.
#[derive(Debug)]
pub(crate) struct Control {
    socket: UdpSocket,
    cookie: u32,
}

impl Control {
    /// Connects from inside the forwarder's namespace and asks for a sign of life.
    pub(crate) fn open() -> Result<Control, BenchError> {
        let what = "reaching rtpengine";
        // A socket stays in the namespace it was made in; the thread that made it ends.
        let made = std::thread::spawn(|| {
            net::enter(net::SFU)?;
            let socket = UdpSocket::bind("127.0.0.1:0").map_err(BenchError::system("binding a control socket"))?;
            socket.connect(ADDRESS).map_err(BenchError::system("reaching rtpengine"))?;
            Ok::<_, BenchError>(socket)
        });
        let panicked = || BenchError::Refused { what: what.to_owned(), why: "the thread panicked".to_owned() };
        let socket = made.join().map_err(|_| panicked())??;
        socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(BenchError::system(what))?;
        let mut control = Control { socket, cookie: 0 };
        control.call(&[("command", Value::text("ping"))])?;
        Ok(control)
    }

    fn call(&mut self, pairs: &[(&str, Value)]) -> Result<Value, BenchError> {
        let what = || format!("asking rtpengine to {}", Value::dictionary(pairs).get("command").unwrap_or_default());
        self.cookie += 1;
        let cookie = format!("{:08} ", self.cookie);
        let mut bytes = cookie.clone().into_bytes();
        Value::dictionary(pairs).encode(&mut bytes);
        self.socket.send(&bytes).map_err(BenchError::system(what()))?;
        let mut buffer = vec![0; 65_536];
        let answer = loop {
            let len = self.socket.recv(&mut buffer).map_err(BenchError::system(what()))?;
            // An answer to an earlier question has another cookie.
            if let Some(body) = buffer[..len].strip_prefix(cookie.as_bytes()) {
                break Value::decode(body);
            }
        };
        let why = match &answer {
            Some(value) if matches!(value.get("result").as_deref(), Some("ok" | "pong")) => return Ok(value.clone()),
            Some(value) => value.get("error-reason").unwrap_or_else(|| format!("{value:?}")),
            None => "the answer is not bencode".to_owned(),
        };
        Err(BenchError::Refused { what: what(), why })
    }
}

/// Makes a call of every publisher and subscribes its receivers. Returns where to send and what will be received: the
/// keys towards receivers are rtpengine's own.
pub(crate) fn program(control: &mut Control, cast: &Cast) -> Result<(Session, Session), BenchError> {
    let mut sends = cast.session.clone();
    let mut receives = cast.session.clone();
    receives.receivers.clear();
    for (number, publisher) in sends.publishers.iter_mut().enumerate() {
        let call = Value::text(&format!("sluice-lab-{number}"));
        let answer = control.call(&[
            ("command", Value::text("publish")),
            ("call-id", call.clone()),
            ("from-tag", Value::text("publisher")),
            ("ICE", Value::text("remove")),
            ("sdp", Value::text(&offer(publisher))),
        ])?;
        let described = Description::parse(&answer.get("sdp").unwrap_or_default())?;
        publisher.to = Some(described.address);
        let mine = cast.session.receivers.iter().filter(|one| one.expects.iter().any(|e| e.1 == number as u32));
        for receiver in mine {
            let key = subscribe(control, &call, receiver)?;
            if receiver.local.ip() == net::PEER_IP {
                // rtpengine keeps the SSRC of what it passes on.
                let expects = publisher.streams.iter().map(|stream| (stream.ssrc, number as u32)).collect();
                receives.receivers.push(Receiver { local: receiver.local, key, expects });
            }
        }
    }
    Ok((sends, receives))
}

/// Subscribes one receiver; returns the key it will be sent under.
fn subscribe(control: &mut Control, call: &Value, receiver: &Receiver) -> Result<Option<KeyText>, BenchError> {
    let profile = receiver.key.as_ref().map(|key| key.profile);
    let request = [
        ("command", Value::text("subscribe request")),
        ("call-id", call.clone()),
        ("from-tag", Value::text("publisher")),
        ("ICE", Value::text("remove")),
        ("transport-protocol", Value::text(if profile.is_some() { "RTP/SAVP" } else { "RTP/AVP" })),
        ("DTLS", Value::text("off")),
    ];
    let answer = control.call(&request)?;
    let tag = answer.get("to-tag").unwrap_or_default();
    let offered = Description::parse(&answer.get("sdp").unwrap_or_default())?;
    let key = match profile {
        None => None,
        Some(profile) => {
            let found = offered.keys.iter().find(|key| key.profile == profile);
            let found = found.ok_or_else(|| BenchError::Refused {
                what: "subscribing at rtpengine".to_owned(),
                why: format!("it does not offer {}", suite(profile)),
            })?;
            Some((found.tag, found.key.clone()))
        }
    };
    let crypto = key.as_ref().zip(receiver.key.as_ref()).map(|((tag, _), own)| crypto(*tag, own));
    control.call(&[
        ("command", Value::text("subscribe answer")),
        ("call-id", call.clone()),
        ("to-tag", Value::text(&tag)),
        ("sdp", Value::text(&description(receiver.local, "recvonly", crypto.as_deref()))),
    ])?;
    Ok(key.map(|(_, key)| key))
}

fn offer(publisher: &Publisher) -> String {
    let crypto = publisher.key.as_ref().map(|key| crypto(1, key));
    description(publisher.local, "sendonly", crypto.as_deref())
}

/// The packets pass for audio: rtpengine 10.5 refuses a published call without any.
fn description(local: SocketAddr, direction: &str, crypto: Option<&str>) -> String {
    let (ip, port) = (local.ip(), local.port());
    let protocol = if crypto.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {protocol} {VIDEO_TYPE}\r\n\
         a=rtpmap:{VIDEO_TYPE} opus/48000/2\r\na={direction}\r\n"
    );
    if let Some(crypto) = crypto {
        let _ = write!(sdp, "{crypto}\r\n");
    }
    sdp
}

/// An SDES attribute (RFC 4568).
fn crypto(tag: u32, key: &KeyText) -> String {
    format!("a=crypto:{tag} {} inline:{}", suite(key.profile), base64(&key.bytes().unwrap_or_default()))
}

fn suite(profile: Profile) -> &'static str {
    match profile {
        Profile::AeadAes128Gcm => "AEAD_AES_128_GCM",
        Profile::AeadAes256Gcm => "AEAD_AES_256_GCM",
        Profile::Aes128CmSha1_80 => "AES_CM_128_HMAC_SHA1_80",
        Profile::Aes128CmSha1_32 => "AES_CM_128_HMAC_SHA1_32",
    }
}

/// A key in a description.
#[derive(Clone, Debug)]
struct Offered {
    tag: u32,
    profile: Profile,
    key: KeyText,
}

/// What an SDP of one media section says.
#[derive(Clone, Debug)]
struct Description {
    address: SocketAddr,
    keys: Vec<Offered>,
}

impl Description {
    fn parse(sdp: &str) -> Result<Description, BenchError> {
        let (mut ip, mut port, mut keys) = (None, None, Vec::new());
        for line in sdp.lines() {
            let mut words = line.split_whitespace();
            if let Some(rest) = line.strip_prefix("c=IN IP4 ") {
                ip = rest.trim().parse::<IpAddr>().ok();
            } else if line.starts_with("m=") {
                port = words.nth(1).and_then(|word| word.parse().ok());
            } else if let Some(tag) = words.next().and_then(|word| word.strip_prefix("a=crypto:")) {
                let profile = words.next().and_then(|name| Profile::ALL.into_iter().find(|one| suite(*one) == name));
                let inline = words.next().and_then(|word| word.strip_prefix("inline:"));
                let bytes = inline.and_then(|text| unbase64(text.split('|').next().unwrap_or_default()));
                if let (Ok(tag), Some(profile), Some(bytes)) = (tag.parse(), profile, bytes) {
                    keys.push(Offered { tag, profile, key: KeyText::from_bytes(profile, &bytes) });
                }
            }
        }
        match (ip, port) {
            (Some(ip), Some(port)) => Ok(Description { address: SocketAddr::new(ip, port), keys }),
            // The text may hold keys: it stays out of the message.
            _ => Err(BenchError::Refused {
                what: "reading rtpengine's SDP".to_owned(),
                why: "it has no address and port".to_owned(),
            }),
        }
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63] as char;
            text.push(if at <= group.len() { digit } else { '=' });
        }
    }
    text
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = DIGITS.iter().position(|one| *one == digit)? as u32;
        word = word << 6 | value;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn base64_round_trips() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), encoded);
            assert_eq!(unbase64(encoded).unwrap(), text.as_bytes());
            assert_eq!(unbase64(encoded.trim_end_matches('=')).unwrap(), text.as_bytes());
        }
        assert_eq!(unbase64("a*"), None);
    }

    #[test]
    fn descriptions_round_trip() {
        let key = KeyText::draw(Profile::AeadAes256Gcm, &mut Random::new(1, 1));
        let local: SocketAddr = "10.78.0.2:30000".parse().unwrap();
        let parsed = Description::parse(&description(local, "recvonly", Some(&crypto(3, &key)))).unwrap();
        assert_eq!((parsed.address, parsed.keys[0].tag), (local, 3));
        assert!(parsed.keys[0].key == key && parsed.keys[0].profile == Profile::AeadAes256Gcm);
        assert!(Description::parse(&description(local, "sendonly", None)).unwrap().keys.is_empty());
        assert!(Description::parse("v=0\r\nm=video\r\n").is_err());
    }
}
