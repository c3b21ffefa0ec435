//! Asks the kernel by rtnetlink which XDP program an interface runs. Never changes anything.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const IFLA_XDP: u16 = 43;
const IFLA_XDP_PROG_ID: u16 = 4;
const ATTRIBUTE_KIND: u16 = 0x3fff;

#[repr(C)]
struct Request {
    header: libc::nlmsghdr,
    link: LinkInfo,
}

/// `struct ifinfomsg` of linux/rtnetlink.h.
#[repr(C)]
struct LinkInfo {
    family: u8,
    pad: u8,
    kind: u16,
    index: i32,
    flags: u32,
    change: u32,
}

/// Id of the XDP program attached to an interface, in whatever mode; `None` if there is none.
pub fn attached_program(ifindex: u32) -> io::Result<Option<u32>> {
    let reply = get_link(ifindex)?;
    let header = size_of::<libc::nlmsghdr>();
    let kind = u16::from_ne_bytes(field(&reply, 4)?);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code = i32::from_ne_bytes(field(&reply, header)?);
        return Err(io::Error::from_raw_os_error(-code));
    }
    let length = (u32::from_ne_bytes(field(&reply, 0)?) as usize).min(reply.len());
    let attributes = reply.get(header + size_of::<LinkInfo>()..length).ok_or_else(malformed)?;
    let Some(xdp) = find(attributes, IFLA_XDP) else { return Ok(None) };
    let Some(id) = find(xdp, IFLA_XDP_PROG_ID) else { return Ok(None) };
    let id = u32::from_ne_bytes(field(id, 0)?);
    Ok((id != 0).then_some(id))
}

fn get_link(ifindex: u32) -> io::Result<Vec<u8>> {
    // SAFETY: a plain system call; the descriptor is checked and owned below.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: freshly opened, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let request = Request {
        header: libc::nlmsghdr {
            nlmsg_len: size_of::<Request>() as u32,
            nlmsg_type: libc::RTM_GETLINK,
            nlmsg_flags: libc::NLM_F_REQUEST as u16,
            nlmsg_seq: 1,
            nlmsg_pid: 0,
        },
        link: LinkInfo { family: 0, pad: 0, kind: 0, index: ifindex as i32, flags: 0, change: 0 },
    };
    // SAFETY: the request is a plain structure of the length given.
    let sent = unsafe { libc::send(socket.as_raw_fd(), (&raw const request).cast(), size_of::<Request>(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut reply = vec![0_u8; 32 * 1024];
    // SAFETY: the buffer has the length given.
    let received = unsafe { libc::recv(socket.as_raw_fd(), reply.as_mut_ptr().cast(), reply.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    reply.truncate(received);
    Ok(reply)
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = u16::from_ne_bytes([attributes[0], attributes[1]]) as usize;
        let found = u16::from_ne_bytes([attributes[2], attributes[3]]) & ATTRIBUTE_KIND;
        let value = attributes.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    bytes.get(at..at + N).and_then(|slice| slice.try_into().ok()).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_padding() {
        let mut bytes = vec![5, 0, 7, 0, 1, 0, 0, 0];
        bytes.extend([8, 0, 43, 0x80, 1, 2, 3, 4]);
        assert_eq!(find(&bytes, 43), Some(&[1, 2, 3, 4][..]));
        assert_eq!(find(&bytes, 44), None);
        assert_eq!(find(&[200, 0, 43, 0, 1], 43), None);
        assert_eq!(find(&[0, 0, 43, 0], 43), None);
    }

    #[test]
    fn loopback_has_no_program_and_a_missing_interface_is_an_error() {
        assert_eq!(attached_program(1).expect("loopback exists"), None);
        assert_eq!(attached_program(0x7fff_fff0).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
