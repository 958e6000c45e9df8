//! What a controller needs: its config file, and SANs that can be reached and agree to be one each.

use std::path::PathBuf;
use std::time::Duration;

use super::{Report, daemons, network};
use crate::config::Property;
use crate::fabric::Interfaces;
use crate::host::Host;

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
    let mut findings = vec![config];
    if let Some(read) = &read {
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
