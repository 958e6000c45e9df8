//! What a node needs, in the order in which a stage meets it.

use std::path::PathBuf;
use std::time::Duration;

use super::{Finding, Report, daemons, initiator, kernel, machine, mtu, multipathd, network};
use crate::config::{InterfaceSource, Property};
use crate::host::Host;

const ECHO: Duration = Duration::from_secs(1);

/// How the node plugin is set up: its own arguments.
#[derive(Clone, Debug)]
pub struct NodeSetup {
    /// The host's root as we see it.
    pub root: PathBuf,
    /// The config file.
    pub config: PathBuf,
    /// Where the keys of path lists are explained.
    pub interfaces: InterfaceSource,
    /// Where the daemon keeps its socket.
    pub runtime_dir: PathBuf,
    /// How long an address may take to answer.
    pub patience: Duration,
}

/// Looks at all of it. Takes as long as addresses that do not answer, which are tried together, and half a minute for a daemon that hangs.
#[must_use]
pub fn examine_node(host: &Host, setup: &NodeSetup) -> Report {
    let mut findings = kernel::check_modules(host, &setup.root);
    findings.push(kernel::check_udev(host));
    findings.push(kernel::check_rules(host, &setup.root));
    findings.push(machine::check_clock(host));
    findings.push(machine::check_selinux(host));
    findings.push(initiator::check_name(host, &setup.root));
    findings.push(initiator::check_iscsid(host));
    findings.push(initiator::check_version(host));
    findings.extend(multipathd::check_multipathd(host));
    findings.extend(check_network(host, setup));
    findings.extend(initiator::check_sessions(host));
    findings.extend(multipathd::check_maps(host));
    findings.extend(daemons::check_volumes(&setup.runtime_dir));
    Report::new("node", findings)
}

fn check_network(host: &Host, setup: &NodeSetup) -> Vec<Finding> {
    let (config, read) = network::check_config(host, &setup.config);
    let mut findings = vec![config];
    let (told, interfaces) = network::check_interfaces(host, &setup.interfaces, read.as_ref());
    findings.extend(told);
    findings.extend(network::check_subnets(host, &setup.interfaces));
    if let Some(read) = &read {
        let data = [Property::NcPaths];
        findings.extend(network::check_addresses(
            host,
            read,
            &interfaces,
            &data,
            setup.patience,
        ));
        // An echo is back at once or not at all.
        let patience = setup.patience.min(ECHO);
        findings.extend(mtu::check_ways(host, read, &interfaces, patience));
    }
    findings.extend(initiator::check_records(host, &setup.root, read.as_ref()));
    findings
}
