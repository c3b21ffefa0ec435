//! `token new`: what a client shows to start or join conferences. Never prints the secret.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use zeroize::Zeroizing;

use super::args::TokenCommand;
use super::error::{Class, CliError};
use super::output::Output;
use crate::dialect::wire::token::{Secret, mint};
use crate::service::Secure;

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
    let (expires, may_start) = (now + ttl, !join_only);
    let (username, credential) = mint(&secret, expires, may_start, &mut Secure::default());
    let token = Token { username, credential, expires, may_start };
    if output.json {
        return output.document(&token);
    }
    output.line(&format!("username    {}", token.username))?;
    output.line(&format!("credential  {}", token.credential))
}

/// The first word of the file.
fn secret(path: &Path) -> Result<Secret, CliError> {
    let wrong = |why: String| {
        let message = format!("{}: {why}", path.display());
        CliError::new(Class::Usage, message, "name the file of wire.token_secret_file; its first word is the secret")
    };
    let file = File::open(path).map_err(|e| wrong(format!("cannot be opened: {e}")))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 1));
    file.take(MOST).read_to_end(&mut bytes).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let mut words = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.next().and_then(Secret::new).ok_or_else(|| wrong("holds no secret".to_owned()))
}
