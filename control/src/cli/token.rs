//! `token new`: what a client shows to start or join conferences. Never prints the secret.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use super::args::TokenCommand;
use super::error::{Class, CliError};
use super::output::Output;

/// Longest secret file, in bytes.
const MOST: u64 = 64 << 10;

/// A token as `sft_servers_all` hands it out.
#[derive(Debug, Serialize)]
struct Token {
    username: String,
    credential: String,
    /// When it ends, in seconds since 1970.
    expires: u64,
    may_start: bool,
}

pub(super) fn run(command: &TokenCommand, output: &mut Output<'_>) -> Result<(), CliError> {
    let TokenCommand::New { secret_file, ttl, join_only } = command;
    let secret = secret(secret_file)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut random = [0; 8];
    rand::fill(&mut random)
        .map_err(|_| CliError::failed("the system gives no random numbers", "look at the system's log"))?;
    let token = make(&secret, now + ttl, !join_only, u64::from_be_bytes(random));
    if output.json {
        return output.document(&token);
    }
    output.line(&format!("username    {}", token.username))?;
    output.line(&format!("credential  {}", token.credential))
}

/// The first word of the file.
fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let wrong = |why: String| {
        let message = format!("{}: {why}", path.display());
        CliError::new(Class::Usage, message, "name the file of wire.token_secret_file; its first word is the secret")
    };
    let file = File::open(path).map_err(|e| wrong(format!("cannot be opened: {e}")))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    file.take(MOST).read_to_end(&mut bytes).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let mut words = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let word = words.next().ok_or_else(|| wrong("holds no secret".to_owned()))?;
    Ok(Zeroizing::new(word.to_vec()))
}

/// HMAC-SHA512 over the username, in base64.
fn make(secret: &[u8], expires: u64, may_start: bool, random: u64) -> Token {
    let username = format!("d={expires}.v=1.k=0.s={}.r={random:016x}", u8::from(may_start));
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret);
    let credential = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
    Token { username, credential, expires, may_start }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Python's `hmac` computes it.
    #[test]
    fn agrees_with_another_implementation() {
        let key = hmac::Key::new(hmac::HMAC_SHA512, b"secret");
        let signed = STANDARD.encode(hmac::sign(&key, b"d=1700000000.v=1.k=0.s=1.r=abc123"));
        assert!(signed.starts_with("SlIKlq11c7Ueuq1E5ikvdTV0s40EcbTK"), "{signed}");
        let token = make(b"secret", 1_700_000_000, false, 0xab);
        assert_eq!(token.username, "d=1700000000.v=1.k=0.s=0.r=00000000000000ab");
        let again = STANDARD.encode(hmac::sign(&key, token.username.as_bytes()));
        assert_eq!((token.credential, token.may_start), (again, false));
    }
}
