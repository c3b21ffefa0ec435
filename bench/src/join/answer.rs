//! A client's answer to an offer: takes everything, as Wire's own client does. Never reads more of the offer than its
//! lines say.

use std::fmt::Write as _;
use std::net::SocketAddr;

use sluice_control::transport::{Credentials, Fingerprint};

/// Lines of an offer that an answer repeats.
const KEPT: [&str; 8] =
    ["a=mid:", "a=rtpmap:", "a=fmtp:", "a=extmap:", "a=rtcp-fb:", "a=rtcp-mux", "a=rtcp-rsize", "a=sctp-port"];

/// What an answer says about its client.
#[derive(Debug)]
pub(super) struct Own<'a> {
    /// ICE credentials.
    pub(super) credentials: &'a Credentials,
    /// Of the certificate.
    pub(super) fingerprint: &'a Fingerprint,
    /// The only candidate.
    pub(super) address: SocketAddr,
    /// SSRC of the audio it sends.
    pub(super) audio: u32,
}

/// Answers an offer.
pub(super) fn answer(offer: &str, own: &Own<'_>) -> String {
    let mut text = String::with_capacity(offer.len() * 2);
    text.push_str("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let mut sections = 0;
    // Writing to a string cannot fail.
    for line in offer.lines() {
        if line.starts_with("m=") {
            sections += 1;
            section(&mut text, line, own, sections == 1);
        } else if sections == 0 {
            if line.starts_with("a=group:BUNDLE") {
                let _ = write!(text, "{line}\r\n");
            }
        } else if KEPT.iter().any(|prefix| line.starts_with(prefix)) {
            let _ = write!(text, "{line}\r\n");
            match line {
                "a=mid:audio" => {
                    let _ = write!(text, "a=sendonly\r\na=ssrc:{} cname:bench\r\n", own.audio);
                }
                "a=mid:video" => text.push_str("a=sendonly\r\n"),
                _ => {}
            }
        } else if line == "a=sendonly" {
            text.push_str("a=recvonly\r\n");
        } else if line.starts_with("a=rid:") || line.starts_with("a=simulcast:") {
            let _ = write!(text, "{}\r\n", line.replace("recv", "send"));
        }
    }
    text
}

fn section(text: &mut String, line: &str, own: &Own<'_>, first: bool) {
    let Credentials { ufrag, password } = own.credentials;
    let fingerprint = own.fingerprint;
    let _ = write!(
        text,
        "{line}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=ice-options:trickle\r\n\
         a=fingerprint:{fingerprint}\r\na=setup:active\r\n"
    );
    if first {
        let (ip, port) = (own.address.ip(), own.address.port());
        let _ = write!(text, "a=candidate:1 1 udp 2122260223 {ip} {port} typ host\r\n");
    }
}

#[cfg(test)]
mod tests {
    use sluice_control::sdp::SessionDescription;
    use sluice_control::transport::HashFunction;

    use super::*;

    #[test]
    fn a_recorded_offer_is_answered_section_by_section() {
        let offer = include_str!("../../../control/tests/sdp/wire-offer.sdp");
        let credentials = Credentials { ufrag: "abcd".to_owned(), password: "p".repeat(24) };
        let fingerprint = Fingerprint { hash: HashFunction::Sha256, bytes: vec![0xab; 32] };
        let address = SocketAddr::from(([192, 0, 2, 9], 4_000));
        let own = Own { credentials: &credentials, fingerprint: &fingerprint, address, audio: 77 };
        let text = answer(offer, &own);
        let read = SessionDescription::parse(&text).unwrap();
        let asked = SessionDescription::parse(offer).unwrap();
        assert_eq!(read.media.len(), asked.media.len());
        let remote = read.remote_description().unwrap();
        assert_eq!((&remote.credentials, remote.fingerprints[0].clone()), (&credentials, fingerprint.clone()));
        assert_eq!(remote.candidates[0].address, address);
        assert!(text.contains("a=ssrc:77 ") && text.contains("a=rid:h send") && !text.contains("recv l"), "{text}");
    }
}
