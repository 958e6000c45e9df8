//! The SANs of the config file by name: each serves the partition of its name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use super::ensure::San;
use super::equallogic::EqualLogic;
use super::http::LoginFolder;
use super::linux::{LinuxSan, Way};
use super::logins::NodeLogins;
use super::ontap::Ontap;
use super::rules::Rules;
use super::sanhost::SanhostState;
use super::unity::UnitySan;
use super::vnx::Vnx;
use crate::tls::{ArrayTrust, Papers};
use crate::volume::{Family, SanName};

/// What it takes to reach an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArraySettings {
    /// What it proves itself by; without it is asked in clear, and on this machine only.
    pub trust: Option<ArrayTrust>,
    /// Who we are to it.
    pub login: LoginFolder,
    /// The program of its management, where the family has such and it is not in its usual place.
    pub program: Option<PathBuf>,
    /// The storage virtual machine, where the family has such.
    pub svm: Option<String>,
    /// Where on it volumes are made.
    pub pools: Vec<String>,
    /// Each volume has a container of its own there (ONTAP's `FlexVol`), where the family knows both ways.
    pub own_flexvols: bool,
    /// What its nodes prove their logins with, where that is ours to tell the array.
    pub nodes: Option<NodeLogins>,
}

/// What it takes to reach one SAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The kind.
    pub family: Family,
    /// Its management addresses `host:port`, in the order in which they are tried; at least one.
    pub sanhost: Vec<String>,
    /// What we show it; without them it is asked in clear, and on this machine only.
    pub papers: Option<Papers>,
    /// The one SAN that may answer; else the first that does.
    pub san_uuid: Option<Uuid>,
    /// More of it, if it is an array.
    pub array: Option<ArraySettings>,
    /// What its operator rules.
    pub rules: Rules,
}

impl Settings {
    /// Whether they lead to the same SAN, as far as can be told: in the same way, and an address of the one is an address of the other.
    fn same_san(&self, other: &Self) -> bool {
        let is_kept = |address| other.sanhost.contains(address);
        self.family == other.family
            && self.papers == other.papers
            && self.san_uuid == other.san_uuid
            && self.array == other.array
            && self.sanhost.iter().any(is_kept)
    }
}

/// All SANs. Cheap to clone; clones are the same fleet.
#[derive(Clone, Debug, Default)]
pub struct Fleet(Arc<RwLock<Berths>>);

type Berths = BTreeMap<SanName, (Settings, Arc<San>)>;

impl Fleet {
    /// The SANs of these settings.
    ///
    /// # Panics
    /// Outside a tokio runtime, when there are any.
    #[must_use]
    pub fn new(settings: BTreeMap<SanName, Settings>) -> Self {
        let fleet = Self::default();
        fleet.update(settings);
        fleet
    }

    /// One SAN of the test's making.
    #[cfg(test)]
    pub(super) fn of(name: SanName, san: San) -> Self {
        let settings = Settings {
            family: san.kind(),
            sanhost: Vec::new(),
            papers: None,
            san_uuid: None,
            array: None,
            rules: Rules::default(),
        };
        let berths = BTreeMap::from([(name, (settings, Arc::new(san)))]);
        Self(Arc::new(RwLock::new(berths)))
    }

