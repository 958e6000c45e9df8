//! What a good config file still lacks on one machine: interfaces that its paths name, and addresses that answer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use super::properties::{Property, PropertyName};
use super::{Config, Partition, Read};
use crate::fabric::{Interfaces, ListedPath, Netdev, PathAddress};
use crate::host::Host;
use crate::volume::{Family, SanName};

/// So many addresses are tried at a time.
const AT_ONCE: usize = 16;
/// And so many in all: a config file has a few partitions.
const MOST: usize = 256;
/// All properties that hold addresses.
pub const ADDRESSES: [Property; 3] = [Property::SanHost, Property::NcPaths, Property::ScPaths];
/// What the resolver may take beside the connection itself.
const RESOLVER: Duration = Duration::from_secs(5);

/// Something that is told about a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it must be mended.
    pub is_problem: bool,
    /// What it is.
    pub text: String,
}

/// Looks at what `read` says beside its form. Without `interfaces` it is only told which keys a machine must know.
#[must_use]
pub fn check(read: &Read, interfaces: Option<&Interfaces>) -> Vec<Finding> {
    let note = |text: String| Finding {
        is_problem: false,
        text,
    };
    let mut findings: Vec<Finding> = read
        .remarks
        .iter()
        .map(|remark| note(remark.to_string()))
        .collect();
    for (name, partition) in &read.config.partitions {
        findings.extend(check_keys(name, partition, interfaces));
        findings.extend(check_logins(name, partition));
        let limits = (partition.max_volume_size, partition.max_total_volume_size);
        if let (Some(each), Some(total)) = limits
            && each > total
        {
            findings.push(note(format!(
                "partitions.{name}.maxvolumesizeingb is more than maxtotalvolumesizeingb, which ends first"
            )));
        }
    }
    findings
}

fn check_keys(
    name: &SanName,
    partition: &Partition,
    interfaces: Option<&Interfaces>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (property, paths) in lists(partition) {
        let keys: BTreeSet<_> = paths
            .iter()
            .filter_map(|path| path.iface.as_ref())
            .collect();
        for key in keys {
            let place = format!("partitions.{name}.{} uses {key}", property.field());
            match interfaces {
                None => findings.push(Finding {
                    is_problem: false,
                    text: format!("{place}; STORAGE_INTERFACES of every node must say what that is"),
                }),
                Some(known) if known.find(key).is_none() => findings.push(Finding {
                    is_problem: true,
                    text: format!(
                        "{place}, which STORAGE_INTERFACES does not have; add {key}=INTERFACE there, or its paths are not used"
                    ),
                }),
                Some(_) => {}
            }
        }
    }
    findings
}

/// Where the driver does not tell the SAN what its nodes prove their logins with, somebody else must.
fn check_logins(name: &SanName, partition: &Partition) -> Option<Finding> {
    partition.credentials.as_ref()?;
    let by_hand = match partition.family {
        Family::Unity | Family::Vnx | Family::Equallogic | Family::Static => true,
        // Told by us, or by its own `--credentials`.
        Family::Ontap | Family::Linux => false,
    };
    by_hand.then(|| Finding {
        is_problem: false,
        text: format!(
            "partitions.{name}.credentials: the nodes log in with CHAP, and sanpath sets none on a SAN of the kind {}; its administrator does, for each node's initiator",
            partition.family.as_str()
        ),
    })
}

fn lists(partition: &Partition) -> [(Property, &[ListedPath]); 2] {
    [
        (Property::NcPaths, partition.ncpaths.listed()),
        (Property::ScPaths, partition.scpaths.listed()),
    ]
}

/// An address that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Which property has it.
    pub name: PropertyName,
    /// As it stands there.
    pub element: String,
    /// The interface that it was tried through, if a certain one.
    pub through: Option<Netdev>,
    /// After what time it answered, or why not.
    pub outcome: Result<Duration, String>,
    /// Somebody is there, and nothing listens at the port.
    pub is_refused: bool,
}

