//! Targets: one for each initiator, with one access list entry and all portals.

use std::path::{Path, PathBuf};

use super::{Lio, LioError};
use crate::fabric::{Iqn, Portal};

/// Nobody gets in without an entry in the access list, and who gets in finds only what was mapped for him.
const ATTRIBUTES: [(&str, &str); 4] = [
    ("generate_node_acls", "0"),
    ("demo_mode_write_protect", "1"),
    ("cache_dynamic_acls", "0"),
    ("authentication", "0"),
];
/// How `info` of an access list entry begins while nobody is logged in (`lio_target_nacl_info_show`).
const NO_SESSION: &str = "No active iSCSI Session";

impl Lio {
    fn target_dir(&self, target: &Iqn) -> PathBuf {
        self.root.join("iscsi").join(target.as_str())
    }

    /// The target's one portal group.
    pub(super) fn group_tail(target: &Iqn) -> PathBuf {
        Path::new("iscsi").join(target.as_str()).join("tpgt_1")
    }

    pub(super) fn group_dir(&self, target: &Iqn) -> PathBuf {
        self.root.join(Self::group_tail(target))
    }

    pub(super) fn entry_dir(&self, target: &Iqn, initiator: &Iqn) -> PathBuf {
        self.group_dir(target).join("acls").join(initiator.as_str())
    }

    /// Makes the target for its initiator; it listens nowhere yet.
    pub(in crate::linux_san) fn ensure_target(
        &self,
        target: &Iqn,
        initiator: &Iqn,
    ) -> Result<(), LioError> {
        let group = self.group_dir(target);
        self.ensure_directory(&group)?;
        for (name, value) in ATTRIBUTES {
            self.ensure_attribute(&group.join("attrib").join(name), value)?;
        }
        self.ensure_directory(&self.entry_dir(target, initiator))
    }

    /// Lets the target listen on exactly these portals. Comes last: an initiator that logs in must find all its LUNs. A portal that cannot
    /// be had is an error, and takes none of the others away.
    pub(in crate::linux_san) fn ensure_portals(
        &self,
        target: &Iqn,
        portals: &[Portal],
    ) -> Result<(), LioError> {
        let group = self.group_dir(target);
        let np = group.join("np");
        let wanted: Vec<PathBuf> = portals.iter().map(|p| np.join(p.to_string())).collect();
        for stale in self.list(&np)? {
            if !wanted.contains(&stale) {
                self.remove_directory(&stale)?;
            }
        }
        let mut outcome = Ok(());
        for portal in &wanted {
            outcome = outcome.and(self.ensure_directory(portal));
        }
        self.ensure_attribute(&group.join("enable"), "1")?;
        outcome
    }

    /// Whether the initiator is logged in.
    pub(in crate::linux_san) fn has_session(
        &self,
        target: &Iqn,
        initiator: &Iqn,
    ) -> Result<bool, LioError> {
        let path = self.entry_dir(target, initiator).join("info");
        let info = self.host.find_attribute(&path);
        let info = info.map_err(|source| super::failed("reading", &path, source))?;
        Ok(info.is_some_and(|info| !info.starts_with(NO_SESSION)))
    }

    /// Removes a target that has no LUN; absent is fine.
    pub(in crate::linux_san) fn remove_target(&self, target: &Iqn) -> Result<(), LioError> {
        let group = self.group_dir(target);
        if self.find(&group)?.is_some() {
            for kind in ["np", "acls"] {
                for object in self.list(&group.join(kind))? {
                    self.remove_directory(&object)?;
                }
            }
            self.ensure_attribute(&group.join("enable"), "0")?;
            self.remove_directory(&group)?;
        }
        self.remove_directory(&self.target_dir(target))
    }

    /// Names of targets in the tree that begin as ours do.
    pub(in crate::linux_san) fn targets_under(
        &self,
        prefix: &str,
    ) -> Result<Vec<String>, LioError> {
        let targets = self.list(&self.root.join("iscsi"))?;
        let names = targets.iter().filter_map(|path| path.file_name()?.to_str());
        Ok(names
            .filter(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .collect())
    }
}
