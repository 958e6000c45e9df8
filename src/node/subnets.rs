//! Interfaces that share a subnet: by its defaults Linux answers for any address on any of them and sends by the first route, so that what leaves through
//! one comes back through the other, or is dropped. What to set, from what is set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::fabric::Netdev;

/// What an interface must have so that its answers come back through it, and whether a value does (Documentation/networking/ip-sysctl.rst).
const SETTINGS: [Setting; 3] = [
    // Answer only for an address of the interface that was asked.
    Setting {
        name: "arp_ignore",
        mend: 1,
        does: |value| value >= 1,
    },
    // Ask with an address of the interface itself.
    Setting {
        name: "arp_announce",
        mend: 2,
        does: |value| value >= 2,
    },
    // Strict: an answer is dropped whose sender the first route looks for elsewhere.
    Setting {
        name: "rp_filter",
        mend: 2,
        does: |value| value != 1,
    },
];

struct Setting {
    name: &'static str,
    mend: u32,
    does: fn(u32) -> bool,
}

/// An interface as it is set.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub netdev: Netdev,
    /// Its addresses, and how many bits of each name the subnet.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// By name, as the kernel goes by them: the larger one of the interface's own and that of all.
    pub settings: BTreeMap<&'static str, u32>,
}

/// What is to be set for interfaces that share a subnet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advice {
    /// Who shares it.
    pub netdevs: BTreeSet<Netdev>,
    /// The whole sentence.
    pub text: String,
    /// The command in it.
    pub mend: String,
}

/// The names of the settings that [`Seen`] has.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.name)
}

/// One advice for each subnet that several of `interfaces` are in and at least one of them is not set for. A setting that could not be read is
/// taken for right.
pub fn advise(interfaces: &[Seen]) -> Vec<Advice> {
    let mut subnets: BTreeMap<(Ipv4Addr, u8), Vec<&Seen>> = BTreeMap::new();
    for seen in interfaces {
        for (address, bits) in &seen.addresses {
            let sharing = subnets.entry((network(*address, *bits), *bits));
            sharing.or_default().push(seen);
        }
    }
    let advices = subnets.into_iter();
    advices
        .filter_map(|(subnet, sharing)| advise_subnet(subnet, &sharing))
        .collect()
}

fn advise_subnet((network, bits): (Ipv4Addr, u8), sharing: &[&Seen]) -> Option<Advice> {
    let netdevs: BTreeSet<Netdev> = sharing.iter().map(|seen| seen.netdev.clone()).collect();
    let mends: BTreeSet<String> = sharing.iter().flat_map(|seen| mends(seen)).collect();
    if netdevs.len() < 2 || mends.is_empty() {
        return None;
    }
    let names: Vec<&str> = netdevs.iter().map(Netdev::as_str).collect();
    let mends: Vec<String> = mends.into_iter().collect();
    let mend = format!("sysctl -w {}", mends.join(" "));
    let text = format!(
        "{} share {network}/{bits}, and answers to what leaves through one may come back through another or be dropped; set on this node: {mend} (docs/paths.md)",
        names.join(" and "),
    );
    Some(Advice {
        netdevs,
        text,
        mend,
    })
}

fn mends(seen: &Seen) -> Vec<String> {
    let amiss = SETTINGS.iter().filter(|setting| {
        let value = seen.settings.get(setting.name);
        value.is_some_and(|value| !(setting.does)(*value))
    });
    // In the name of a sysctl dots separate; one that belongs to the interface's name is a slash there.
    let netdev = seen.netdev.as_str().replace('.', "/");
    amiss
        .map(|setting| format!("net.ipv4.conf.{netdev}.{}={}", setting.name, setting.mend))
        .collect()
}

fn network(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32)));
    Ipv4Addr::from_bits(address.to_bits() & mask.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(netdev: &str, address: &str, bits: u8, values: [u32; 3]) -> Seen {
        Seen {
            netdev: netdev.parse().unwrap(),
            addresses: vec![(address.parse().unwrap(), bits)],
            settings: setting_names().zip(values).collect(),
        }
    }

    const DEFAULTS: [u32; 3] = [0, 0, 0];
    const STRICT: [u32; 3] = [0, 0, 1];
    const RIGHT: [u32; 3] = [1, 2, 2];

    #[test]
    fn each_interface_of_a_subnet_is_told_what_it_lacks() {
        let advice = advise(&[
            seen("br0", "192.168.1.10", 24, STRICT),
            seen("eth0.100", "192.168.1.11", 24, DEFAULTS),
            seen("eth2", "10.0.0.1", 24, STRICT),
        ]);
        assert_eq!(advice.len(), 1, "{advice:?}");
        let text = &advice[0].text;
        assert!(
            text.starts_with("br0 and eth0.100 share 192.168.1.0/24"),
            "{text}"
        );
        let expected = "sysctl -w net.ipv4.conf.br0.arp_announce=2 net.ipv4.conf.br0.arp_ignore=1 net.ipv4.conf.br0.rp_filter=2 net.ipv4.conf.eth0/100.arp_announce=2 net.ipv4.conf.eth0/100.arp_ignore=1 (";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_is_right_or_alone_is_left_in_peace() {
        let right = [
            seen("br0", "192.168.1.10", 24, RIGHT),
            seen("eth1", "192.168.1.11", 24, [2, 2, 0]),
        ];
        assert_eq!(advise(&right), []);
        let apart = [
            seen("br0", "192.168.1.10", 25, STRICT),
            seen("eth1", "192.168.1.200", 25, STRICT),
        ];
        assert_eq!(advise(&apart), []);
        let mut alone = seen("br0", "192.168.1.10", 24, STRICT);
        alone.addresses.push(("192.168.1.12".parse().unwrap(), 24));
        assert_eq!(advise(&[alone]), []);
        let mut unread = right.clone();
        unread[0].settings.clear();
        assert_eq!(advise(&unread), []);
    }

    #[test]
    fn one_that_is_wrong_is_enough() {
        let advice = advise(&[
            seen("br0", "192.168.1.10", 24, RIGHT),
            seen("eth1", "192.168.1.11", 24, [1, 2, 1]),
        ]);
        assert!(
            advice[0]
                .text
                .contains("sysctl -w net.ipv4.conf.eth1.rp_filter=2 (")
        );
    }

    #[test]
    fn any_width_names_a_subnet() {
        let of = |bits| network("192.168.1.77".parse().unwrap(), bits).to_string();
        assert_eq!(of(32), "192.168.1.77");
        assert_eq!(of(24), "192.168.1.0");
        assert_eq!(of(0), "0.0.0.0");
    }
}
