//! A transport put into words for operators. Changes nothing.

use std::cmp::Reverse;

use super::Transport;
use super::dtls::Association;
use super::pair::Pair;
use super::status::{PairStatus, Phase, TransportStatus};

impl Transport {
    /// How the transport stands, for operators.
    pub fn status(&mut self) -> TransportStatus {
        let agent = &self.agent;
        let mut pairs: Vec<_> = agent.pairs.iter().collect();
        pairs.sort_by_key(|pair| (!agent.selection.is_selected(pair.tuple), Reverse(pair.priority)));
        let pair = |pair: &Pair| PairStatus {
            endpoint: agent.locals[pair.tuple.local].endpoint.clone(),
            local: agent.locals[pair.tuple.local].advertised,
            remote: pair.tuple.remote,
            kind: pair.kind,
            state: pair.state,
            selected: agent.selection.is_selected(pair.tuple),
            rtt: pair.rtt,
            unanswered: pair.unanswered,
        };
        let phase = match (self.closed, &self.path, &self.dtls, agent.heard) {
            (Some(reason), ..) => Phase::Closed(reason),
            (_, Some(_), ..) => Phase::Connected,
            (_, _, Some(_), _) => Phase::Securing,
            (.., true) => Phase::Checking,
            _ => Phase::New,
        };
        TransportStatus {
            phase,
            controlling: agent.controlling,
            pairs: pairs.into_iter().map(pair).collect(),
            dtls: self.dtls.as_ref().and_then(Association::version),
            profile: self.profile,
            ignored: agent.ignored,
            withheld: agent.withheld,
            channels: self.sctp.status(),
        }
    }
}
