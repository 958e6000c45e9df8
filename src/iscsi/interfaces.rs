//! open-iscsi's interface records: they bind a session to an interface of this machine.
//!
//! A record of ours is named after its interface, in a name space of our own; those of others are never touched. It is written as a file, for iscsiadm
//! would take two processes for it. Without it iscsiadm logs neither in nor out, so it stays for as long as anything refers to it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::database::{Database, DatabaseError, HOMES, NODES, Setting, failed, has_settings};
use crate::deadline::Deadline;
use crate::fabric::{Iqn, Netdev, Nexus};
use crate::host::{FileKind, is_gone};

/// The record of a session that nobody bound to an interface: the routes decide.
pub(super) const UNBOUND: &str = "default";
/// How the names of ours begin. open-iscsi takes any file name of at most 64 characters.
const PREFIX: &str = "sanpath-";
/// The folder of interface records in a home of open-iscsi.
const FOLDER: &str = "ifaces";

/// How the names of those begin that say another initiator's name than the machine's: no interface's name can make one of the others look so.
const NAMED: &str = "sanpath.";

/// The name of the interface record for `nexus`: `default`, `sanpath-br0`, or under a name of its own that ends with `:archive`, `sanpath.archive` and
/// `sanpath.archive-br0`.
pub(super) fn record_name(nexus: &Nexus) -> String {
    name_of(nexus.initiator.as_ref(), nexus.iface.as_ref())
}

fn name_of(initiator: Option<&Iqn>, netdev: Option<&Netdev>) -> String {
    match (initiator, netdev) {
        (None, None) => UNBOUND.to_owned(),
        (None, Some(netdev)) => format!("{PREFIX}{netdev}"),
        (Some(name), None) => format!("{NAMED}{}", name.last_part()),
        (Some(name), Some(netdev)) => format!("{NAMED}{}-{netdev}", name.last_part()),
    }
}

/// Whether a record's name is one that we give to the machine's own initiator.
pub(super) fn is_own_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Whether a record's name is one that we give to an initiator beside the machine's own.
pub(super) fn is_of_another(name: &str) -> bool {
    name.starts_with(NAMED)
}

/// What an interface record says, and each node record that was made with it: iscsid goes by the latter alone. A hardware address would take precedence
/// over the interface's name, and another initiator's name would be another initiator.
pub(super) fn binding<'s>(name: &'s str, nexus: &'s Nexus) -> [Setting<'s>; 6] {
    settings(name, nexus.initiator.as_ref(), nexus.iface.as_ref())
}

fn settings<'s>(
    name: &'s str,
    initiator: Option<&'s Iqn>,
    netdev: Option<&'s Netdev>,
) -> [Setting<'s>; 6] {
    [
        ("iface.iscsi_ifacename", Some(name)),
        ("iface.net_ifacename", netdev.map(Netdev::as_str)),
        ("iface.transport_name", Some("tcp")),
        ("iface.hwaddress", None),
        ("iface.ipaddress", None),
        ("iface.initiatorname", initiator.map(Iqn::as_str)),
    ]
}

/// Whether it is a record of ours for that initiator, by its name and by what it says.
fn is_ours(name: &str, text: &str, initiator: Option<&Iqn>) -> bool {
    let netdev: Option<Netdev> = match initiator {
        None => name.strip_prefix(PREFIX),
        Some(_) => {
            let unbound = name_of(initiator, None);
            let bound = name.strip_prefix(&unbound);
            bound.and_then(|rest| rest.strip_prefix('-'))
        }
    }
    .and_then(|netdev| netdev.parse().ok());
    name != UNBOUND
        && name == name_of(initiator, netdev.as_ref())
        && has_settings(text, &settings(name, initiator, netdev.as_ref()))
}

/// Whether sessions like `nexus` need an interface record of ours.
pub(super) fn needs_interface(nexus: &Nexus) -> bool {
    nexus.iface.is_some() || nexus.initiator.is_some()
}