/// Why an address did not answer.
struct Miss {
    why: String,
    is_refused: bool,
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Self {
            why,
            is_refused: false,
        }
    }
}

/// What is to be tried.
#[derive(Clone)]
struct Aim {
    name: PropertyName,
    element: String,
    through: Result<Option<Netdev>, String>,
    place: Result<PathAddress, String>,
}

/// Tries to connect to every address of the properties `wanted`, which are lists of them, each for `patience`, bound where the list has it so. In the order of
/// the file.
#[must_use]
pub fn probe(
    host: &Host,
    config: &Config,
    interfaces: &Interfaces,
    wanted: &[Property],
    patience: Duration,
) -> Vec<Probed> {
    let partitions = config.partitions.iter();
    let aims = partitions.flat_map(|(name, partition)| aims(name, partition, interfaces));
    let aims = aims.filter(|aim| wanted.contains(&aim.name.property));
    let aims: Vec<Aim> = aims.take(MOST).collect();
    let groups = aims.chunks(AT_ONCE);
    groups
        .flat_map(|group| probe_group(host, group, patience))
        .collect()
}

fn aims(name: &SanName, partition: &Partition, interfaces: &Interfaces) -> Vec<Aim> {
    let of = |property, element, through, place| Aim {
        name: PropertyName {
            partition: name.clone(),
            property,
        },
        element,
        through,
        place,
    };
    let mut aims = Vec::new();
    for address in &partition.sanhost {
        let place = address.parse::<ListedPath>().map(|path| path.address);
        let place = place.map_err(|error| error.to_string());
        aims.push(of(Property::SanHost, address.clone(), Ok(None), place));
    }
    for (property, paths) in lists(partition) {
        for path in paths {
            let through =
                match &path.iface {
                    None => Ok(None),
                    Some(key) => interfaces.find(key).cloned().map(Some).ok_or_else(|| {
                        format!("{key} is not in STORAGE_INTERFACES of this machine")
                    }),
                };
            let place = Ok(path.address.clone());
            aims.push(of(property, path.to_string(), through, place));
        }
    }
    aims
}

/// Each on a thread of its own, that is left behind when it hangs.
fn probe_group(host: &Host, group: &[Aim], patience: Duration) -> Vec<Probed> {
    let (tell, told) = mpsc::channel();
    for (index, aim) in group.iter().enumerate() {
        let (tell, host, aim) = (tell.clone(), host.clone(), aim.clone());
        std::thread::spawn(move || tell.send((index, connect(&host, &aim, patience))));
    }
    drop(tell);
    let deadline = host.deadline_in(patience + RESOLVER);
    let mut outcomes: Vec<Option<Result<Duration, Miss>>> = group.iter().map(|_| None).collect();
    while let Some(left) = deadline.remaining(host.now()) {
        let Ok((index, outcome)) = told.recv_timeout(left) else {
            break;
        };
        outcomes[index] = Some(outcome);
    }
    let late = || Err("no answer from the resolver".to_owned().into());
    let probed = group.iter().zip(outcomes).map(|(aim, outcome)| {
        let outcome = outcome.unwrap_or_else(late);
        Probed {
            name: aim.name.clone(),
            element: aim.element.clone(),
            through: aim.through.clone().unwrap_or_default(),
            is_refused: outcome.as_ref().is_err_and(|miss| miss.is_refused),
            outcome: outcome.map_err(|miss| miss.why),
        }
    });
    probed.collect()
}

