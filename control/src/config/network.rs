//! Checked values of network keys: address ranges, the public URL. Never resolves a name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses, e.g. `10.0.0.0/8` or `::1`. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(given)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                range.to_bits() & mask == given.to_bits() & mask
            }
            (IpAddr::V6(range), IpAddr::V6(given)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                range.to_bits() & mask == given.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = ();
    fn from_str(text: &str) -> Result<Cidr, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| ()))?;
        if bits > most { Err(()) } else { Ok(Cidr { address, bits }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The URL clients reach the listener by: scheme, host and port, and a path without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// `http` or `https`.
    pub scheme: String,
    /// Host, and port if one is given.
    pub authority: String,
    /// Path; empty or `/...`.
    pub path: String,
}

impl PublicUrl {
    /// The origin as browsers send it.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

impl FromStr for PublicUrl {
    type Err = ();
    fn from_str(text: &str) -> Result<PublicUrl, ()> {
        let uri: http::Uri = text.parse().map_err(|_| ())?;
        let scheme = uri.scheme_str().filter(|s| matches!(*s, "http" | "https")).ok_or(())?.to_owned();
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or(())?.as_str().to_lowercase();
        if uri.query().is_some() || text.contains('#') {
            return Err(());
        }
        Ok(PublicUrl { scheme, authority, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}
