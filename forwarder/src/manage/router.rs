//! Next hops for the planner: AF_XDP where the route's interface has sockets and the neighbour is known, the kernel
//! socket everywhere else, so that no packet ever waits for a neighbour.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sluice_table::{Endpoint, Name};

use super::endpoints::Interface;
use super::route::{Route, Routes};
use crate::engine::Nanos;
use crate::hops::{Hops, Resolution};
use crate::wire::template::{Hop, Template};
use crate::worker::ports::KERNEL;

/// Answers for one commit.
#[derive(Debug)]
pub struct Router<'a> {
    /// Routes and neighbours.
    pub hops: &'a mut Hops,
    /// Interfaces with AF_XDP.
    pub interfaces: &'a BTreeMap<String, Interface>,
    /// Time of asking.
    pub now: Nanos,
}

impl Routes for Router<'_> {
    fn route(&mut self, _: &Name, config: &Endpoint, remote: SocketAddr) -> Route {
        // The kernel socket writes its own Ethernet header; the template's is only skipped.
        let nowhere = Hop { source_mac: [0; 6], destination_mac: [0; 6], vlan: None };
        let kernel = |mtu| Route { port: KERNEL, template: Template::new(nowhere, config.address, remote), mtu };
        match self.hops.resolve(config.address.ip(), remote.ip(), self.now) {
            Resolution::Ready(next) => match self.interfaces.get(&next.interface).filter(|i| i.queues > 0) {
                Some(interface) => Route {
                    port: interface.port,
                    template: Template::new(next.hop, config.address, remote),
                    mtu: next.mtu,
                },
                None => kernel(next.mtu),
            },
            Resolution::Local { mtu } => kernel(mtu),
            Resolution::Pending => kernel(1_500),
            Resolution::Unreachable(reason) => {
                tracing::debug!(%remote, reason, "no way to a peer");
                kernel(1_500)
            }
        }
    }
}
