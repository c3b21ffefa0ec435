//! How a worker waits when nothing is left to do.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// What [`PacketIo::wait`](super::PacketIo::wait) does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PollMode {
    /// Never sleeps; the core is always busy.
    Busy,
    /// Sleeps once nothing arrived for 200 µs.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Interrupt,
}

/// Time without a packet after which [`PollMode::Adaptive`] sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// Applies a poll mode to descriptors.
#[derive(Debug)]
pub(crate) struct Waiter {
    mode: PollMode,
    last: Option<Instant>,
}

impl Waiter {
    pub(crate) fn new(mode: PollMode) -> Self {
        Waiter { mode, last: None }
    }

    /// Notes that something was received.
    #[inline]
    pub(crate) fn received(&mut self) {
        // The clock is read by `sleeps`, when there is time for it.
        self.last = None;
    }

    /// Whether to sleep now.
    pub(crate) fn sleeps(&mut self) -> bool {
        match self.mode {
            PollMode::Busy => false,
            PollMode::Interrupt => true,
            PollMode::Adaptive => self.last.get_or_insert_with(Instant::now).elapsed() >= SPIN,
        }
    }
}

/// Sleeps until `fds` report an event or `timeout` passed. Interruptions end the sleep early.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Duration) {
    let spec = libc::timespec {
        tv_sec: timeout.as_secs().min(3600) as libc::time_t,
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY: the slice and the timespec live during the call; no signal mask is passed.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const spec, std::ptr::null()) };
}

/// A descriptor to be polled for input.
pub(crate) fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Sleeps until one of `fds` is readable or `timeout` passed.
pub(crate) fn readable_any(fds: &[RawFd], timeout: Duration) {
    let mut set: arrayvec::ArrayVec<libc::pollfd, 64> = arrayvec::ArrayVec::new();
    set.extend(fds.iter().take(64).map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }));
    poll(&mut set, timeout);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_sleeps_only_after_a_quiet_time() {
        let mut waiter = Waiter::new(PollMode::Adaptive);
        assert!(!waiter.sleeps());
        std::thread::sleep(SPIN);
        assert!(waiter.sleeps());
        waiter.received();
        assert!(!waiter.sleeps());
        assert!(!Waiter::new(PollMode::Busy).sleeps());
        assert!(Waiter::new(PollMode::Interrupt).sleeps());
    }
}
