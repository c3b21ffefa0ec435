//! XDP programs of interfaces, and netfilter hooks, by netlink.

use std::io;

use super::netlink::{Request, ask, attributes, put};

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const IFLA_XDP: u16 = 43;
const NESTED: u16 = 1 << 15;
/// Attributes inside `IFLA_XDP`.
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const GET_CHAINS: u16 = 10 << 8 | 4;

/// Where in the receive path a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Driver,
    /// In the network stack.
    Generic,
    /// On the card.
    Hardware,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its id.
    pub id: u32,
    /// Where it runs.
    pub mode: Mode,
}

/// `struct ifinfomsg` of an interface.
fn ifinfomsg(index: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// The XDP programs of an interface, one at most for each mode.
pub fn xdp(index: u32) -> io::Result<Vec<Attached>> {
    let answers = ask(libc::NETLINK_ROUTE, RTM_GETLINK, libc::NLM_F_ACK as u16, &Request::new(&ifinfomsg(index)))?;
    let mut found = Vec::new();
    for answer in &answers {
        let body = answer.get(16..).unwrap_or(&[]);
        for (_, nested) in attributes(body).filter(|(kind, _)| *kind == IFLA_XDP) {
            for (kind, value) in attributes(nested) {
                let mode = match kind {
                    5 => Mode::Driver,
                    6 => Mode::Generic,
                    7 => Mode::Hardware,
                    _ => continue,
                };
                if let Some(id) = value.first_chunk().map(|b| u32::from_ne_bytes(*b)).filter(|id| *id != 0) {
                    found.push(Attached { id, mode });
                }
            }
        }
    }
    Ok(found)
}

/// Detaches the program of one mode. `EBUSY` when a BPF link holds it.
pub fn detach(index: u32, mode: Mode) -> io::Result<()> {
    let flag: u32 = match mode {
        Mode::Generic => 1 << 1,
        Mode::Driver => 1 << 2,
        Mode::Hardware => 1 << 3,
    };
    let mut nested = Vec::new();
    put(&mut nested, XDP_FD, &(-1i32).to_ne_bytes());
    put(&mut nested, XDP_FLAGS, &flag.to_ne_bytes());
    let mut request = Request::new(&ifinfomsg(index));
    request.attribute(IFLA_XDP | NESTED, &nested);
    ask(libc::NETLINK_ROUTE, RTM_SETLINK, libc::NLM_F_ACK as u16, &request).map(drop)
}

/// Names (`table chain`) of nftables chains that see received packets (ingress of IP: hooks prerouting and input).
pub fn firewall_chains() -> io::Result<Vec<String>> {
    // struct nfgenmsg: any family.
    let answers = ask(libc::NETLINK_NETFILTER, GET_CHAINS, libc::NLM_F_DUMP as u16, &Request::new(&[0; 4]))?;
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
    let mut chains = Vec::new();
    for answer in &answers {
        let (mut table, mut chain, mut hook) = (String::new(), String::new(), None);
        for (kind, value) in attributes(answer.get(4..).unwrap_or(&[])) {
            match kind {
                1 => table = text(value),
                3 => chain = text(value),
                4 => {
                    hook = attributes(value)
                        .find(|(kind, _)| *kind == 1)
                        .and_then(|(_, v)| v.first_chunk().map(|b| u32::from_be_bytes(*b)));
                }
                _ => {}
            }
        }
        // NF_INET_PRE_ROUTING and NF_INET_LOCAL_IN.
        if matches!(hook, Some(0 | 1)) {
            chains.push(format!("{table} {chain}"));
        }
    }
    Ok(chains)
}
