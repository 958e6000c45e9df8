//! Whether packets as long as an interface sends them reach the SAN: the one fault of a network under which logins work and data does not.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use super::Finding;
use crate::config::Read;
use crate::fabric::{Interfaces, Netdev, PathAddress};
use crate::host::{Address, Host};

const NETDEVS: &str = "/sys/class/net";
/// Every way of IPv4 takes so much (RFC 791); whoever echoes this is there and echoes.
const LEAST: u16 = 576;
/// What ways are made for, the longest first.
const USUAL: [u16; 6] = [9000, 8950, 1500, 1450, 1400, 1280];
/// One path, as a list has it or the routes.
type Way = (Ipv4Addr, Netdev);

/// Each address of the nodes' lists by the interface that leads there.
pub(super) fn check_ways(
    host: &Host,
    read: &Read,
    interfaces: &Interfaces,
    patience: Duration,
) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    let ways = ways(host, read, interfaces).into_iter();
    let findings: Vec<Finding> = ways
        .filter_map(|way| check_way(host, CHECK, &way, patience))
        .collect();
    if findings.is_empty() {
        return vec![Finding::good(CHECK, "no address tells")];
    }
    findings
}

/// What is behind a router or has a name or an IPv6 address is not looked at.
fn ways(host: &Host, read: &Read, interfaces: &Interfaces) -> BTreeSet<Way> {
    let own = host.addresses().unwrap_or_default();
    let lists = read.config.partitions.values();
    let paths = lists.flat_map(|partition| partition.ncpaths.listed());
    let way = paths.filter_map(|path| {
        let PathAddress::Portal(portal) = &path.address else {
            return None;
        };
        let IpAddr::V4(address) = portal.address() else {
            return None;
        };
        let netdev = match &path.iface {
            Some(key) => interfaces.find(key).cloned(),
            None => own
                .iter()
                .find(|it| is_beside(it, address))
                .map(|it| it.netdev.clone()),
        };
        Some((address, netdev?))
    });
    way.collect()
}

fn is_beside(own: &Address, other: Ipv4Addr) -> bool {
    let differing = own.address.to_bits() ^ other.to_bits();
    differing.leading_zeros() >= u32::from(own.bits)
}

/// `None` when nothing can be said: the address is dead, which is told elsewhere, or does not echo.
fn check_way(
    host: &Host,
    check: &'static str,
    (address, netdev): &Way,
    patience: Duration,
) -> Option<Finding> {
    let path = Path::new(NETDEVS).join(netdev.as_str()).join("mtu");
    let mtu: u16 = host.find_attribute(&path).ok()??.parse().ok()?;
    let arrives = |bytes| host.echo(*address, Some(netdev), bytes, patience);
    if mtu <= LEAST {
        return None;
    }
    arrives(LEAST).ok()?;
    match arrives(mtu) {
        Ok(()) => {
            let found = format!("{address} through {netdev}: {mtu} bytes arrive whole");
            return Some(Finding::good(check, found));
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
        Err(_) => return None,
    }
    // One may be lost for another reason.
    if arrives(mtu).is_ok() {
        return None;
    }
    let shorter = USUAL.into_iter().filter(|bytes| *bytes < mtu);
    let fits = shorter.into_iter().find(|bytes| arrives(*bytes).is_ok());
    let fits = fits.unwrap_or(LEAST);
    Some(
        Finding::warning(
            check,
            format!("{address} through {netdev}: packets of {mtu} bytes get lost, {fits} arrive"),
            "logins and small reads work while large transfers stop until the session is dropped, again and again",
            format!("let every switch on the way and the SAN take {mtu} bytes, or have {netdev} send no more than {fits}; where the host's network is configured too, or a reboot undoes it"),
        )
        .with_command(format!("ip link set dev {netdev} mtu {fits}")),
    )
}
