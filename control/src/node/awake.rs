//! Time as deadlines of participants see it: while this process did not run, because it was stopped or starved, nobody
//! could be heard, so that time does not count. Never reads a clock.

use std::time::{Duration, Instant};

/// While there are deadlines, the node wants to be called as often as this, so that a stop is noticed.
const TICK: Duration = Duration::from_secs(1);
/// Called later than this after it was due, the process did not run.
const LATE: Duration = Duration::from_secs(1);
/// After a stop, what waits in sockets is heard before anybody is judged.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The clock of deadlines.
#[derive(Debug, Default)]
pub(super) struct Awake {
    /// The last call.
    seen: Option<Instant>,
    slept: Duration,
    caught_up: Option<Instant>,
}

impl Awake {
    /// Takes note of a call that was due at `due` at the latest; returns how long the process stood still, if it did.
    pub(super) fn call(&mut self, now: Instant, due: Option<Instant>) -> Option<Duration> {
        let seen = self.seen.replace(now);
        let seen = seen.filter(|seen| due.is_some_and(|due| now > due.max(*seen) + LATE))?;
        let slept = now.saturating_duration_since(seen);
        self.slept += slept;
        self.caught_up = Some(now + CATCH_UP);
        Some(slept)
    }

    /// The time deadlines are made and judged by.
    pub(super) fn now(&self, now: Instant) -> Instant {
        now.checked_sub(self.slept).unwrap_or(now)
    }

    /// Whether a deadline of that clock has passed and may be judged.
    pub(super) fn is_due(&self, now: Instant, deadline: Option<Instant>) -> bool {
        self.caught_up.is_none_or(|at| at <= now) && deadline.is_some_and(|at| at <= self.now(now))
    }

    /// When to call for a deadline of that clock.
    pub(super) fn wake_at(&self, deadline: Option<Instant>) -> Option<Instant> {
        let due = deadline? + self.slept;
        let due = self.caught_up.map_or(due, |at| due.max(at));
        Some(self.seen.map_or(due, |seen| due.min(seen + TICK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_asleep_does_not_count_and_what_waited_is_heard_first() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut awake = Awake::default();
        assert_eq!(awake.call(at(0), None), None);
        let deadline = Some(at(20_000));
        assert_eq!(awake.wake_at(deadline), Some(at(1_000)));
        assert_eq!(awake.call(at(1_900), awake.wake_at(deadline)), None, "late, but it ran");
        assert_eq!(awake.call(at(42_000), awake.wake_at(deadline)), Some(Duration::from_millis(40_100)));
        assert_eq!(awake.now(at(42_000)), at(1_900));
        assert!(!awake.is_due(at(42_500), Some(at(1_000))) && awake.is_due(at(43_000), Some(at(1_000))));
        assert!(!awake.is_due(at(60_000), deadline) && awake.is_due(at(60_100), deadline));
        // Without a deadline nobody is waited for, and a long pause is none.
        assert_eq!(awake.call(at(99_000), None), None);
    }
}
