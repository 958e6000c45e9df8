//! Storage groups: one for each node. A host is in exactly one, so a group that already has the node's initiator is used, whoever made it, and nobody is ever taken
//! out of one.

use std::collections::BTreeMap;

use super::ask::Question;
use super::notes::Notes;
use super::text::{self, Group, Path, Port};
use super::{Vnx, names};
use crate::fabric::Iqn;
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;
use crate::volume::NodeId;

/// Without the array's engineering switch the groups of initiators that are in none are not shown.
const LIST: [&str; 5] = [
    "storagegroup",
    "-messner",
    "-list",
    "-host",
    "-iscsiAttributes",
];

/// A storage group with the node that it is for.
#[derive(Clone, Debug)]
pub(super) struct Hosted {
    pub(super) group: Group,
    /// By our word; else each initiator has the host's name.
    node: Option<String>,
}

impl Hosted {
    /// Its iSCSI initiators, each once.
    pub(super) fn initiators(&self) -> Vec<Iqn> {
        let mut found = Vec::new();
        for path in &self.group.paths {
            if let Ok(iqn) = path.initiator.parse::<Iqn>()
                && !found.contains(&iqn)
            {
                found.push(iqn);
            }
        }
        found
    }

    /// The paths of that initiator.
    pub(super) fn paths_of<'h>(&'h self, initiator: &'h Iqn) -> impl Iterator<Item = &'h Path> {
        let is_its = |path: &&Path| path.initiator.parse::<Iqn>().as_ref() == Ok(initiator);
        self.group.paths.iter().filter(is_its)
    }

    /// The node whose initiator it is: by our word, or by the name under which somebody else registered it.
    pub(super) fn node_name(&self, initiator: &Iqn) -> String {
        let host = self.paths_of(initiator).map(|path| path.host.clone());
        let host = host.into_iter().find(|host| !host.is_empty());
        let known = self.node.clone().or(host);
        known.unwrap_or_else(|| self.group.name.clone())
    }

    /// The number under which its hosts see the LUN.
    pub(super) fn hlu(&self, lun: u32) -> Option<u16> {
        let mut luns = self.group.luns.iter();
        luns.find(|(_, alu)| **alu == lun).map(|(hlu, _)| *hlu)
    }
}

/// All storage groups but the array's own, and who is in none.
#[derive(Clone, Debug)]
pub(super) struct Hosts {
    hosted: Vec<Hosted>,
    /// The host names of initiators that are in the array's own groups.
    alone: BTreeMap<Iqn, String>,
}

impl Hosts {
    /// Those that see the LUN.
    pub(super) fn with(&self, lun: u32) -> impl Iterator<Item = &Hosted> {
        self.hosted
            .iter()
            .filter(move |hosted| hosted.hlu(lun).is_some())
    }

    /// The one with the initiator.
    pub(super) fn of(&self, initiator: &Iqn) -> Option<&Hosted> {
        let mut all = self.hosted.iter();
        all.find(|hosted| hosted.initiators().contains(initiator))
    }

    fn named(&self, name: &str) -> Option<&Hosted> {
        self.hosted.iter().find(|hosted| hosted.group.name == name)
    }
}

/// The ports at which the node is not registered as of that group.
fn lacking<'p>(node: &NodeId, group: &str, ports: &'p [Port], hosts: &Hosts) -> Vec<&'p Port> {
    let known = hosts.named(group);
    let is_there = |port: &Port| {
        let paths = known.into_iter();
        let mut paths = paths.flat_map(|it| it.paths_of(&node.initiator));
        paths.any(|path| path.is_at(port))
    };
    ports.iter().filter(|port| !is_there(port)).collect()
}

impl Vnx {
    /// All storage groups.
    pub(super) async fn hosts(&self, until: Until) -> Result<Hosts, SanError> {
        let question = Question::look("list storage groups", &LIST);
        let groups = self.look(&question, until, text::groups).await?;
        let mut hosts = Hosts {
            hosted: Vec::new(),
            alone: BTreeMap::new(),
        };
        for group in groups {
            // The array's own say so, and their names begin so.
            if group.is_special || group.name.starts_with('~') {
                let iqns = group.paths.iter().filter_map(|path| {
                    let iqn = path.initiator.parse().ok()?;
                    Some((iqn, path.host.clone()))
                });
                hosts.alone.extend(iqns);
                continue;
            }
            let node = if names::is_long_node(&group.name) {
                let noted = self.noted(&group.name, until).await?;
                noted.and_then(|notes| notes.node)
            } else {
                names::node_of(&group.name).map(str::to_owned)
            };
            hosts.hosted.push(Hosted { group, node });
        }
        Ok(hosts)
    }

