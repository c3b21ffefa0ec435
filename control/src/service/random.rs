//! Randomness of the operating system, drawn in blocks. The only source of it in the process's own code.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::dialect::Random;

/// A cryptographically secure source.
#[derive(Debug, Default)]
pub(crate) struct Secure(SystemRandom);

impl Random for Secure {
    fn fill(&mut self, bytes: &mut [u8]) {
        // The generator cannot fail once the process was seeded, and a process without one must not go on.
        assert!(self.0.fill(bytes).is_ok(), "the system's random generator failed");
    }
}