    /// Takes over changed settings. A SAN that keeps one of its addresses keeps what it knows of those that stay; calls under way go on
    /// with the one they have.
    ///
    /// # Panics
    /// Outside a tokio runtime, when there is a new SAN.
    pub fn update(&self, settings: BTreeMap<SanName, Settings>) {
        let mut berths = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *berths);
        *berths = settings
            .into_iter()
            .filter_map(|(name, settings)| {
                let kept = before.remove(&name);
                let kept = kept.filter(|(old, _)| old.same_san(&settings));
                let san = match kept {
                    Some((old, san)) => {
                        if old.sanhost != settings.sanhost {
                            san.relist(&settings.sanhost);
                        }
                        san
                    }
                    None => Arc::new(open(&settings)?),
                };
                Some((name, (settings, san)))
            })
            .collect();
    }

    /// The SAN of this name.
    #[must_use]
    pub fn find(&self, name: &SanName) -> Option<Arc<San>> {
        self.read().get(name).map(|(_, san)| Arc::clone(san))
    }

    /// What rules in the partition of this name.
    #[must_use]
    pub fn rules(&self, name: &SanName) -> Rules {
        let berths = self.read();
        let settings = berths.get(name).map(|(settings, _)| settings);
        settings.map(|it| it.rules.clone()).unwrap_or_default()
    }

    /// How the management addresses of each SAN stand.
    #[must_use]
    pub fn sanhosts(&self) -> Vec<(SanName, SanhostState)> {
        let berths = self.read();
        let state =
            |(name, (_, san)): (&SanName, &(Settings, Arc<San>))| (name.clone(), san.sanhost());
        berths.iter().map(state).collect()
    }

    /// All names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<SanName> {
        self.read().keys().cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Berths> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Volumes that were written down by hand have no SAN here, and an array needs its settings.
fn open(settings: &Settings) -> Option<San> {
    match settings.family {
        Family::Linux => {
            let way = Way {
                papers: settings.papers.clone(),
                expected: settings.san_uuid,
            };
            let family = LinuxSan::new(&settings.sanhost, way);
            Some(San::new(settings.family, family))
        }
        Family::Ontap => {
            let array = settings.array.as_ref()?;
            let family = Ontap::new(&settings.sanhost, array, settings.san_uuid);
            Some(San::new(settings.family, family))
        }
        Family::Unity => {
            // The config file has both, or is refused.
            let array = settings.array.as_ref()?;
            let family = UnitySan::new(&settings.sanhost, array);
            Some(San::new(settings.family, family))
        }
        Family::Vnx => {
            let array = settings.array.as_ref()?;
            let family = Vnx::new(&settings.sanhost, array);
            Some(San::new(settings.family, family))
        }
        Family::Equallogic => {
            let array = settings.array.as_ref()?;
            let family = EqualLogic::new(&settings.sanhost, array);
            Some(San::new(settings.family, family))
        }
        Family::Static => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[(&str, &str)]) -> BTreeMap<SanName, Settings> {
        let one = |&(name, address): &(&str, &str)| {
            let settings = Settings {
                family: Family::Linux,
                sanhost: vec![address.to_owned()],
                papers: None,
                san_uuid: None,
                array: None,
                rules: Rules::default(),
            };
            (name.parse().unwrap(), settings)
        };
        entries.iter().map(one).collect()
    }

    #[tokio::test]
    async fn an_update_keeps_what_did_not_change() {
        let fleet = Fleet::new(settings(&[("a", "10.0.0.1:1"), ("b", "10.0.0.2:1")]));
        let find = |name: &str| fleet.find(&name.parse().unwrap());
        let (a, b) = (find("a").unwrap(), find("b").unwrap());
        fleet.update(settings(&[
            ("a", "10.0.0.1:1"),
            ("b", "10.0.0.3:1"),
            ("c", "10.0.0.4:1"),
        ]));
        assert!(Arc::ptr_eq(&a, &find("a").unwrap()));
        assert!(!Arc::ptr_eq(&b, &find("b").unwrap()));
        let mut edited = settings(&[("a", "10.0.0.9:1"), ("b", "10.0.0.3:1")]);
        let list = &mut edited.get_mut(&"a".parse().unwrap()).unwrap().sanhost;
        list.push("10.0.0.1:1".to_owned());
        fleet.update(edited);
        assert!(Arc::ptr_eq(&a, &find("a").unwrap()), "one address stays");
        let (_, state) = fleet.sanhosts().remove(0);
        let listed: Vec<&str> = state.addresses.iter().map(|it| &*it.address).collect();
        assert_eq!(listed, ["10.0.0.9:1", "10.0.0.1:1"]);
        fleet.update(settings(&[("c", "10.0.0.4:1")]));
        assert!(find("a").is_none());
        assert_eq!(fleet.names().len(), 1);
    }
}