    /// Sees to it that the node is in a storage group with no other: one is made if it is in none. All storage groups as they are then.
    pub(super) async fn ensure_host(
        &self,
        node: &NodeId,
        ports: &[Port],
        hosts: Hosts,
        until: Until,
    ) -> Result<Hosts, SanError> {
        let (name, is_whole) = names::node(&node.name, node.initiator.as_str());
        if let Some(hosted) = hosts.of(&node.initiator) {
            self.refuse_other_node(hosted, node)?;
            if hosted.group.name != name || lacking(node, &name, ports, &hosts).is_empty() {
                return Ok(hosts);
            }
        }
        if !is_whole {
            let notes = Notes {
                name: name.clone(),
                node: Some(node.name.clone()),
                ..Notes::default()
            };
            self.note(&name, &notes, until).await?;
        }
        if hosts.named(&name).is_none() {
            self.create_group(&name, until).await?;
        }
        self.register(node, (&name, ports), &hosts, until).await?;
        let hosts = self.hosts(until).await?;
        match hosts.of(&node.initiator) {
            Some(hosted) => self.refuse_other_node(hosted, node).map(|()| hosts.clone()),
            None => Err(self.refuse(
                "register initiator",
                Fault::Busy,
                format!("{} is not in {name} yet", node.initiator),
            )),
        }
    }

    /// What is given to the group is seen by all of it.
    fn refuse_other_node(&self, hosted: &Hosted, node: &NodeId) -> Result<(), SanError> {
        let group = &hosted.group.name;
        let known = hosted.node_name(&node.initiator);
        let others = |it: &&Path| it.initiator.parse::<Iqn>().as_ref() != Ok(&node.initiator);
        let other = hosted.group.paths.iter().find(others);
        let reason = if known != node.name {
            format!(
                "its storage group {group} has the initiator {} of node {} as the host {known:?}; register that initiator as the host {:?}",
                node.initiator, node.name, node.name
            )
        } else if let Some(other) = other.filter(|it| it.host != known) {
            format!(
                "its storage group {group} of node {} has the initiator {} as well; give each node a storage group of its own",
                node.name, other.initiator
            )
        } else {
            return Ok(());
        };
        Err(self.refuse("find storage group", Fault::Precondition, reason))
    }

    async fn create_group(&self, name: &str, until: Until) -> Result<(), SanError> {
        let words = ["storagegroup", "-create", "-gname", name];
        let made = self.change(Question::change("create storage group", &words), until);
        match made.await {
            Err(error) if error.fault() == Fault::Conflict => Ok(()),
            made => made,
        }
    }

    /// Registers the node's initiator at each port, as a host that is called as the group is: a node's own name may be another's in another cluster.
    async fn register(
        &self,
        node: &NodeId,
        (group, ports): (&str, &[Port]),
        hosts: &Hosts,
        until: Until,
    ) -> Result<(), SanError> {
        for port in lacking(node, group, ports, hosts) {
            let sp = port.sp.to_ascii_lowercase().to_string();
            let (number, vport) = (port.port.to_string(), port.vport.to_string());
            let words = [
                "storagegroup",
                "-setpath",
                "-gname",
                group,
                "-hbauid",
                node.initiator.as_str(),
                "-sp",
                &sp,
                "-spport",
                &number,
                "-spvport",
                &vport,
                "-host",
                group,
                "-o",
            ];
            let set = self.change(Question::change("register initiator", &words), until);
            match set.await {
                // It logged in before anybody named it, or another controller was first.
                Err(error) if error.fault() == Fault::Conflict => {}
                set => set?,
            }
        }
        match hosts.alone.get(&node.initiator) {
            Some(host) => self.connect(host, group, until).await,
            None => Ok(()),
        }
    }

    /// Puts the host of an initiator that is in no group into ours.
    async fn connect(&self, host: &str, group: &str, until: Until) -> Result<(), SanError> {
        let words = [
            "storagegroup",
            "-connecthost",
            "-host",
            host,
            "-gname",
            group,
            "-o",
        ];
        let connected = self.change(Question::change("connect host", &words), until);
        match connected.await {
            // It has been registered as ours just now, and is there under that name.
            Err(error) if error.fault() == Fault::NotFound => Ok(()),
            connected => connected,
        }
    }

    /// Where the array listens.
    pub(super) async fn ports(&self, until: Until) -> Result<Vec<Port>, SanError> {
        let words = ["connection", "-getport", "-all"];
        let question = Question::look("list portals", &words);
        self.look(&question, until, text::ports).await
    }
}
