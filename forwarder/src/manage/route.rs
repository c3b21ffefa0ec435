//! How packets to a peer leave: port, prepared headers, MTU. The planner asks; who knows routes answers.

use std::net::SocketAddr;

use sluice_table::{Endpoint, Name};

use crate::engine::PortId;
use crate::wire::template::{Hop, Template};

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Port the frames are submitted to.
    pub port: PortId,
    /// Headers; `None` while the next hop is not known.
    pub template: Option<Template>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

/// Answers where packets from an endpoint to a peer go.
pub trait Routes {
    /// The way to `remote`.
    fn route(&mut self, endpoint: &Name, config: &Endpoint, remote: SocketAddr) -> Route;
}

/// Every peer behind one port and one hop; for memory I/O and benches.
#[derive(Clone, Copy, Debug)]
pub struct FixedRoute {
    /// The port.
    pub port: PortId,
    /// The hop.
    pub hop: Hop,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

impl Default for FixedRoute {
    fn default() -> Self {
        let hop = Hop { source_mac: [2, 0, 0, 0, 0, 1], destination_mac: [2, 0, 0, 0, 0, 2], vlan: None };
        FixedRoute { port: PortId(0), hop, mtu: 1_500 }
    }
}

impl Routes for FixedRoute {
    fn route(&mut self, _: &Name, config: &Endpoint, remote: SocketAddr) -> Route {
        Route { port: self.port, template: Template::new(self.hop, config.address, remote), mtu: self.mtu }
    }
}
