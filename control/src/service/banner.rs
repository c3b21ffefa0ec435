//! What the service says once it serves: where, how, why so, and which ports to open. Printed once, to standard output.

use std::fmt::Write as _;
use std::net::SocketAddr;

use sluice_table::protocol::{IoMode, Status};

use crate::config::{Admin, DtlsVersion, Tls};
use crate::link::Link;
use crate::transport::{Fingerprint, LocalCandidate};

/// What is said.
#[derive(Debug)]
pub(super) struct Banner {
    pub(super) public_url: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) tls: Tls,
    pub(super) media: Vec<(LocalCandidate, String)>,
    pub(super) dtls: DtlsVersion,
    pub(super) admin: Admin,
}

impl Banner {
    /// Prints it with what the forwarder says of itself.
    pub(super) async fn print(self, link: Link) {
        let status = link.status().await.ok();
        print!("{}", self.text(status.as_ref()));
    }

    fn text(&self, status: Option<&Status>) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text, status);
        text
    }

    fn write(&self, text: &mut String, status: Option<&Status>) -> std::fmt::Result {
        writeln!(text, "Sluice {} serves {}", env!("CARGO_PKG_VERSION"), self.public_url)?;
        for address in &self.addresses {
            let how = match self.tls {
                Tls::Off => "plain HTTP, for a proxy in front of it",
                Tls::SelfSigned => "HTTPS with a self-signed certificate",
                Tls::Files { .. } => "HTTPS",
            };
            writeln!(text, "  signalling  {address}/tcp  {how}")?;
        }
        if let Some(fingerprint) = &self.fingerprint {
            writeln!(text, "  certificate {fingerprint}")?;
        }
        for (local, interface) in &self.media {
            let seen = status.and_then(|s| s.endpoints.iter().find(|e| e.endpoint == local.endpoint));
            let mode = seen.map_or("not reported by the forwarder", |seen| describe(seen.mode));
            let advertised = if local.advertised == local.address {
                String::new()
            } else {
                format!(", clients are told {}", local.advertised)
            };
            writeln!(text, "  media       {}/udp on {interface}  {mode}{advertised}", local.address)?;
            for step in seen.iter().flat_map(|seen| &seen.refused) {
                writeln!(text, "              not {}: {}", step.mode, step.reason)?;
            }
        }
        let dtls = match self.dtls {
            DtlsVersion::V12 => "1.2",
            DtlsVersion::V13 => "1.3",
            DtlsVersion::Auto => "1.3 or 1.2",
        };
        writeln!(text, "  encryption  DTLS {dtls}, SRTP keys of every client's own")?;
        if let Some(listen) = self.admin.listen {
            writeln!(text, "  metrics     http://{listen}/metrics (keep this address private)")?;
        }
        writeln!(text, "  operate     sluice status, sluice conferences, sluice top")?;
        writeln!(text, "Open in the firewall: {}", self.ports().join(", "))
    }

    fn ports(&self) -> Vec<String> {
        let mut ports: Vec<String> = self.addresses.iter().map(|address| format!("{}/tcp", address.port())).collect();
        ports.extend(self.media.iter().map(|(local, _)| format!("{}/udp", local.address.port())));
        ports.sort();
        ports.dedup();
        ports
    }
}

fn describe(mode: IoMode) -> &'static str {
    match mode {
        IoMode::XdpZeroCopy => "AF_XDP, zero-copy",
        IoMode::XdpCopy => "AF_XDP, copy mode",
        IoMode::XdpGeneric => "AF_XDP, generic (slow driver path)",
        IoMode::Udp => "kernel UDP sockets",
        IoMode::Memory => "memory",
    }
}

#[cfg(test)]
mod tests {
    use sluice_table::Name;

    use super::*;

    #[test]
    fn it_names_addresses_and_ports() {
        let local = LocalCandidate {
            endpoint: Name::new("media0").unwrap(),
            address: ([192, 0, 2, 1], 3480).into(),
            advertised: ([198, 51, 100, 1], 3480).into(),
        };
        let banner = Banner {
            public_url: "https://198.51.100.1:8443".into(),
            addresses: vec![([0, 0, 0, 0], 8443).into()],
            fingerprint: None,
            tls: Tls::SelfSigned,
            media: vec![(local, "eth0".into())],
            dtls: DtlsVersion::V12,
            admin: Admin::default(),
        };
        let text = banner.text(None);
        for part in ["https://198.51.100.1:8443", "192.0.2.1:3480/udp on eth0", "told 198.51.100.1:3480"] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(text.contains("Open in the firewall: 3480/udp, 8443/tcp"), "{text}");
    }
}
