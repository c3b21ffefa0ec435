//! Endpoints and interfaces: kernel sockets held always, AF_XDP where it works, and why not where it does not.
//! Owns the XDP programs. Never reads a packet.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use sluice_table::protocol::{IoMode, Refusal, Refused, RefusedStep};
use sluice_table::{Endpoint, Name};

use crate::config::Io;
use crate::engine::PortId;
use crate::io::udp::bind_endpoint;
use crate::io::xdp::{OpenError, Step, XdpOptions};
use crate::io::{PollMode, XdpIo};
use crate::worker::ports::MAX_PORTS;
use crate::worker::{Order, WorkerHandle};
use crate::xdp::{Options, Steering};

/// An interface with at least one endpoint.
#[derive(Debug)]
pub struct Interface {
    /// Port of its AF_XDP sockets at every worker.
    pub port: PortId,
    /// How frames get in and out.
    pub mode: IoMode,
    /// Better modes that did not work.
    pub refused: Vec<RefusedStep>,
    /// Queues bound, one a worker.
    pub queues: u32,
    steering: Option<Steering>,
    endpoints: usize,
}

/// All endpoints.
#[derive(Debug)]
pub struct Endpoints {
    io: Io,
    poll: PollMode,
    huge_pages: bool,
    interfaces: BTreeMap<String, Interface>,
    open: BTreeMap<Name, (Endpoint, UdpSocket)>,
}

