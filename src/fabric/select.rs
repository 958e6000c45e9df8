//! The one choice of paths: stage, heal and archive all ask here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    Export, HostName, IfaceKey, Interfaces, Iqn, ListedPath, Lun, Netdev, Nexus, Offer,
    PathAddress, PathList, Portal,
};

/// One path that a node should have to a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WantedPath {
    /// Where to log in.
    pub portal: Portal,
    /// The target there.
    pub iqn: Iqn,
    /// The volume's number there.
    pub lun: Lun,
    /// The interface of this node that its session is bound to; without one the routes decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<Netdev>,
}

impl WantedPath {
    /// The session that carries it, of the machine's own initiator.
    #[must_use]
    pub fn nexus(&self) -> Nexus {
        Nexus {
            portal: self.portal,
            iqn: self.iqn.clone(),
            iface: self.iface.clone(),
            initiator: None,
        }
    }
}

/// What a path list refers to and only the machine can tell. Read anew before each choice.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LocalView {
    /// `STORAGE_INTERFACES`.
    pub interfaces: Interfaces,
    /// Why there are none, should what says them be broken.
    pub unreadable: Option<String>,
    /// Interfaces of those that this machine does not have.
    pub absent: BTreeSet<Netdev>,
    /// What the names of the list mean; one that is not here, or means nothing, could not be resolved.
    pub names: BTreeMap<HostName, Vec<IpAddr>>,
}

/// What a path list makes of an export on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// The paths to have, in the order of the list.
    pub wanted: Vec<WantedPath>,
    /// What is listed and cannot be had as things are.
    pub left_out: Vec<LeftOut>,
}

/// A listed path that cannot be had, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// As the list has it.
    pub path: ListedPath,
    /// Why.
    pub why: Why,
}

/// Why a listed path cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The export does not hold it; nothing is guessed for it.
    #[error(
        "the volume is not offered there; it needs a re-attach (unpublish and publish) once the SAN serves that portal"
    )]
    NotOffered,
    /// The machine does not say what the key means.
    #[error("{0} is not in STORAGE_INTERFACES of this node; add {0}=INTERFACE there")]
    UnknownIface(IfaceKey),
    /// What should say it is broken.
    #[error("STORAGE_INTERFACES of this node cannot be used: {0}")]
    Unreadable(String),
    /// The machine does not have what the key means.
    #[error("{key} is {netdev} in STORAGE_INTERFACES, and this node has no such interface")]
    NoNetdev {
        /// The key.
        key: IfaceKey,
        /// What it means.
        netdev: Netdev,
    },
    /// The name leads nowhere.
    #[error("this node cannot resolve {0}")]
    Unresolved(HostName),
}

impl Why {
    /// Whether the path is one that the volume should have: what the SAN never offered is not missed.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        !matches!(self, Self::NotOffered)
    }
}

impl Selection {
    /// How many paths the volume should have here: those that can be had, and those that only this machine is in the way of.
    #[must_use]
    pub fn expected(&self) -> usize {
        let missed = self.left_out.iter().filter(|it| it.why.is_expected());
        self.wanted.len() + missed.count()
    }
}

/// Chooses the paths to `export` that `list` asks for, on the machine that `local` tells of.
#[must_use]
pub fn select(export: &Export, list: &PathList, local: &LocalView) -> Selection {
    let PathList::Listed(paths) = list else {
        let wanted = export.offers.iter().map(|offer| want(offer, None));
        return Selection {
            wanted: wanted.collect(),
            ..Selection::default()
        };
    };
    let mut selection = Selection::default();
    for path in paths {
        match choose(export, path, local) {
            Ok(chosen) => {
                for path in chosen {
                    if !selection.wanted.contains(&path) {
                        selection.wanted.push(path);
                    }
                }
            }
            Err(why) => selection.left_out.push(LeftOut {
                path: path.clone(),
                why,
            }),
        }
    }
    selection
}

/// The element of `list` that `path` is there for, if it has one.
#[must_use]
pub fn element_of<'l>(
    list: &'l PathList,
    local: &LocalView,
    path: &WantedPath,
) -> Option<&'l ListedPath> {
    let PathList::Listed(listed) = list else {
        return None;
    };
    listed.iter().find(|element| {
        let iface = element.iface.as_ref().map(|key| netdev(key, local).ok());
        let leads_there = portals(&element.address, local);
        leads_there.is_ok_and(|portals| portals.contains(&path.portal))
            && iface == path.iface.as_ref().map(Some)
    })
}

/// What one element makes of the export: every offer at its address. The SAN's word comes first, for what it does not offer no interface would help.
fn choose(export: &Export, path: &ListedPath, local: &LocalView) -> Result<Vec<WantedPath>, Why> {
    let portals = portals(&path.address, local)?;
    let offered = |offer: &&Offer| portals.contains(&offer.portal);
    let offers: Vec<&Offer> = export.offers.iter().filter(offered).collect();
    if offers.is_empty() {
        return Err(Why::NotOffered);
    }
    let iface = path
        .iface
        .as_ref()
        .map(|key| netdev(key, local))
        .transpose()?;
    let wanted = offers.into_iter().map(|offer| want(offer, iface.cloned()));
    Ok(wanted.collect())
}

fn portals(address: &PathAddress, local: &LocalView) -> Result<Vec<Portal>, Why> {
    let (name, port) = match address {
        PathAddress::Portal(portal) => return Ok(vec![*portal]),
        PathAddress::Name(name, port) => (name, *port),
    };
    let found = local.names.get(name).filter(|found| !found.is_empty());
    let found = found.ok_or_else(|| Why::Unresolved(name.clone()))?;
    Ok(found.iter().map(|at| Portal::new(*at, port)).collect())
}

