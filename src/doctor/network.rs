//! The config file, the interfaces that it names, and whether its addresses answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::{Finding, Grade};
use crate::config::{self, InterfaceSource, Probed, Property, Read};
use crate::fabric::{Interfaces, Netdev};
use crate::fault::chain;
use crate::host::Host;
use crate::iscsi;
use crate::node::Surroundings;

const NETDEVS: &str = "/sys/class/net";
const ADDRESS: &str = "address";
/// `include/uapi/linux/if.h`, `IFF_UP`.
const UP: u32 = 1;

/// The file as it was read, or why it was not.
pub(super) fn check_config(host: &Host, path: &Path) -> (Finding, Option<Read>) {
    const CHECK: &str = "config";
    const REASON: &str =
        "without a good file no volume is created or staged; those that are there can leave";
    let text = match host.read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            let found = format!("{} cannot be read: {error}", path.display());
            let fix =
                "write it, or say with --config where it is; deploy/config.yaml is an example";
            return (Finding::problem(CHECK, found, REASON, fix), None);
        }
    };
    match config::read(&text) {
        Ok(read) => {
            let found = format!("{} partitions", read.config.partitions.len());
            (Finding::good(CHECK, found), Some(read))
        }
        Err(error) => {
            let found = format!("{}: {}", path.display(), chain(&error));
            let fix = "mend that place; `sanpath properties check` looks again";
            (Finding::problem(CHECK, found, REASON, fix), None)
        }
    }
}

