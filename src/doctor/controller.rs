//! What a controller needs: its config file, and SANs that can be reached and agree to be one each.

use std::path::PathBuf;
use std::time::Duration;

use super::certificates::{Mend, check_papers};
use super::{Finding, Report, daemons, machine, network};
use crate::config::{Property, Read};
use crate::fabric::Interfaces;
use crate::host::Host;
use crate::tls::Papers;

/// How the controller plugin is set up: its own arguments.
#[derive(Clone, Debug)]
pub struct ControllerSetup {
    /// The config file.
    pub config: PathBuf,
    /// Where the daemon keeps its socket.
    pub runtime_dir: PathBuf,
    /// How long an address may take to answer.
    pub patience: Duration,
}

/// Looks at all of it.
#[must_use]
pub fn examine_controller(host: &Host, setup: &ControllerSetup) -> Report {
    let (config, read) = network::check_config(host, &setup.config);
    let mut findings = vec![config, machine::check_clock(host)];
    if let Some(read) = &read {
        findings.extend(check_certificates(host, read));
        let management = [Property::SanHost];
        let none = Interfaces::default();
        findings.extend(network::check_addresses(
            host,
            read,
            &none,
            &management,
            setup.patience,
        ));
    }
    findings.extend(daemons::check_sanhosts(&setup.runtime_dir));
    Report::new("controller", findings)
}

/// Those that the controller shows each SAN.
fn check_certificates(host: &Host, read: &Read) -> Vec<Finding> {
    let folders = read.config.partitions.values();
    let folders = folders.filter_map(|partition| partition.tls.as_ref());
    let mend = Mend {
        fix: "on the SAN: sanpath san issue --role controller --name NAME --out FOLDER, and put the files of FOLDER in place of these; no restart is needed",
        command: None,
    };
    folders
        .map(|folder| check_papers(host, &Papers::of_caller(host, folder), &mend))
        .collect()
}
