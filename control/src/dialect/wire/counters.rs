//! What the dialect refused and why, and how much it did.

use std::collections::BTreeMap;

/// Why something was refused, ended or left out. Every refusal is one of these and is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// HTTP: the path names nothing.
    NotFound,
    /// HTTP: another method than the path takes.
    Method,
    /// HTTP: the body is no message of the protocol.
    Malformed,
    /// HTTP: the message's session is not the one of the path.
    Session,
    /// HTTP: a type that is not taken over HTTP, or a request where a response belongs.
    Unexpected,
    /// HTTP: an answer to no offer.
    NoOffer,
    /// HTTP: the answer cannot be read or used.
    Answer,
    /// HTTP: an answer longer than allowed.
    AnswerSize,
    /// A client version that is turned away.
    Blacklisted,
    /// No token, or not one of ours.
    TokenInvalid,
    /// A token whose time is over.
    TokenExpired,
    /// A token that may not start a conference.
    TokenCannotStart,
    /// The conference is full.
    ConferenceFull,
    /// A new call while draining.
    Draining,
    /// An allocation gave way to a newer one of the same source.
    SourceLimit,
    /// An allocation gave way to a newer one.
    AllocationLimit,
    /// No answer came in time.
    SetupTimeout,
    /// The transport or its channel did not come up in time.
    ConnectTimeout,
    /// No PING came in time.
    PingTimeout,
    /// The same client came back; its older call ended.
    Replaced,
    /// Another call took over the last address of this one.
    TupleTaken,
    /// The client hung up.
    Hangup,
    /// The transport ended.
    TransportClosed,
    /// An operator removed the participant.
    Kicked,
    /// Channel: a message longer than allowed; the call ended.
    MessageSize,
    /// Channel: more messages than allowed; the call ended.
    MessageRate,
    /// Channel: a message that cannot be read; left out.
    MessageMalformed,
    /// Channel: a type that means nothing here; left out.
    MessageUnexpected,
    /// Channel: properties longer than allowed; left out.
    PropertiesSize,
    /// A request of a conference that spans servers; its own fields were left out.
    Federation,
    /// The server has as many conferences or participants as it takes.
    ServerFull,
    /// HTTP: a new call while the forwarder is away or has no endpoints.
    NotReady,
    /// The forwarder has no room for another participant.
    ForwarderFull,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 33] = [
        Reason::NotFound,
        Reason::Method,
        Reason::Malformed,
        Reason::Session,
        Reason::Unexpected,
        Reason::NoOffer,
        Reason::Answer,
        Reason::AnswerSize,
        Reason::Blacklisted,
        Reason::TokenInvalid,
        Reason::TokenExpired,
        Reason::TokenCannotStart,
        Reason::ConferenceFull,
        Reason::Draining,
        Reason::SourceLimit,
        Reason::AllocationLimit,
        Reason::SetupTimeout,
        Reason::ConnectTimeout,
        Reason::PingTimeout,
        Reason::Replaced,
        Reason::TupleTaken,
        Reason::Hangup,
        Reason::TransportClosed,
        Reason::Kicked,
        Reason::MessageSize,
        Reason::MessageRate,
        Reason::MessageMalformed,
        Reason::MessageUnexpected,
        Reason::PropertiesSize,
        Reason::Federation,
        Reason::ServerFull,
        Reason::NotReady,
        Reason::ForwarderFull,
    ];

    /// Its stable name, for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::NotFound => "not_found",
            Reason::Method => "method",
            Reason::Malformed => "malformed",
            Reason::Session => "session",
            Reason::Unexpected => "unexpected",
            Reason::NoOffer => "no_offer",
            Reason::Answer => "answer",
            Reason::AnswerSize => "answer_size",
            Reason::Blacklisted => "blacklisted",
            Reason::TokenInvalid => "token_invalid",
            Reason::TokenExpired => "token_expired",
            Reason::TokenCannotStart => "token_cannot_start",
            Reason::ConferenceFull => "conference_full",
            Reason::Draining => "draining",
            Reason::SourceLimit => "source_limit",
            Reason::AllocationLimit => "allocation_limit",
            Reason::SetupTimeout => "setup_timeout",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::PingTimeout => "ping_timeout",
            Reason::Replaced => "replaced",
            Reason::TupleTaken => "tuple_taken",
            Reason::Hangup => "hangup",
            Reason::TransportClosed => "transport_closed",
            Reason::Kicked => "kicked",
            Reason::MessageSize => "message_size",
            Reason::MessageRate => "message_rate",
            Reason::MessageMalformed => "message_malformed",
            Reason::MessageUnexpected => "message_unexpected",
            Reason::PropertiesSize => "properties_size",
            Reason::Federation => "federation",
            Reason::ServerFull => "server_full",
            Reason::NotReady => "not_ready",
            Reason::ForwarderFull => "forwarder_full",
        }
    }
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Offers made.
    pub offers: u64,
    /// Participants whose channel opened.
    pub participants: u64,
    /// Conferences that got their first participant.
    pub conferences: u64,
    /// Clients that came back to a call of an earlier process with a token that would not have started one.
    pub resumed: u64,
    /// Messages taken from channels.
    pub messages: u64,
    /// Lists of participants sent, one for each receiver.
    pub lists: u64,
    /// Their bytes.
    pub list_bytes: u64,
    /// Transports that ended by themselves, by their reason.
    pub closed: BTreeMap<&'static str, u64>,
    reasons: Reasons,
}

/// A count for each reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reasons([u64; Reason::ALL.len()]);

impl Default for Reasons {
    fn default() -> Reasons {
        Reasons([0; Reason::ALL.len()])
    }
}

impl Counters {
    /// How often something happened for a reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.reasons.0[reason as usize]
    }

    /// Every reason with its count.
    pub fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::ALL.iter().map(|reason| (reason.name(), self.get(*reason)))
    }

    pub(super) fn count(&mut self, reason: Reason) {
        self.reasons.0[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_in_order_and_named_apart() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