/// What `STORAGE_INTERFACES` says, whether that is there, and whether it is all that the path lists name.
pub(super) fn check_interfaces(
    host: &Host,
    source: &InterfaceSource,
    read: Option<&Read>,
) -> (Vec<Finding>, Interfaces) {
    const CHECK: &str = "storage-interfaces";
    const REASON: &str = "paths bound to it are not used; the others are";
    let interfaces = match source.read(host) {
        Ok(interfaces) => interfaces,
        Err(error) => {
            let fix = "write STORAGE_INTERFACES=\"iface0=br0,iface1=eth1\"";
            let finding = Finding::problem(CHECK, chain(&error), REASON, fix);
            return (vec![finding], Interfaces::default());
        }
    };
    let mut findings = Vec::new();
    for (key, netdev) in interfaces.iter() {
        let there = host.find_stat(&Path::new(NETDEVS).join(netdev.as_str()));
        findings.push(match there {
            Ok(None) => Finding::problem(
                CHECK,
                format!("{key} is {netdev}, and there is no such interface"),
                REASON,
                format!("make {netdev}, or name another interface for {key}; `ip link` shows what there is"),
            ),
            _ => check_link(host, CHECK, &key.to_string(), netdev),
        });
    }
    findings.extend(shared_interfaces(CHECK, &interfaces));
    let told = read.map(|read| config::check(read, Some(&interfaces)));
    for told in told.into_iter().flatten().filter(|it| it.is_problem) {
        let fix = "add the key to STORAGE_INTERFACES of this node, or take it out of the list";
        findings.push(Finding::problem(CHECK, told.text, REASON, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::good(CHECK, "no path list needs one"));
    }
    (findings, interfaces)
}

fn check_link(host: &Host, check: &'static str, key: &str, netdev: &Netdev) -> Finding {
    let attribute = |name: &str| {
        let path = Path::new(NETDEVS).join(netdev.as_str()).join(name);
        host.find_attribute(&path).ok().flatten()
    };
    // `unknown` is that of devices that do not tell (Documentation/networking/operstates.rst).
    let state = attribute("operstate").unwrap_or_default();
    if !matches!(
        state.as_str(),
        "down" | "lowerlayerdown" | "notpresent" | "dormant"
    ) {
        return Finding::good(check, format!("{key} is {netdev}"));
    }
    const REASON: &str = "paths bound to it carry nothing";
    let found = format!("{key} is {netdev}, and that is {state}");
    let flags = attribute("flags").unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
    if flags & UP != 0 {
        let fix = "it was brought up, and nothing answers at its other end: see the cable, the switch's port, or the bridge's or bond's own interfaces";
        return Finding::problem(check, found, REASON, fix);
    }
    let fix = "bring it up, and have the host's network configuration do so at boot";
    Finding::problem(check, found, REASON, fix).with_command(format!("ip link set dev {netdev} up"))
}

/// Two keys of one interface look like two paths and are one cable.
fn shared_interfaces(check: &'static str, interfaces: &Interfaces) -> Vec<Finding> {
    let mut seen = BTreeMap::new();
    let mut findings = Vec::new();
    for (key, netdev) in interfaces.iter() {
        let Some(other) = seen.insert(netdev, key) else {
            continue;
        };
        findings.push(Finding::warning(
            check,
            format!("{other} and {key} are both {netdev}"),
            "paths that look like two are one: with that cable both are gone",
            "give each key an interface of its own in STORAGE_INTERFACES",
        ));
    }
    findings
}

/// Interfaces that share a subnet and answer for each other.
pub(super) fn check_subnets(host: &Host, source: &InterfaceSource) -> Vec<Finding> {
    const CHECK: &str = "subnet";
    let advice = Surroundings::new(host.clone(), source.clone()).advice();
    let told = advice.into_iter().map(|advice| {
        Finding::warning(
            CHECK,
            advice.text,
            "what leaves through one interface may come back through another, or be dropped: two paths that share one cable",
            "set that now, and the same in a file of /etc/sysctl.d",
        )
        .with_command(advice.mend)
    });
    let findings: Vec<Finding> = told.collect();
    if findings.is_empty() {
        return vec![Finding::good(
            CHECK,
            "no two storage interfaces get in each other's way",
        )];
    }
    findings
}

/// Each address of the lists `wanted`, tried through its interface.
pub(super) fn check_addresses(
    host: &Host,
    read: &Read,
    interfaces: &Interfaces,
    wanted: &[Property],
    patience: Duration,
) -> Vec<Finding> {
    let probed = config::probe(host, &read.config, interfaces, wanted, patience);
    let is_any_good = |like: &Probed| {
        probed
            .iter()
            .any(|other| other.name == like.name && other.outcome.is_ok())
    };
    let sessions = iscsi::list_sessions(host).unwrap_or_default();
    let is_idle = |probed: &Probed| {
        let portals = sessions.iter().filter_map(|session| session.persistent);
        let mut portals = portals.map(|portal| portal.address().to_string());
        let is_data = probed.name.property == Property::NcPaths;
        is_data && !portals.any(|address| probed.element.contains(&address))
    };
    let finding = |probed| {
        let is_another_good = is_any_good(probed);
        // Without a volume that it shows somebody Linux' target listens nowhere.
        if probed.is_refused && !is_another_good && is_idle(probed) {
            let found = format!(
                "{} {} is there and serves nothing yet",
                probed.name, probed.element
            );
            return Finding::good(ADDRESS, found);
        }
        address_finding(probed, is_another_good)
    };
    probed.iter().map(finding).collect()
}

fn address_finding(probed: &Probed, is_another_good: bool) -> Finding {
    let through = probed.through.as_ref();
    let through = through.map_or_else(String::new, |netdev| format!(" through {netdev}"));
    let place = format!("{} {}{through}", probed.name, probed.element);
    let why = match &probed.outcome {
        Ok(after) => {
            let found = format!("{place} answered after {} ms", after.as_millis());
            return Finding::good(ADDRESS, found);
        }
        Err(why) => why,
    };
    let (grade, reason) = if is_another_good {
        (
            Grade::Warning,
            "others of its list answer, so volumes are served; one failure more may be one too many",
        )
    } else {
        (Grade::Problem, "no address of its list answers")
    };
    Finding {
        grade,
        ..Finding::warning(
            ADDRESS,
            format!("{place}: {why}"),
            reason,
            "see cable, VLAN, route and firewall on the way there; if it is gone for good, take it out of the list",
        )
    }
}
