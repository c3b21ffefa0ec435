//! Waking a sleeping worker: an eventfd in its poll set, written only when the worker says it sleeps. And the other way:
//! a bell that tells the management thread that a report should not wait for its next look.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A worker's bell.
#[derive(Debug)]
pub struct Waker {
    fd: OwnedFd,
    sleeping: AtomicBool,
}

impl Waker {
    /// A new bell.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Waker { fd: unsafe { OwnedFd::from_raw_fd(fd) }, sleeping: AtomicBool::new(false) })
    }

    /// Wakes the worker if it sleeps or is about to.
    pub fn wake(&self) {
        // Pairs with the fence in `about_to_sleep`: either the worker sees the order, or we see it sleeping.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight readable bytes.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Called by the worker before it looks for orders a last time and sleeps.
    pub(super) fn about_to_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the worker after it slept.
    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// What a bell does when it rings.
type Ring = Box<dyn Fn() + Send + Sync>;

/// A worker's bell at the management thread. It rings once until it is answered, however much is reported meanwhile.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    ring: OnceLock<Ring>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

impl Bell {
    /// Says what ringing does; only the first time counts.
    pub fn connect(&self, ring: Ring) {
        let _ = self.ring.set(ring);
    }

    /// Rings, after the report was queued.
    pub(super) fn ring(&self) {
        if let Some(ring) = self.ring.get()
            && !self.rung.swap(true, Ordering::SeqCst)
        {
            ring();
        }
    }

    /// Called by the management thread before it takes reports.
    pub fn answer(&self) {
        if self.rung.load(Ordering::Relaxed) {
            self.rung.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn a_bell_rings_once_until_it_is_answered() {
        let bell = Bell::default();
        bell.ring();
        let rings = Arc::new(AtomicU32::new(0));
        let counted = rings.clone();
        bell.connect(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        for expected in 1..=3 {
            bell.ring();
            bell.ring();
            assert_eq!(rings.load(Ordering::Relaxed), expected);
            bell.answer();
        }
    }
}