/// One of the addresses that the name has is enough.
fn connect(host: &Host, aim: &Aim, patience: Duration) -> Result<Duration, Miss> {
    let through = aim.through.as_ref().map_err(Clone::clone)?;
    let (found, port) = match aim.place.as_ref().map_err(Clone::clone)? {
        PathAddress::Portal(portal) => (vec![portal.address()], portal.port()),
        PathAddress::Name(name, port) => {
            let found = host.resolve(name);
            let unresolved = |error| format!("{name} cannot be resolved: {error}");
            (found.map_err(unresolved)?, *port)
        }
    };
    let mut miss = Miss::from("the name has no address".to_owned());
    for address in found {
        let begun = host.now();
        match host.probe_tcp(SocketAddr::new(address, port), through.as_ref(), patience) {
            Ok(()) => return Ok(host.now().since(begun)),
            Err(error) => {
                miss = Miss {
                    is_refused: error.kind() == std::io::ErrorKind::ConnectionRefused,
                    why: error.to_string(),
                }
            }
        }
    }
    Err(miss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;
    use crate::host::fake::{FakeWorld, PortalState};

    const ALL: &str = include_str!("../../tests/binary/fixtures/config-v1-all.yaml");

    #[test]
    fn keys_must_be_known_where_the_paths_are_used() {
        let read = read(ALL).unwrap();
        assert_eq!(
            check(&read, None).iter().filter(|it| it.is_problem).count(),
            0
        );
        assert_eq!(check(&read, None).len(), 2);
        let known: Interfaces = "iface0=br0,iface1=eth1".parse().unwrap();
        assert_eq!(check(&read, Some(&known)), []);
        let findings = check(&read, Some(&"iface1=eth1".parse().unwrap()));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].is_problem);
        assert!(
            findings[0].text.starts_with(
                "partitions.PARTI00.ncpaths uses iface0, which STORAGE_INTERFACES does not have"
            ),
            "{findings:?}"
        );
    }

    #[test]
    fn chap_that_nobody_sets_on_the_san_is_told() {
        let told = |family: Family, credentials: Option<&str>| {
            let partition = Partition {
                credentials: credentials.map(std::path::PathBuf::from),
                ..Partition::new(family, Vec::new())
            };
            check_logins(&"a".parse().unwrap(), &partition)
        };
        for family in [Family::Unity, Family::Vnx, Family::Equallogic] {
            let finding = told(family, Some("/etc/chap")).unwrap();
            let begins = finding.text.starts_with("partitions.a.credentials: ");
            assert!(begins && !finding.is_problem, "{finding:?}");
            assert!(finding.text.contains(family.as_str()), "{finding:?}");
            assert_eq!(told(family, None), None);
        }
        for family in [Family::Ontap, Family::Linux] {
            assert_eq!(told(family, Some("/etc/chap")), None);
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_told() {
        let read = read(&ALL.replacen("gb: 500", "gb: 50", 1)).unwrap();
        let known = "iface0=br0,iface1=eth1".parse().unwrap();
        let findings = check(&read, Some(&known));
        assert_eq!(findings.len(), 1);
        assert!(!findings[0].is_problem && findings[0].text.contains("ends first"));
    }

    #[test]
    fn every_address_is_tried_and_told_with_its_property() {
        let fake = FakeWorld::new();
        let iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let portals: Vec<crate::fabric::Portal> = ["10.1.0.1", "10.2.0.1"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        fake.add_target(&iqn, &portals);
        fake.set_portal(portals[1], PortalState::Refusing);
        let text = "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: 10.1.0.1:3260,nowhere\n    ncpaths: 10.1.0.1,10.2.0.1,iface9:10.1.0.1\n";
        let config = read(text).unwrap().config;
        let probed = probe(
            &fake.host(),
            &config,
            &Interfaces::default(),
            &ADDRESSES,
            Duration::from_secs(1),
        );
        let told: Vec<String> = probed
            .iter()
            .map(|it| format!("{} {} {}", it.name, it.element, it.outcome.is_ok()))
            .collect();
        assert_eq!(
            told,
            [
                "a.storage.sanhost 10.1.0.1:3260 true",
                "a.storage.sanhost nowhere:7420 false",
                "a.storage.ncpaths 10.1.0.1 true",
                "a.storage.ncpaths 10.2.0.1 false",
                "a.storage.ncpaths iface9:10.1.0.1 false",
            ]
        );
        let why = |index: usize| probed[index].outcome.clone().unwrap_err();
        assert!(why(1).contains("nowhere cannot be resolved"));
        assert!(why(4).contains("iface9 is not in STORAGE_INTERFACES"));
    }
}
