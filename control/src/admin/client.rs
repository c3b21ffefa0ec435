//! A blocking client of the administration's Unix socket, for the command. Never retries.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::query::{Query, Reply};
use super::{DEFAULT_SOCKET, SOCKET_ENV};

/// The socket to use: `given`, else `$SLUICE_CONTROL_SOCKET`, else [`DEFAULT_SOCKET`].
pub fn socket_path(given: Option<&Path>) -> PathBuf {
    match (given, std::env::var_os(SOCKET_ENV)) {
        (Some(path), _) => path.to_owned(),
        (None, Some(path)) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(DEFAULT_SOCKET),
    }
}

/// Asks one question. `timeout` holds for every read and write.
pub fn ask(path: &Path, query: &Query, timeout: Duration) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut line = serde_json::to_vec(query)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut answer)?;
    if answer.last() != Some(&b'\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}
