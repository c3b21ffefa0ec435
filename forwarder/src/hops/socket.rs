//! The two netlink sockets: one to ask, one to be told. Knows nothing of what the messages mean.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Message, Messages, Request, u32_at};

/// The kernel answers rtnetlink within the call; this only bounds what should not happen.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// Room for notifications while the management thread is busy.
const NOTIFICATION_BUFFER: usize = 1 << 20;
/// Longer than any message asked for here.
const DATAGRAM: usize = 64 * 1024;
/// Datagrams taken by one drain; the descriptor stays readable if there are more.
const DRAIN_LIMIT: usize = 4_096;

/// `RTNLGRP_*` as bits: link, neigh, IPv4 address, route and rule, IPv6 address, route and rule, next hop.
/// Addresses, rules and next-hop objects change routes without a message about a route.
const GROUPS: u32 = bit(libc::RTNLGRP_LINK)
    | bit(libc::RTNLGRP_NEIGH)
    | bit(libc::RTNLGRP_IPV4_IFADDR)
    | bit(libc::RTNLGRP_IPV4_ROUTE)
    | bit(libc::RTNLGRP_IPV4_RULE)
    | bit(libc::RTNLGRP_IPV6_IFADDR)
    | bit(libc::RTNLGRP_IPV6_ROUTE)
    | bit(libc::RTNLGRP_IPV6_RULE)
    | bit(libc::RTNLGRP_NEXTHOP);

const fn bit(group: libc::c_uint) -> u32 {
    1 << (group - 1)
}

fn open(groups: u32) -> Result<OwnedFd, Errno> {
    // No protocol is protocol 0, NETLINK_ROUTE.
    let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
    Ok(fd)
}

/// Receives a datagram of the kernel; anything another process sent is skipped (`Ok(None)`).
fn receive<'a>(fd: &OwnedFd, buffer: &'a mut [u8], flags: RecvFlags) -> Result<Option<&'a [u8]>, Errno> {
    let (_, length, from) = rustix::net::recvfrom(fd, &mut *buffer, flags)?;
    let kernel = from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
    Ok(kernel.then(|| &buffer[..length.min(buffer.len())]))
}

/// Asks and waits for the answer.
#[derive(Debug)]
pub(super) struct Asker {
    fd: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Asker {
    pub(super) fn open() -> Result<Asker, Errno> {
        let fd = open(0)?;
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Asker { fd, sequence: 0, buffer: vec![0; DATAGRAM].into() })
    }

    /// Sends a request and gives the first answer to `read`; the kernel's refusal is the error. An answer
    /// without content (an acknowledgement) is read as an empty body.
    pub(super) fn ask<T>(&mut self, request: Request, read: impl Fn(&Message<'_>) -> Option<T>) -> Result<T, Errno> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let bytes = request.finish(self.sequence);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        // Late answers to a request that timed out may come first; more than a few means something is wrong.
        for _ in 0..16 {
            let datagram = match receive(&self.fd, &mut self.buffer, RecvFlags::empty()) {
                Ok(Some(datagram)) => datagram,
                Ok(None) | Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let Some(answer) = Messages(datagram).find(|message| message.sequence == self.sequence) else { continue };
            if answer.kind != libc::NLMSG_ERROR as u16 {
                return read(&answer).ok_or(Errno::BADMSG);
            }
            let code = u32_at(answer.body, 0).ok_or(Errno::BADMSG)? as i32;
            return match code {
                0 => read(&Message { body: &[], ..answer }).ok_or(Errno::BADMSG),
                code => Err(Errno::from_raw_os_error(code.saturating_neg())),
            };
        }
        Err(Errno::TIMEDOUT)
    }
}

/// Is told about changes.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

impl Listener {
    pub(super) fn open() -> Result<Listener, Errno> {
        let fd = open(GROUPS)?;
        // Past the system's limit where allowed; a smaller buffer only means reading everything anew more often.
        if sockopt::set_socket_recv_buffer_size_force(&fd, NOTIFICATION_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, NOTIFICATION_BUFFER)?;
        }
        Ok(Listener { fd, buffer: vec![0; DATAGRAM].into() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives every waiting message to `each`; false if messages were lost or the socket failed.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&Message<'_>)) -> bool {
        let mut whole = true;
        for _ in 0..DRAIN_LIMIT {
            match receive(&self.fd, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(Some(datagram)) => Messages(datagram).for_each(|message| each(&message)),
                Ok(None) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return whole,
                // ENOBUFS: the kernel dropped notifications.
                Err(Errno::NOBUFS) => whole = false,
                Err(_) => return false,
            }
        }
        whole
    }
}
