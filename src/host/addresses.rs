//! The addresses of this machine's interfaces.

use std::io;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::fabric::Netdev;

/// One IPv4 address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub netdev: Netdev,
    /// The address.
    pub address: Ipv4Addr,
    /// How many of its bits name the subnet.
    pub bits: u8,
}

/// All of them. What has no name that we would take is left out.
pub(super) fn list() -> io::Result<Vec<Address>> {
    let ipv4 = |found: Option<SockaddrStorage>| {
        let found = found?;
        let ip = found.as_sockaddr_in()?.ip();
        Some(ip)
    };
    let mut addresses = Vec::new();
    for found in getifaddrs()? {
        let known = ipv4(found.address).zip(ipv4(found.netmask));
        let named = found.interface_name.parse();
        if let (Some((address, mask)), Ok(netdev)) = (known, named) {
            addresses.push(Address {
                netdev,
                address,
                bits: u8::try_from(mask.to_bits().count_ones()).unwrap_or(32),
            });
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn the_loopback_has_its_address() {
        let found = list().unwrap();
        let lo = found.iter().find(|it| it.netdev.as_str() == "lo");
        let lo = lo.map(|it| (IpAddr::from(it.address), it.bits));
        assert_eq!(lo, Some(("127.0.0.1".parse().unwrap(), 8)));
    }
}
