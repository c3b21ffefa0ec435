//! How processes that a measurement started end. Never starts one.

use std::process::Child;
use std::time::{Duration, Instant};

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tells a process to end, and ends it if it does not.
pub(crate) fn end(child: &mut Child) {
    // SAFETY: a signal to a child that was not waited for, so its id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Ok(Some(_)) = child.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
