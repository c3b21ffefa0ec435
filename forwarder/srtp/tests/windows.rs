//! Sent window, replay window, index estimation and SRTCP indexes against naive models. Seeds are fixed.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use sluice_srtp::replay::ReplayError;
use sluice_srtp::srtcp::{MAX_SRTCP_INDEX, SrtcpReceiver, SrtcpSender};
use sluice_srtp::{IssueError, PacketIndex, Receiver, SentWindow, Seq};

fn config() -> Config {
    Config { cases: 256, rng_seed: RngSeed::Fixed(0x51_u64), failure_persistence: None, ..Config::default() }
}

fn index(value: u64) -> PacketIndex {
    PacketIndex::from_u64(value).unwrap()
}

#[test]
fn states_stay_small() {
    assert!(size_of::<SentWindow>() <= 160, "{}", size_of::<SentWindow>());
    assert!(size_of::<Receiver>() <= 160, "{}", size_of::<Receiver>());
    assert!(size_of::<SrtcpReceiver>() <= 32, "{}", size_of::<SrtcpReceiver>());
}

#[test]
fn a_sent_index_is_issued_once() {
    let mut sent = SentWindow::new(index(70_000));
    assert_eq!(sent.next(), Some(index(70_000)));
    assert_eq!(sent.issue(index(69_999)).unwrap_err(), IssueError::Used);
    assert_eq!(sent.issue(index(68_000)).unwrap_err(), IssueError::TooOld);
    assert_eq!(sent.issue(index(70_000)).unwrap().index(), index(70_000));
    assert_eq!(sent.issue(index(70_000)).unwrap_err(), IssueError::Used);
    // A jump leaves the gap open, once each.
    assert!(sent.issue(index(70_010)).is_ok());
    assert!(sent.issue(index(70_005)).is_ok());
    assert_eq!(sent.issue(index(70_005)).unwrap_err(), IssueError::Used);
    assert_eq!(sent.highest(), Some(index(70_010)));
    // The oldest index still in the window, and the first outside it.
    assert!(sent.issue(index(70_001 + 1023)).is_ok());
    assert!(sent.issue(index(70_001)).is_ok());
    assert_eq!(sent.issue(index(70_000)).unwrap_err(), IssueError::TooOld);
}

#[test]
fn a_sent_window_ends_with_the_key() {
    let mut sent = SentWindow::new(PacketIndex::MAX);
    assert!(sent.issue(PacketIndex::MAX).is_ok());
    assert_eq!(sent.next(), None);
    assert_eq!(sent.issue(PacketIndex::MAX).unwrap_err(), IssueError::Used);
    assert_eq!(SentWindow::new(index(0)).highest(), None);
}

