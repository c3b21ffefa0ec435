//! What the clients of a run saw, together. Counts and histograms; never talks to anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;

use super::media::MediaReport;
use super::streams::Seen;
use crate::latency::{Latency, Percentiles};

/// Counts and times of all clients.
#[derive(Debug)]
pub(super) struct Tally {
    /// CONFCONN: from connecting to the whole answer.
    pub(super) confconn: Latency,
    /// The answer to the offer: likewise.
    pub(super) setup: Latency,
    /// From there to the open channel.
    pub(super) channel: Latency,
    /// From there to the first list of participants.
    pub(super) listed: Latency,
    /// From the moment two agreed to each other to the first packet of one at the other.
    pub(super) heard: Latency,
    /// Clients with an open channel.
    pub(super) open: u32,
    /// Clients that have everybody of their conference in their list.
    pub(super) complete: u32,
    /// Clients that hear their conference's speaker.
    pub(super) hearing: u32,
    /// SSRCs of the streams they heard first.
    pub(super) heard_ssrcs: BTreeSet<u32>,
    /// Lists received and their bytes.
    pub(super) lists: u64,
    pub(super) list_bytes: u64,
    /// RTP packets received and sent.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Clients that gave up, by reason.
    pub(super) failed: BTreeMap<String, u32>,
    /// When the last client opened its channel.
    pub(super) last_open: Option<Instant>,
    /// What was sent and came since the media phase's last reading.
    pub(super) media: Seen,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            confconn: Latency::new(),
            setup: Latency::new(),
            channel: Latency::new(),
            listed: Latency::new(),
            heard: Latency::new(),
            open: 0,
            complete: 0,
            hearing: 0,
            heard_ssrcs: BTreeSet::new(),
            lists: 0,
            list_bytes: 0,
            received: 0,
            sent: 0,
            failed: BTreeMap::new(),
            last_open: None,
            media: Seen::new(),
        }
    }

    /// Clients that gave up.
    pub(super) fn failures(&self) -> u32 {
        self.failed.values().sum()
    }
}

/// When the pairs of a conference's speaker and its other clients agreed.
#[derive(Debug)]
pub(super) struct Agreements(Vec<[Option<Instant>; 2]>);

impl Agreements {
    pub(super) fn new(participants: u32) -> Agreements {
        Agreements(vec![[None; 2]; participants as usize])
    }

    /// `who` said that it agrees to `whom`; the first time counts.
    pub(super) fn agree(&mut self, who: u32, whom: u32, now: Instant) {
        let (other, side) = if who == 0 { (whom, 0) } else { (who, 1) };
        if (who == 0) != (whom == 0)
            && let Some(pair) = self.0.get_mut(other as usize)
        {
            pair[side].get_or_insert(now);
        }
    }

    /// When the speaker and a client had both agreed.
    pub(super) fn since(&self, client: u32) -> Option<Instant> {
        let [one, other] = self.0.get(client as usize)?;
        Some((*one)?.max((*other)?))
    }
}

/// A run's report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) conferences: u32,
    pub(super) participants_each: u32,
    pub(super) over_s: f64,
    pub(super) tls: bool,
    pub(super) watch: u32,
    /// Clients that joined: their channel opened.
    pub(super) joined: u32,
    pub(super) failed: BTreeMap<String, u32>,
    /// From the first request until every list was complete.
    pub(super) seconds: f64,
    pub(super) joins_per_second: f64,
    pub(super) control_cpu_ms_per_join: f64,
    pub(super) joins_per_core_second: f64,
    pub(super) forwarder_cpu_ms_per_join: f64,
    pub(super) generator_cpu: f64,
    pub(super) confconn_us: Option<Percentiles>,
    pub(super) setup_us: Option<Percentiles>,
    pub(super) answer_to_channel_us: Option<Percentiles>,
    pub(super) answer_to_list_us: Option<Percentiles>,
    pub(super) agreed_to_packet_us: Option<Percentiles>,
    /// From the acknowledgement of a commit that adds a stream to its first packet at the client, with nothing else going on.
    pub(super) commit_to_packet_us: Option<Percentiles>,
    /// Time between two packets of a speaker: it is part of the time to the first packet.
    pub(super) audio_ms: u32,
    pub(super) lists_per_join: f64,
    pub(super) list_bytes_per_join: f64,
    /// By control's metrics; `None` where it serves none.
    pub(super) transactions_per_join: Option<f64>,
    /// By control's metrics: from writing a transaction to reading its answer.
    pub(super) control_commit_mean_us: Option<f64>,
    /// A transaction of nothing beside control's, on a connection of its own.
    pub(super) commit_us: Option<Percentiles>,
    pub(super) hearing: u32,
    pub(super) rtp_received: u64,
    pub(super) rtp_sent: u64,
    pub(super) control_rss_kib: u64,
    pub(super) control_rss_kib_per_participant: f64,
    pub(super) control_idle_cpu_us_per_participant_second: f64,
    /// Of `--media`.
    pub(super) media: Option<MediaReport>,
}

impl Report {
    /// For people.
    pub(super) fn print(&self) {
        let times = |name: &str, of: &Option<Percentiles>| match of {
            Some(p) => eprintln!(
                "  {name:<34}{:>9.2} ms median {:>9.2} p99 {:>9.2} max",
                p.p50 / 1e3,
                p.p99 / 1e3,
                p.max / 1e3
            ),
            None => eprintln!("  {name:<34}none"),
        };
        eprintln!("{} of {} joined in {:.1} s", self.joined, self.conferences * self.participants_each, self.seconds);
        for (why, count) in &self.failed {
            eprintln!("  failed: {count} x {why}");
        }
        eprintln!(
            "  joins a core-second of control    {:>9.0} ({:.3} ms each; forwarder {:.3} ms)",
            self.joins_per_core_second, self.control_cpu_ms_per_join, self.forwarder_cpu_ms_per_join
        );
        times("CONFCONN answered", &self.confconn_us);
        times("SETUP answered", &self.setup_us);
        times("answer to open channel", &self.answer_to_channel_us);
        times("answer to first CONFPART", &self.answer_to_list_us);
        times("agreed to first packet", &self.agreed_to_packet_us);
        times("commit of a stream to its packet", &self.commit_to_packet_us);
        eprintln!(
            "  CONFPART a join                   {:>9.0} bytes in {:.1} lists",
            self.list_bytes_per_join, self.lists_per_join
        );
        times("commit of nothing beside control", &self.commit_us);
        if let (Some(each), Some(mean)) = (self.transactions_per_join, self.control_commit_mean_us) {
            eprintln!("  commit of control                 {:>9.2} ms mean; {each:.2} a join", mean / 1e3);
        }
        eprintln!(
            "  idle                              {:>9.1} KiB and {:.1} us of CPU a second for each participant",
            self.control_rss_kib_per_participant, self.control_idle_cpu_us_per_participant_second
        );
        eprintln!("  generator used {:.2} of its core; {} hear their speaker", self.generator_cpu, self.hearing);
        if let Some(media) = &self.media {
            media.print();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pair_agrees_when_both_did_and_only_first_times_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut agreements = Agreements::new(3);
        agreements.agree(2, 0, at(1));
        assert_eq!(agreements.since(2), None);
        agreements.agree(2, 1, at(2));
        agreements.agree(0, 2, at(5));
        agreements.agree(0, 2, at(9));
        agreements.agree(2, 0, at(9));
        assert_eq!((agreements.since(2), agreements.since(1), agreements.since(7)), (Some(at(5)), None, None));
    }
}
