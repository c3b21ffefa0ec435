//! Where media arrives: the configured addresses or all of the host's. Reads interfaces, opens nothing.

use std::net::{IpAddr, SocketAddr};

use sluice_table::Name;

use super::ServiceError;
use crate::config::{Media, MediaAddress, MediaAddresses};
use crate::netdev::address::addresses;
use crate::transport::LocalCandidate;

/// Addresses of the host that are used unless configured; more are left out and said.
const MOST: usize = 8;

/// One local candidate for each address, with its interface; at least one.
pub(super) fn locals(media: &Media) -> Result<Vec<(LocalCandidate, String)>, ServiceError> {
    let mut addresses = match &media.addresses {
        MediaAddresses::List(list) => list.clone(),
        MediaAddresses::Auto => of_host()?,
    };
    if addresses.is_empty() {
        return Err(ServiceError::NoMediaAddress);
    }
    if addresses.len() > MOST {
        tracing::warn!(
            used = MOST,
            found = addresses.len(),
            "this host has many addresses; list those for media in [media] addresses"
        );
        addresses.truncate(MOST);
    }
    let local = |(at, address): (usize, MediaAddress)| {
        let MediaAddress { interface, address, advertised } = address;
        let endpoint = Name::new(&format!("media{at}")).map_err(|_| ServiceError::NoMediaAddress)?;
        let advertised = SocketAddr::new(advertised.unwrap_or(address), media.port);
        Ok((LocalCandidate { endpoint, address: SocketAddr::new(address, media.port), advertised }, interface))
    };
    addresses.into_iter().enumerate().map(local).collect()
}

fn of_host() -> Result<Vec<MediaAddress>, ServiceError> {
    let found = addresses().map_err(ServiceError::Addresses)?;
    Ok(found
        .into_iter()
        .map(|host| MediaAddress { interface: host.interface, address: host.address, advertised: None })
        .collect())
}

/// The host part of a URL that leads here.
pub(super) fn url_host(listen: SocketAddr, locals: &[(LocalCandidate, String)]) -> String {
    let ip = if listen.ip().is_unspecified() {
        locals.first().map_or(listen.ip(), |(local, _)| local.advertised.ip())
    } else {
        listen.ip()
    };
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_addresses_are_taken_as_they_are() {
        let listed = MediaAddress {
            interface: "eth0".into(),
            address: [192, 0, 2, 1].into(),
            advertised: Some([198, 51, 100, 1].into()),
        };
        let media = Media { addresses: MediaAddresses::List(vec![listed]), port: 3480, ..Media::default() };
        let locals = locals(&media).unwrap();
        let (local, interface) = &locals[0];
        assert_eq!((local.address, interface.as_str()), (([192, 0, 2, 1], 3480).into(), "eth0"));
        assert_eq!(local.advertised, ([198, 51, 100, 1], 3480).into());
        assert_eq!(url_host(([0, 0, 0, 0], 443).into(), &locals), "198.51.100.1");
        assert_eq!(url_host("[::1]:443".parse().unwrap(), &locals), "[::1]");
    }

    #[test]
    fn no_address_is_an_error_that_says_what_to_do() {
        let media = Media { addresses: MediaAddresses::List(Vec::new()), ..Media::default() };
        let error = locals(&media).unwrap_err();
        assert!(error.hint().contains("[media]"), "{error}: {}", error.hint());
    }
}