/// Steps relative to the highest index so far: in order, small and large jumps, the past, the window's edges.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => Just(1_i64),
        4 => -40_i64..40,
        2 => -1100_i64..1100,
        1 => prop_oneof![Just(-1024_i64), Just(-1023), Just(-1025), Just(1023), Just(1024), Just(1025), Just(0)],
        1 => -70_000_i64..70_000,
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sent_window_follows_the_model(start in 0_u64..200_000, steps in prop::collection::vec(step(), 1..3000)) {
        let mut sent = SentWindow::new(index(start));
        let mut issued = HashSet::new();
        let mut next = start;
        for step in steps {
            let at = (next as i64 - 1 + step).max(0) as u64;
            let wanted = if at + SentWindow::LEN < next {
                Err(IssueError::TooOld)
            } else if at < start || issued.contains(&at) {
                Err(IssueError::Used)
            } else {
                Ok(at)
            };
            prop_assert_eq!(sent.issue(index(at)).map(|one| one.index().as_u64()), wanted, "at {} next {}", at, next);
            if wanted.is_ok() {
                issued.insert(at);
                next = next.max(at + 1);
            }
            prop_assert_eq!(sent.next(), Some(index(next)));
        }
    }

    #[test]
    fn receiver_follows_the_model(
        first in 0_u64..32_768,
        steps in prop::collection::vec(prop_oneof![4 => step(), 1 => -32_000_i64..32_000], 1..3000),
        forged in prop::collection::vec(any::<bool>(), 3000),
    ) {
        let mut receiver = Receiver::new(0);
        let mut seen = HashSet::new();
        let mut highest = None::<u64>;
        for (step, forged) in steps.into_iter().zip(forged) {
            // The sender never strays 2^15 from the highest index the receiver knows; the estimate is then exact.
            let at = highest.map_or(first, |high| (high as i64 + step.clamp(-32_000, 32_000)).max(0) as u64);
            let sent = index(at);
            prop_assert_eq!(receiver.estimate(sent.seq()), sent);
            let wanted = match highest {
                Some(high) if at + Receiver::LEN <= high => Err(ReplayError::TooOld),
                _ if seen.contains(&at) => Err(ReplayError::Replayed),
                _ => Ok(()),
            };
            prop_assert_eq!(receiver.check(sent), wanted, "at {} highest {:?}", at, highest);
            // A packet that fails authentication must leave no trace.
            if wanted.is_ok() && !forged {
                receiver.accept(sent);
                seen.insert(at);
                highest = Some(highest.map_or(at, |high| high.max(at)));
            }
            prop_assert_eq!(receiver.highest(), highest.map(index));
        }
    }

    #[test]
    fn estimate_is_the_nearest_index(highest in 0_u64..(1 << 48), seq: u16) {
        let receiver = Receiver::resume(index(highest));
        let guess = receiver.estimate(Seq(seq));
        prop_assert_eq!(guess.seq(), Seq(seq));
        let roc = (highest >> 16) as u32;
        // Every index in range with this sequence number; none may be nearer, but for the edges of the range.
        let nearest = [roc.checked_sub(1), Some(roc), roc.checked_add(1)]
            .into_iter()
            .flatten()
            .map(|roc| PacketIndex::new(roc, Seq(seq)))
            .map(|one| one.as_u64().abs_diff(highest))
            .min()
            .unwrap();
        prop_assert_eq!(guess.as_u64().abs_diff(highest), nearest);
    }

    #[test]
    fn srtcp_receiver_follows_the_model(steps in prop::collection::vec(prop_oneof![3 => -140_i64..140, 1 => Just(1_i64)], 1..500)) {
        let mut receiver = SrtcpReceiver::new();
        let mut seen = HashSet::new();
        let mut highest = None::<u32>;
        for step in steps {
            let at = highest.map_or(500, |high| (i64::from(high) + step).max(0) as u32);
            let wanted = match highest {
                Some(high) if at + SrtcpReceiver::LEN <= high => Err(ReplayError::TooOld),
                _ if seen.contains(&at) => Err(ReplayError::Replayed),
                _ => Ok(()),
            };
            prop_assert_eq!(receiver.check(at), wanted);
            if wanted.is_ok() {
                receiver.accept(at);
                seen.insert(at);
                highest = Some(highest.map_or(at, |high| high.max(at)));
            }
            prop_assert_eq!(receiver.highest(), highest);
        }
    }
}

#[test]
fn estimate_walks_over_wraps() {
    let mut receiver = Receiver::new(7);
    for at in (7 << 16) + 100..(10 << 16) + 100 {
        let sent = index(at);
        assert_eq!(receiver.estimate(sent.seq()), sent);
        assert_eq!(receiver.check(sent), Ok(()));
        receiver.accept(sent);
    }
    assert_eq!(receiver.highest().map(PacketIndex::roc), Some(10));
    // A late packet from before the wrap is still known as such.
    assert_eq!(receiver.estimate(Seq(0xfff0)), PacketIndex::new(9, Seq(0xfff0)));
    assert_eq!(receiver.check(PacketIndex::new(9, Seq(0xfff0))), Err(ReplayError::Replayed));
}

#[test]
fn nothing_exists_before_the_first_and_after_the_last_index() {
    let mut receiver = Receiver::new(0);
    receiver.accept(index(5));
    assert_eq!(receiver.estimate(Seq(65_530)), PacketIndex::new(0, Seq(65_530)));
    let last = Receiver::resume(PacketIndex::MAX);
    assert_eq!(last.estimate(Seq(3)), PacketIndex::new(u32::MAX, Seq(3)));
    assert_eq!(last.check(last.estimate(Seq(3))), Err(ReplayError::TooOld));
}

#[test]
fn a_resumed_receiver_accepts_only_what_is_newer() {
    let receiver = Receiver::resume(index(5000));
    assert_eq!(receiver.check(index(5000)), Err(ReplayError::Replayed));
    assert_eq!(receiver.check(index(4500)), Err(ReplayError::Replayed));
    assert_eq!(receiver.check(index(100)), Err(ReplayError::TooOld));
    assert_eq!(receiver.check(index(5001)), Ok(()));
    let receiver = SrtcpReceiver::resume(9);
    assert_eq!(receiver.check(9), Err(ReplayError::Replayed));
    assert_eq!(receiver.check(3), Err(ReplayError::Replayed));
    assert_eq!(receiver.check(10), Ok(()));
}

#[test]
fn srtcp_indexes_end() {
    let mut sender = SrtcpSender::new(MAX_SRTCP_INDEX);
    assert_eq!(sender.issue(), Ok(MAX_SRTCP_INDEX));
    assert!(sender.issue().is_err());
    assert_eq!(sender.next(), 1 << 31);
    let mut receiver = SrtcpReceiver::new();
    receiver.accept(1);
    receiver.accept(1 + 200);
    assert_eq!(receiver.check(200), Ok(()));
    assert_eq!(receiver.check(1), Err(ReplayError::TooOld));
}
