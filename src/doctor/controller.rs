//! What a controller needs: its config file, and SANs that can be reached and agree to be one each.

use std::collections::BTreeSet;
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

/// Those that the controller shows each SAN and each archiver.
fn check_certificates(host: &Host, read: &Read) -> Vec<Finding> {
    let sans = read.config.partitions.values().map(|it| it.papers());
    let archivers = read.config.archivers.values().map(|it| it.tls.as_ref());
    let folders: BTreeSet<&PathBuf> = sans.chain(archivers).flatten().collect();
    let mend = Mend {
        fix: "on the SAN: sanpath san issue --role controller --name NAME --out FOLDER, and put the files of FOLDER in place of these; no restart is needed",
        command: None,
    };
    folders
        .into_iter()
        .map(|folder| check_papers(host, &Papers::of_caller(host, folder), &mend))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Grade;
    use super::*;
    use crate::host::fake::FakeWorld;
    use crate::linux_san::Certificates;
    use crate::tls::{Caller, Lifetime, Role};

    fn found(host: &Host, config: PathBuf, check: &str) -> Vec<Finding> {
        let report = examine_controller(
            host,
            &ControllerSetup {
                config,
                runtime_dir: "/nowhere".into(),
                patience: Duration::from_secs(1),
            },
        );
        let findings = report.findings.into_iter();
        findings.filter(|it| it.check == check).collect()
    }

    #[test]
    fn the_clock_is_looked_at() {
        let fake = FakeWorld::new();
        let grade = || found(&fake.host(), "/etc/none.yaml".into(), "clock")[0].grade;
        assert_eq!(grade(), Grade::Good);
        fake.set_clock_kept(false);
        assert_eq!(grade(), Grade::Warning);
        fake.set_clock_kept(true);
        assert_eq!(grade(), Grade::Good);
    }

    /// On this machine, with real files.
    #[test]
    fn the_certificates_for_sans_and_archivers_are_looked_at_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        let office = Certificates::new(&host, &dir.path().join("state"));
        office.init(Lifetime::days(365)).unwrap();
        let issue = |folder: &Path, days: u32| {
            let caller = Caller {
                role: Role::Controller,
                name: "c".to_owned(),
            };
            office.issue(caller, folder, Lifetime::days(days)).unwrap();
        };
        issue(&one, 365);
        issue(&two, 10);
        let partition = |name: &str| {
            let tls = one.display();
            format!(
                "  {name}:\n    blockstoragemanager: linux\n    sanhost: 127.0.0.1:1\n    tls: {tls}\n"
            )
        };
        let archiver = format!(
            "  x:\n    address: 127.0.0.1:1\n    tls: {}\n",
            two.display()
        );
        let config = dir.path().join("config.yaml");
        let text = [
            "version: 1\npartitions:\n",
            &partition("a"),
            &partition("b"),
            "archivers:\n",
            &archiver,
        ];
        std::fs::write(&config, text.concat()).unwrap();
        let grades = || -> Vec<Grade> {
            let findings = found(&host, config.clone(), "certificate").into_iter();
            findings.map(|it| it.grade).collect()
        };
        assert_eq!(grades(), [Grade::Good, Grade::Warning]);
        std::fs::remove_dir_all(&two).unwrap();
        assert_eq!(grades(), [Grade::Good, Grade::Problem]);
        issue(&two, 365);
        assert_eq!(grades(), [Grade::Good, Grade::Good]);
    }
}
