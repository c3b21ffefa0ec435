//! Candidate lines (RFC 8839 §5.1, RFC 6544 §4.5).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::fields::{Expected, number, words};
use crate::transport::{Candidate, CandidateKind};

/// `a=candidate`, of any transport and with any kind of address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateLine {
    /// Foundation, 1 to 32 characters.
    pub foundation: String,
    /// Component: 1 RTP, 2 RTCP.
    pub component: u16,
    /// `udp`, `tcp` or another, in the case it was given.
    pub transport: String,
    /// Priority.
    pub priority: u32,
    /// An address, or a name such as the `.local` ones of browsers.
    pub address: String,
    /// Port.
    pub port: u16,
    /// `host`, `srflx`, `prflx`, `relay` or another.
    pub kind: String,
    /// What follows, e.g. `raddr`, `rport`, `tcptype`, `generation`, as name and value.
    pub extensions: Vec<(String, String)>,
}

impl CandidateLine {
    /// Reads what follows `a=` or stands in a trickled candidate: `candidate:FOUNDATION ...`, with or without the
    /// name in front.
    pub fn parse(text: &str) -> Result<CandidateLine, &'static str> {
        const EXPECTED: Expected = "FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE [NAME VALUE]...";
        // Foundations are longer than allowed in descriptions of real peers, so the bound here is wider.
        const FOUNDATION: std::ops::RangeInclusive<usize> = 1..=64;
        let mut parts = words(text.strip_prefix("candidate:").unwrap_or(text));
        let mut next = || parts.next().ok_or(EXPECTED);
        let foundation = next()?.to_owned();
        let component = number(next()?, "a component from 1 to 256 in second place")?;
        let transport = next()?.to_owned();
        let priority = number(next()?, "a priority below 2^32 in fourth place")?;
        let address = next()?.to_owned();
        let port = number(next()?, "a port from 0 to 65535 in sixth place")?;
        if next()? != "typ" || !FOUNDATION.contains(&foundation.len()) {
            return Err(EXPECTED);
        }
        let kind = next()?.to_owned();
        let mut extensions = Vec::new();
        while let Some(name) = parts.next() {
            // An empty value divides into no word: `ufrag ` ends lines of some peers.
            extensions.push((name.to_owned(), parts.next().unwrap_or_default().to_owned()));
        }
        Ok(CandidateLine { foundation, component, transport, priority, address, port, kind, extensions })
    }

    /// The candidate as ICE takes it; `None` for another transport, component, address or type than Sluice uses: TCP,
    /// RTCP's own component, names, wildcard and multicast addresses, port 0.
    pub fn candidate(&self) -> Option<Candidate> {
        let ip: IpAddr = self.address.parse().ok()?;
        let usable = self.component == 1
            && self.transport.eq_ignore_ascii_case("udp")
            && (1..=0x7fff_ffff).contains(&self.priority)
            && self.port != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && ip != IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
        let kind = match self.kind.as_str() {
            "host" => CandidateKind::Host,
            "srflx" => CandidateKind::ServerReflexive,
            "prflx" => CandidateKind::PeerReflexive,
            "relay" => CandidateKind::Relayed,
            _ => return None,
        };
        usable.then(|| Candidate {
            address: SocketAddr::new(ip, self.port),
            kind,
            priority: self.priority,
            // Foundations only group checks: what is longer than the RFC allows is cut, at a character's end.
            foundation: self.foundation.chars().take(32).collect(),
        })
    }
}

impl From<&Candidate> for CandidateLine {
    fn from(candidate: &Candidate) -> CandidateLine {
        let kind = match candidate.kind {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
            CandidateKind::Relayed => "relay",
        };
        CandidateLine {
            foundation: candidate.foundation.clone(),
            component: 1,
            transport: "udp".to_owned(),
            priority: candidate.priority,
            address: candidate.address.ip().to_string(),
            port: candidate.address.port(),
            kind: kind.to_owned(),
            extensions: Vec::new(),
        }
    }
}

impl fmt::Display for CandidateLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CandidateLine { foundation, component, transport, priority, address, port, kind, .. } = self;
        write!(f, "{foundation} {component} {transport} {priority} {address} {port} typ {kind}")?;
        self.extensions.iter().try_for_each(|(name, value)| match value.as_str() {
            "" => write!(f, " {name}"),
            value => write!(f, " {name} {value}"),
        })
    }
}