fn netdev<'l>(key: &IfaceKey, local: &'l LocalView) -> Result<&'l Netdev, Why> {
    if let Some(why) = &local.unreadable {
        return Err(Why::Unreadable(why.clone()));
    }
    let netdev = local.interfaces.find(key);
    let netdev = netdev.ok_or_else(|| Why::UnknownIface(key.clone()))?;
    if local.absent.contains(netdev) {
        return Err(Why::NoNetdev {
            key: key.clone(),
            netdev: netdev.clone(),
        });
    }
    Ok(netdev)
}

fn want(offer: &Offer, iface: Option<Netdev>) -> WantedPath {
    WantedPath {
        portal: offer.portal,
        iqn: offer.iqn.clone(),
        lun: offer.lun,
        iface,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Export {
        let offer = |portal: &str| Offer {
            portal: portal.parse().unwrap(),
            iqn: "iqn.2026-11.dev.sanpath:t".parse().unwrap(),
            lun: Lun(3),
        };
        Export {
            wwid: "360014050123456789abcdef012345678".parse().unwrap(),
            size: 1 << 30,
            offers: vec![offer("10.101.1.1"), offer("10.102.1.1")],
            blank: true,
            read_only: false,
            own_target: false,
        }
    }

    fn local() -> LocalView {
        LocalView {
            interfaces: "iface0=br0,iface1=eth1,iface2=eth9".parse().unwrap(),
            unreadable: None,
            absent: BTreeSet::from(["eth9".parse().unwrap()]),
            names: BTreeMap::from([(
                "san".parse().unwrap(),
                vec!["10.102.1.1".parse().unwrap(), "10.103.1.1".parse().unwrap()],
            )]),
        }
    }

    fn chosen(list: &str) -> Selection {
        select(&export(), &list.parse().unwrap(), &local())
    }

    fn netdevs(selection: &Selection) -> Vec<Option<&str>> {
        let wanted = selection.wanted.iter();
        wanted
            .map(|path| path.iface.as_ref().map(Netdev::as_str))
            .collect()
    }

    #[test]
    fn without_a_list_every_offer_is_wanted() {
        let selection = select(&export(), &PathList::SanPortals, &LocalView::default());
        assert_eq!(selection.wanted.len(), 2);
        assert_eq!(netdevs(&selection), [None, None]);
        assert!(selection.left_out.is_empty());
    }

    #[test]
    fn a_list_orders_and_narrows_and_never_guesses() {
        let selection = chosen("10.102.1.1,10.103.1.1");
        assert_eq!(selection.wanted.len(), 1);
        assert_eq!(selection.wanted[0].portal, "10.102.1.1".parse().unwrap());
        assert_eq!(selection.left_out[0].path.to_string(), "10.103.1.1");
        assert_eq!(selection.left_out[0].why, Why::NotOffered);
        assert_eq!(
            selection.expected(),
            1,
            "what was never offered is not missed"
        );
    }

    #[test]
    fn an_interface_binds_its_own_path_alone() {
        let selection = chosen("iface0:10.101.1.1,10.102.1.1,iface1:10.102.1.1");
        assert_eq!(netdevs(&selection), [Some("br0"), None, Some("eth1")]);
    }

    #[test]
    fn each_path_knows_its_element() {
        let text = "san,iface0:10.101.1.1,10.101.1.1";
        let list: PathList = text.parse().unwrap();
        let selection = select(&export(), &list, &local());
        let elements: Vec<String> = selection
            .wanted
            .iter()
            .map(|path| element_of(&list, &local(), path).unwrap().to_string())
            .collect();
        assert_eq!(elements.join(","), text);
        let foreign = WantedPath {
            portal: "10.7.0.1".parse().unwrap(),
            ..selection.wanted[0].clone()
        };
        assert_eq!(element_of(&list, &local(), &foreign), None);
    }

    #[test]
    fn an_interface_that_is_not_there_disables_its_path_and_no_other() {
        let selection = chosen("iface7:10.101.1.1,iface2:10.101.1.1,iface1:10.102.1.1");
        assert_eq!(netdevs(&selection), [Some("eth1")]);
        let whys: Vec<String> = selection
            .left_out
            .iter()
            .map(|it| it.why.to_string())
            .collect();
        assert!(
            whys[0].starts_with("iface7 is not in STORAGE_INTERFACES"),
            "{whys:?}"
        );
        assert!(
            whys[1].starts_with("iface2 is eth9 in STORAGE_INTERFACES"),
            "{whys:?}"
        );
        assert_eq!(selection.expected(), 3);
    }

    #[test]
    fn a_broken_line_disables_bound_paths_alone() {
        let local = LocalView {
            unreadable: Some("line 3: no quotes".to_owned()),
            ..LocalView::default()
        };
        let list = "iface0:10.101.1.1,10.102.1.1".parse().unwrap();
        let selection = select(&export(), &list, &local);
        assert_eq!(netdevs(&selection), [None]);
        let why = selection.left_out[0].why.to_string();
        assert!(why.contains("cannot be used: line 3"), "{why}");
        assert_eq!(selection.expected(), 2);
    }

    #[test]
    fn a_name_is_what_it_means_of_what_is_offered() {
        let selection = chosen("san,10.102.1.1,nobody");
        assert_eq!(selection.wanted.len(), 1, "the same path is wanted once");
        assert_eq!(selection.wanted[0].portal, "10.102.1.1".parse().unwrap());
        let why = Why::Unresolved("nobody".parse().unwrap());
        assert_eq!(selection.left_out[0].why, why);
    }
}