impl Endpoints {
    /// No endpoints yet.
    pub fn new(io: Io, poll: PollMode, huge_pages: bool) -> Self {
        Endpoints { io, poll, huge_pages, interfaces: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// Interfaces in use, by name.
    pub fn interfaces(&self) -> &BTreeMap<String, Interface> {
        &self.interfaces
    }

    /// Opens an endpoint: its socket, and AF_XDP on its interface if this is the interface's first endpoint.
    pub fn open(&mut self, name: &Name, endpoint: &Endpoint, workers: &[WorkerHandle]) -> Result<(), Refused> {
        if self.open.get(name).is_some_and(|(open, _)| open == endpoint) {
            return Ok(());
        }
        self.close(name, workers);
        let index = interface_index(&endpoint.interface).ok_or_else(|| {
            refused(name, format!("there is no interface {}", endpoint.interface), "`ip link` lists them")
        })?;
        let socket = bind_endpoint(endpoint.address).map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another process holds the port; `ss -ulnp` names it",
                std::io::ErrorKind::AddrNotAvailable => {
                    "the address is not on this host; `ip address` lists those that are"
                }
                _ => "see the reason given",
            };
            refused(name, format!("cannot bind {}: {error}", endpoint.address), hint)
        })?;
        if !self.interfaces.contains_key(&endpoint.interface) {
            let interface = self.open_interface(name, &endpoint.interface, index, workers)?;
            self.interfaces.insert(endpoint.interface.clone(), interface);
        }
        for worker in workers {
            let copy = socket.try_clone().map_err(|error| {
                refused(name, format!("cannot share its socket: {error}"), "raise the open files limit")
            })?;
            let _ = worker.order(Order::AddSocket(copy));
            worker.wake();
        }
        if let Some(interface) = self.interfaces.get_mut(&endpoint.interface) {
            interface.endpoints += 1;
            if let Some(steering) = &mut interface.steering {
                steering
                    .insert_endpoint(endpoint.address, false)
                    .map_err(|error| refused(name, error.to_string(), "see the log"))?;
            }
            tracing::info!(endpoint = %name, address = %endpoint.address, interface = %endpoint.interface, mode = %interface.mode, "endpoint open");
        }
        self.open.insert(name.clone(), (endpoint.clone(), socket));
        Ok(())
    }

    fn open_interface(
        &mut self,
        name: &Name,
        device: &str,
        index: u32,
        workers: &[WorkerHandle],
    ) -> Result<Interface, Refused> {
        let taken: Vec<u8> = self.interfaces.values().map(|i| i.port.0).collect();
        let port = (1..MAX_PORTS as u8).find(|p| !taken.contains(p)).map(PortId).ok_or_else(|| {
            refused(name, format!("{} interfaces are in use already", MAX_PORTS - 1), "use fewer interfaces")
        })?;
        let udp =
            |reasons| Interface { port, mode: IoMode::Udp, refused: reasons, queues: 0, steering: None, endpoints: 0 };
        if self.io == Io::Udp {
            let reason = "kernel sockets were asked for".to_owned();
            return Ok(udp(vec![RefusedStep { mode: IoMode::XdpCopy, reason }]));
        }
        match self.try_xdp(device, index, port, workers) {
            Ok(interface) => Ok(interface),
            Err(reasons) if self.io == Io::Xdp => {
                let text: Vec<String> = reasons.iter().map(|r| format!("{}: {}", r.mode, r.reason)).collect();
                Err(refused(
                    name,
                    format!("AF_XDP on {device} does not work: {}", text.join("; ")),
                    "`sluice doctor` tells what to change; or start with --io auto",
                ))
            }
            Err(reasons) => {
                for step in &reasons {
                    tracing::warn!(interface = device, mode = %step.mode, reason = %step.reason, "AF_XDP refused; using kernel sockets");
                }
                Ok(udp(reasons))
            }
        }
    }

    fn try_xdp(
        &self,
        device: &str,
        index: u32,
        port: PortId,
        workers: &[WorkerHandle],
    ) -> Result<Interface, Vec<RefusedStep>> {
        let step = |mode, reason: String| RefusedStep { mode, reason };
        let explain = |error: &dyn std::error::Error| {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        };
        let mut steering = Steering::load(&Options::default()).map_err(|e| vec![step(IoMode::XdpCopy, explain(&e))])?;
        let attached = steering.attach(index).map_err(|e| vec![step(IoMode::XdpCopy, explain(&e))])?;
        let mut interface =
            Interface { port, mode: IoMode::Udp, refused: Vec::new(), queues: 0, steering: None, endpoints: 0 };
        for worker in workers {
            let mut options = XdpOptions::new(device, u32::from(worker.worker), attached.clone());
            options.poll = self.poll;
            options.huge_pages = self.huge_pages;
            match XdpIo::open(&options) {
                Ok(port) => {
                    let reasons = port.refused().iter().map(|r| step(mode_of(r.step), r.reason.clone()));
                    if interface.queues == 0 {
                        interface.refused = reasons.collect();
                        interface.mode = mode_of(port.step());
                    }
                    steering
                        .register_socket(u32::from(worker.worker), port.fd().as_fd())
                        .map_err(|e| vec![step(IoMode::XdpCopy, explain(&e))])?;
                    interface.queues += 1;
                    let _ = worker.order(Order::AddPort(interface.port, Box::new(port)));
                    worker.wake();
                }
                Err(OpenError::Refused { refused, .. }) if interface.queues > 0 => {
                    let reasons = refused.into_iter().map(|r| r.reason).collect::<Vec<_>>().join("; ");
                    let reason = format!("queue {} stays with the kernel socket: {reasons}", worker.worker);
                    interface.refused.push(step(interface.mode, reason));
                    break;
                }
                Err(OpenError::Refused { refused, .. }) => {
                    return Err(refused.into_iter().map(|r| step(mode_of(r.step), r.reason)).collect());
                }
                Err(error) => return Err(vec![step(IoMode::XdpCopy, explain(&error))]),
            }
        }
        interface.steering = Some(steering);
        Ok(interface)
    }

    /// Closes an endpoint, and its interface's AF_XDP sockets with its last one.
    pub fn close(&mut self, name: &Name, workers: &[WorkerHandle]) {
        let Some((endpoint, _)) = self.open.remove(name) else { return };
        for worker in workers {
            let _ = worker.order(Order::RemoveSocket(endpoint.address));
            worker.wake();
        }
        let Some(interface) = self.interfaces.get_mut(&endpoint.interface) else { return };
        interface.endpoints -= 1;
        if let Some(steering) = &mut interface.steering {
            let _ = steering.remove_endpoint(endpoint.address);
        }
        if interface.endpoints == 0 {
            for worker in workers {
                let _ = worker.order(Order::RemovePort(interface.port));
                worker.wake();
            }
            self.interfaces.remove(&endpoint.interface);
        }
    }

    /// Lets a tuple's packets through to the sockets.
    pub fn admit(&mut self, endpoint: &Name, remote: SocketAddr, leg: u32) {
        self.with_steering(endpoint, |steering, local| steering.insert_tuple(local, remote, leg));
    }

    /// Ends that.
    pub fn dismiss(&mut self, endpoint: &Name, remote: SocketAddr) {
        self.with_steering(endpoint, |steering, local| steering.remove_tuple(local, remote).map(|_| ()));
    }

    /// Whether media of unknown tuples may pass, at a limited rate, because a leg learns its address.
    pub fn accept_unknown(&mut self, endpoint: &Name, accept: bool) {
        self.with_steering(endpoint, |steering, local| steering.insert_endpoint(local, accept));
    }

    fn with_steering(
        &mut self,
        endpoint: &Name,
        change: impl FnOnce(&mut Steering, SocketAddr) -> Result<(), crate::xdp::SteeringError>,
    ) {
        let Some((config, _)) = self.open.get(endpoint) else { return };
        let Some(steering) = self.interfaces.get_mut(&config.interface).and_then(|i| i.steering.as_mut()) else {
            return;
        };
        if let Err(error) = change(steering, config.address) {
            // The packets take the kernel socket instead: slower, counted as such, never lost for this reason.
            tracing::warn!(endpoint = %endpoint, %error, "steering not changed");
        }
    }

    /// Verdicts of every interface's program.
    pub fn verdicts(&self) -> Vec<(String, Vec<(&'static str, u64)>)> {
        let tally = |steering: &Steering| {
            steering.tally().map(|t| t.iter().map(|(verdict, n)| (verdict.name(), n)).collect()).unwrap_or_default()
        };
        self.interfaces.iter().filter_map(|(n, i)| Some((n.clone(), tally(i.steering.as_ref()?)))).collect()
    }

    /// Open endpoints.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Endpoint)> {
        self.open.iter().map(|(name, (endpoint, _))| (name, endpoint))
    }

    /// Sends a datagram from an endpoint's kernel socket.
    pub fn send(&self, endpoint: &Name, to: SocketAddr, bytes: &[u8]) -> std::io::Result<usize> {
        match self.open.get(endpoint) {
            Some((_, socket)) => socket.send_to(bytes, to),
            None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        }
    }
}

fn mode_of(step: Step) -> IoMode {
    match step {
        Step::ZeroCopy => IoMode::XdpZeroCopy,
        Step::CopyGeneric => IoMode::XdpGeneric,
        Step::CopyDriver | Step::HugePages | Step::BusyPoll => IoMode::XdpCopy,
    }
}

fn refused(name: &Name, detail: impl std::fmt::Display, hint: &str) -> Refused {
    Refused::new(Refusal::Endpoint, format!("endpoint {name}: {detail}"), hint)
}

fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a NUL-terminated string that lives during the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}