impl Database<'_> {
    /// Makes sure that the interface record for `nexus` is there and says what it should, wherever open-iscsi may look for it. Only reads when it does.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub(super) fn ensure_interface(
        &self,
        nexus: &Nexus,
        deadline: Deadline,
    ) -> Result<(), DatabaseError> {
        let name = record_name(nexus);
        let settings = binding(&name, nexus);
        // Whoever removes unused ones is kept out meanwhile.
        self.alone(deadline, || {
            let mut amiss = Vec::new();
            for home in self.homes()? {
                let text = self.find_text(&home.join(FOLDER).join(&name))?;
                if !text.is_some_and(|text| has_settings(&text, &settings)) {
                    amiss.push(home);
                }
            }
            if amiss.is_empty() {
                return Ok(());
            }
            self.linked(deadline, || {
                let write = |home: &PathBuf| self.write_interface(home, &name, &settings);
                amiss.iter().try_for_each(write)
            })
        })
    }

    fn write_interface(
        &self,
        home: &Path,
        name: &str,
        settings: &[Setting<'_>],
    ) -> Result<(), DatabaseError> {
        let folder = home.join(FOLDER);
        let path = folder.join(name);
        let mut text = String::from("# BEGIN RECORD\n");
        for (setting, value) in settings {
            if let Some(value) = value {
                text.push_str(&format!("{setting} = {value}\n"));
            }
        }
        text.push_str("# END RECORD\n");
        let scratch = self.scratch_for(&path);
        self.host
            .ensure_directory(&folder)
            .and_then(|()| {
                self.host
                    .replace_file_through(&path, &scratch, text.as_bytes())
            })
            .map_err(|source| failed("write", &path, source))
    }

    /// Removes the interface records of ours for the initiator of that name that nothing refers to: no node record, nor what `referred` tells of. Not knowing
    /// is a reference to all. Returns their names.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub(super) fn remove_unused_interfaces(
        &self,
        initiator: Option<&Iqn>,
        referred: &dyn Fn() -> Option<BTreeSet<String>>,
        deadline: Deadline,
    ) -> Result<Vec<String>, DatabaseError> {
        let own = self.own_interfaces(initiator)?;
        if own.is_empty() {
            return Ok(Vec::new());
        }
        self.alone(deadline, || {
            let Some(mut used) = referred() else {
                return Ok(Vec::new());
            };
            used.extend(self.referring_records()?);
            let unused = own.into_iter().filter(|(_, name)| !used.contains(name));
            let unused: Vec<(PathBuf, String)> = unused.collect();
            for (path, _) in &unused {
                let removed = self.host.remove_file(path);
                removed.map_err(|source| failed("remove", path, source))?;
            }
            Ok(unused.into_iter().map(|(_, name)| name).collect())
        })
    }

    /// Records that carry a name of ours for that initiator and say what it says. Another than we would write is not ours, whatever its name.
    fn own_interfaces(
        &self,
        initiator: Option<&Iqn>,
    ) -> Result<Vec<(PathBuf, String)>, DatabaseError> {
        let mut own = Vec::new();
        for folder in HOMES.map(|home| self.root.join(home).join(FOLDER)) {
            for name in self.names_in(&folder)? {
                let path = folder.join(&name);
                let text = self.find_text(&path)?;
                if text.is_some_and(|text| is_ours(&name, &text, initiator)) {
                    own.push((path, name));
                }
            }
        }
        Ok(own)
    }

    /// The interface records that node records refer to by their own names: `nodes/IQN/PORTAL/INTERFACE`.
    fn referring_records(&self) -> Result<BTreeSet<String>, DatabaseError> {
        let mut names = BTreeSet::new();
        for nodes in HOMES.map(|home| self.root.join(home).join(NODES)) {
            for target in self.names_in(&nodes)? {
                let target = nodes.join(target);
                for portal in self.names_in(&target)? {
                    names.extend(self.names_in(&target.join(portal))?);
                }
            }
        }
        Ok(names)
    }

    /// Where open-iscsi may look: its homes that hold node records, or before there are any, all that are there.
    fn homes(&self) -> Result<Vec<PathBuf>, DatabaseError> {
        let is_directory = |path: &Path| {
            let stat = self.host.find_stat(path);
            let stat = stat.map_err(|source| failed("read", path, source))?;
            Ok(stat.is_some_and(|stat| stat.kind == FileKind::Directory))
        };
        let (mut holding, mut present) = (Vec::new(), Vec::new());
        for home in HOMES.map(|home| self.root.join(home)) {
            if is_directory(&home.join(NODES))? {
                holding.push(home.clone());
            }
            if is_directory(&home)? {
                present.push(home);
            }
        }
        Ok(if holding.is_empty() { present } else { holding })
    }

    fn names_in(&self, folder: &Path) -> Result<Vec<String>, DatabaseError> {
        let names = match self.host.list(folder) {
            // A record of the old form is a file where a folder is now.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Vec::new(),
            names => names.map_err(|source| failed("read", folder, source))?,
        };
        let names = names.into_iter();
        Ok(names.filter_map(|name| name.into_string().ok()).collect())
    }

    fn find_text(&self, path: &Path) -> Result<Option<String>, DatabaseError> {
        match self.host.read(path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(source) => Err(failed("read", path, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use super::*;
    use std::time::Duration;

    fn text(rig: &Rig, path: &str) -> Option<String> {
        std::fs::read_to_string(rig.root.path().join(path)).ok()
    }

    fn nexus(netdev: Option<&str>, initiator: Option<&str>) -> Nexus {
        Nexus {
            portal: "10.0.0.1".parse().unwrap(),
            iqn: "iqn.a".parse().unwrap(),
            iface: netdev.map(|it| it.parse().unwrap()),
            initiator: initiator.map(|it| it.parse().unwrap()),
        }
    }

    fn ensure_for(rig: &Rig, nexus: &Nexus) {
        let soon = rig.host.deadline_in(Duration::from_secs(5));
        rig.database().ensure_interface(nexus, soon).unwrap();
    }

    fn ensure(rig: &Rig, netdev: &str) {
        ensure_for(rig, &nexus(Some(netdev), None));
    }

    fn remove_unused(rig: &Rig, referred: Option<&[&str]>) -> Vec<String> {
        remove_unused_of(rig, None, referred)
    }

    fn remove_unused_of(
        rig: &Rig,
        initiator: Option<&str>,
        referred: Option<&[&str]>,
    ) -> Vec<String> {
        let initiator: Option<Iqn> = initiator.map(|it| it.parse().unwrap());
        let soon = rig.host.deadline_in(Duration::from_secs(5));
        let referred = || {
            let names = referred?.iter().map(|name| (*name).to_owned());
            Some(names.collect())
        };
        let database = rig.database();
        let removed = database.remove_unused_interfaces(initiator.as_ref(), &referred, soon);
        removed.unwrap()
    }

    const OURS: &str = "# BEGIN RECORD\niface.iscsi_ifacename = sanpath-eth0.100\niface.net_ifacename = eth0.100\niface.transport_name = tcp\n# END RECORD\n";

    #[test]
    fn a_record_is_written_where_node_records_are() {
        let rig = Rig::new();
        rig.make("etc/iscsi/initiatorname.iscsi", "");
        rig.make("var/lib/iscsi/nodes/iqn.a/10.0.0.1,3260,1/default", "");
        ensure(&rig, "eth0.100");
        let written = text(&rig, "var/lib/iscsi/ifaces/sanpath-eth0.100");
        assert_eq!(written.as_deref(), Some(OURS));
        assert_eq!(text(&rig, "etc/iscsi/ifaces/sanpath-eth0.100"), None);
        let steps = rig.host.counts().steps;
        ensure(&rig, "eth0.100");
        assert_eq!(rig.host.counts().steps, steps, "only looks");
    }

    #[test]
    fn before_there_are_node_records_it_is_written_to_every_home() {
        let rig = Rig::new();
        rig.make("etc/iscsi/initiatorname.iscsi", "");
        std::fs::create_dir_all(rig.root.path().join("var/lib/iscsi")).unwrap();
        ensure(&rig, "br0");
        for home in HOMES {
            let path = format!("{home}/ifaces/sanpath-br0");
            assert!(text(&rig, &path).is_some(), "{path}");
        }
    }

    #[test]
    fn what_somebody_changed_in_ours_is_put_right() {
        let rig = Rig::new();
        rig.make("etc/iscsi/initiatorname.iscsi", "");
        for spoilt in [
            OURS.replace("eth0.100\niface.t", "eth1\niface.t"),
            OURS.replace("= tcp", "= iser"),
            OURS.replace("# END", "iface.hwaddress = 00:11:22:33:44:55\n# END"),
            OURS.replace("# END", "iface.initiatorname = iqn.other\n# END"),
            String::new(),
        ] {
            rig.make("etc/iscsi/ifaces/sanpath-eth0.100", &spoilt);
            ensure(&rig, "eth0.100");
            let found = text(&rig, "etc/iscsi/ifaces/sanpath-eth0.100");
            assert_eq!(found.as_deref(), Some(OURS), "{spoilt}");
        }
        // What iscsiadm adds of its own does no harm.
        let more = OURS.replace("# END", "iface.vlan_id = 0\n# END");
        rig.make("etc/iscsi/ifaces/sanpath-eth0.100", &more);
        ensure(&rig, "eth0.100");
        let found = text(&rig, "etc/iscsi/ifaces/sanpath-eth0.100");
        assert_eq!(found.as_deref(), Some(more.as_str()));
    }

    #[test]
    fn only_ours_that_nothing_refers_to_are_removed() {
        let rig = Rig::new();
        rig.make("etc/iscsi/initiatorname.iscsi", "");
        for netdev in ["br0", "br1", "eth0.100", "eth1"] {
            ensure(&rig, netdev);
        }
        let admins = OURS.replace("sanpath-eth0.100", "admin");
        rig.make("etc/iscsi/ifaces/admin", &admins);
        let strange = OURS.replace("net_ifacename = eth0.100", "net_ifacename = eth7");
        rig.make("etc/iscsi/ifaces/sanpath-eth8", &strange);
        let record = "etc/iscsi/nodes/iqn.a/10.0.0.1,3260,1/sanpath-br0";
        rig.make(record, "");
        rig.make("etc/iscsi/nodes/iqn.b/10.0.0.1,3260", "of the old form");
        assert_eq!(remove_unused(&rig, None), [""; 0], "nobody knows");
        let used = ["sanpath-br1", "default"];
        let removed = remove_unused(&rig, Some(&used));
        assert_eq!(removed, ["sanpath-eth0.100", "sanpath-eth1"]);
        let left = std::fs::read_dir(rig.root.path().join("etc/iscsi/ifaces")).unwrap();
        let mut left: Vec<_> = left
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["admin", "sanpath-br0", "sanpath-br1", "sanpath-eth8"]
        );
    }

    const ARCHIVER: &str = "iqn.1993-08.org.debian:01:ab:archive";

    #[test]
    fn another_initiators_records_say_its_name_and_are_its_own() {
        let rig = Rig::new();
        rig.make("etc/iscsi/initiatorname.iscsi", "");
        // The interface of that name is somebody else's.
        for (netdev, initiator) in [
            (Some("archive-br0"), None),
            (Some("br0"), None),
            (None, Some(ARCHIVER)),
            (Some("br0"), Some(ARCHIVER)),
        ] {
            ensure_for(&rig, &nexus(netdev, initiator));
        }
        let unbound = text(&rig, "etc/iscsi/ifaces/sanpath.archive");
        assert_eq!(
            unbound.as_deref(),
            Some(
                "# BEGIN RECORD\niface.iscsi_ifacename = sanpath.archive\niface.transport_name = tcp\niface.initiatorname = iqn.1993-08.org.debian:01:ab:archive\n# END RECORD\n"
            )
        );
        let bound = text(&rig, "etc/iscsi/ifaces/sanpath.archive-br0").unwrap();
        assert!(bound.contains("iface.net_ifacename = br0"), "{bound}");
        assert!(bound.contains(ARCHIVER), "{bound}");
        let of_node = remove_unused(&rig, Some(&[]));
        assert_eq!(of_node, ["sanpath-archive-br0", "sanpath-br0"]);
        let other = remove_unused_of(&rig, Some("iqn.b:archive"), Some(&[]));
        assert_eq!(other, [""; 0], "they say another name");
        let used = ["sanpath.archive"];
        let removed = remove_unused_of(&rig, Some(ARCHIVER), Some(&used));
        assert_eq!(removed, ["sanpath.archive-br0"]);
    }
}
