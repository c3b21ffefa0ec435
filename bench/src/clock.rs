//! The clocks a run reads. Times are nanoseconds.

/// `CLOCK_MONOTONIC`, the same in every process and namespace of a host.
pub(crate) fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// What must be subtracted from a `CLOCK_REALTIME` stamp (which the kernel puts on received packets) to get
/// `CLOCK_MONOTONIC`. The tightest of a few readings, good to some 50 ns.
pub(crate) fn realtime_offset() -> i64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..16 {
        let before = monotonic();
        let real = read(libc::CLOCK_REALTIME);
        let after = monotonic();
        let width = after - before;
        if width < best.0 {
            best = (width, real as i64 - (before + width / 2) as i64);
        }
    }
    best.1
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is writable; these clocks always exist on Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_turns_one_clock_into_the_other() {
        let offset = realtime_offset();
        let before = monotonic();
        let real = read(libc::CLOCK_REALTIME) as i64 - offset;
        let after = monotonic();
        // A second is far beyond any adjustment between two readings.
        assert!(real >= before as i64 - 1_000_000_000 && real <= after as i64 + 1_000_000_000);
    }
}
