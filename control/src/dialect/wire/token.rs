//! Tokens: who may start a conference, who may join one, and until when. Never sees a conference.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::dialect::Random;

/// The secret shared with whoever hands out tokens. Never printed; zeroed on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes a secret; `None` for an empty one.
    pub fn new(bytes: &[u8]) -> Option<Secret> {
        (!bytes.is_empty()).then(|| Secret(bytes.to_vec()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Until when, in seconds since 1970.
    pub expires: u64,
    /// Whether its holder may start a conference; joining one is always allowed.
    pub may_start: bool,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not written as a token, or not made with our secret.
    #[error("the token is not one of this server")]
    Invalid,
    /// Its time is over; holds what it said.
    #[error("the token has expired")]
    Expired(Grant),
}

/// Makes a token: its username and its credential.
pub fn mint(secret: &Secret, expires: u64, may_start: bool, random: &mut dyn Random) -> (String, String) {
    let number = random.number();
    let username = format!("d={expires}.v=1.k=0.s={}.r={number:016x}", u8::from(may_start));
    let credential = STANDARD.encode(sign(secret, &username));
    (username, credential)
}

/// Checks a token at a time in seconds since 1970. Takes equally long for every wrong credential.
pub fn check(secret: &Secret, username: &str, credential: &str, now: u64) -> Result<Grant, TokenError> {
    let grant = parse(username).ok_or(TokenError::Invalid)?;
    let signature = STANDARD.decode(credential).map_err(|_| TokenError::Invalid)?;
    let key = hmac::Key::new(hmac::HMAC_SHA512, &secret.0);
    hmac::verify(&key, username.as_bytes(), &signature).map_err(|_| TokenError::Invalid)?;
    if now > grant.expires { Err(TokenError::Expired(grant)) } else { Ok(grant) }
}

fn sign(secret: &Secret, username: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, &secret.0), username.as_bytes())
}

/// `d=<expiry>.v=1.k=<number>.s=<0|1>.r=<letters and digits>`
fn parse(username: &str) -> Option<Grant> {
    if username.len() > 256 {
        return None;
    }
    let mut parts = username.split('.');
    let mut field = |key: &str| parts.next()?.strip_prefix(key);
    let expires = number(field("d=")?)?;
    if field("v=")? != "1" {
        return None;
    }
    number(field("k=")?)?;
    let may_start = match field("s=")? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let random = field("r=")?;
    let plain = random.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (plain && parts.next().is_none()).then_some(Grant { expires, may_start })
}

/// Digits only: a sign is no part of a token.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;
    impl Random for Zeros {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(0);
        }
    }

    #[test]
    fn takes_its_own_and_nothing_else() {
        let secret = Secret::new(b"correct horse").unwrap();
        for may_start in [false, true] {
            let (username, credential) = mint(&secret, 1_000, may_start, &mut Zeros);
            let grant = Grant { expires: 1_000, may_start };
            assert_eq!(check(&secret, &username, &credential, 1_000), Ok(grant));
            assert_eq!(check(&secret, &username, &credential, 1_001), Err(TokenError::Expired(grant)));
            let other = Secret::new(b"battery staple").unwrap();
            assert_eq!(check(&other, &username, &credential, 1_000), Err(TokenError::Invalid));
            let later = username.replace("1000", "2000");
            assert_eq!(check(&secret, &later, &credential, 1_000), Err(TokenError::Invalid));
            assert_eq!(check(&secret, &username, &credential[..40], 1_000), Err(TokenError::Invalid));
        }
        assert!(Secret::new(b"").is_none());
    }

    /// HMAC-SHA512 as Python's `hmac` computes it.
    #[test]
    fn agrees_with_another_implementation() {
        let secret = Secret::new(b"secret").unwrap();
        let username = "d=1700000000.v=1.k=0.s=1.r=abc123";
        let credential = "SlIKlq11c7Ueuq1E5ikvdTV0s40EcbTKih5HCW834HzUiKmhd+bwxJqqJ78f7+2lxg4cPMoOAsSVqCXhBmiTsw==";
        assert_eq!(check(&secret, username, credential, 0), Ok(Grant { expires: 1_700_000_000, may_start: true }));
    }

    #[test]
    fn usernames_are_read_strictly() {
        for bad in [
            "",
            "d=1",
            "d=1.v=2.k=0.s=1.r=a",
            "d=+1.v=1.k=0.s=1.r=a",
            "d=1.v=1.k=0.s=2.r=a",
            "d=1.v=1.k=0.s=1.r=A",
            "d=1.v=1.k=0.s=1.r=a.x=1",
            "d=99999999999999999999.v=1.k=0.s=1.r=a",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse("d=1.v=1.k=7.s=0.r="), Some(Grant { expires: 1, may_start: false }));
    }
}
