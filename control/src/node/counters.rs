//! What a node counts. Totals since the process started; never reset.

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// A count of the node.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Count { $($(#[$doc])* $variant,)* }

        impl Count {
            /// Every count.
            pub const ALL: &'static [Count] = &[$(Count::$variant,)*];

            /// Its stable name in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Count::$variant => $name,)* }
            }
        }
    };
}

counts! {
    /// Transactions sent to the forwarder.
    Transactions "transactions";
    /// Transactions the forwarder refused.
    TransactionsRefused "transactions_refused";
    /// Conferences programmed again because the forwarder refused a transaction of theirs.
    Repairs "repairs";
    /// Participants ended because the forwarder takes their rows not even then.
    ParticipantsRefused "participants_refused";
    /// Conferences the forwarder takes no rows of, and nobody is left to end.
    RepairsGivenUp "repairs_given_up";
    /// Times the process was stopped or starved; deadlines were put off by as long.
    Stalls "stalls";
    /// Times the forwarder's pools were full, and calls of an earlier process gave up theirs early.
    OrphansHurried "orphans_hurried";
    /// Times events of the forwarder were lost.
    EventsMissed "events_missed";
    /// RTCP of participants that nobody here needs.
    RtcpIgnored "rtcp_ignored";
    /// STUN that names nobody.
    StunUnknown "stun_unknown";
    /// DTLS from an address of nobody.
    DtlsUnknown "dtls_unknown";
    /// Participants whose consent ran out.
    ConsentLost "consent_lost";
    /// Descriptions a transport did not take.
    DescriptionsRefused "descriptions_refused";
    /// Participants ended because too much waited to be sent to them.
    ChannelFull "channel_full";
    /// Participants ended because their channel could not be opened or closed on them.
    ChannelLost "channel_lost";
    /// Lists of participants that were not sent, because a newer one came before the channel had taken older ones.
    ListsSuperseded "lists_superseded";
    /// Messages for participants that have no channel.
    NoChannel "no_channel";
    /// Peer connections made.
    TransportsOpened "transports_opened";
    /// Peer connections that got their keys.
    TransportsConnected "transports_connected";
    /// Peers that moved to another address.
    TransportsMoved "transports_moved";
}

/// The counts.
#[derive(Clone, Debug)]
pub struct Counters {
    counts: [u64; Count::ALL.len()],
    /// By reason, in the order of [`CloseReason::ALL`](crate::transport::CloseReason::ALL).
    closed: [u64; crate::transport::CloseReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { counts: [0; Count::ALL.len()], closed: [0; crate::transport::CloseReason::ALL.len()] }
    }
}

impl Counters {
    pub(super) fn add(&mut self, count: Count) {
        self.counts[count as usize] += 1;
    }

    pub(super) fn closed(&mut self, reason: crate::transport::CloseReason) {
        if let Some(at) = crate::transport::CloseReason::ALL.iter().position(|other| *other == reason) {
            self.closed[at] += 1;
        }
    }

    /// One of them.
    pub fn get(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// All by name.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Count::ALL.iter().map(|count| (count.name(), self.get(*count)))
    }

    /// Transports that ended, by reason.
    pub fn closed_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        crate::transport::CloseReason::ALL.iter().zip(self.closed).map(|(reason, count)| (reason.name(), count))
    }
}
