//! Targets: one for each initiator, with one access list entry and all portals.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Lio, LioError};
use crate::fabric::{Chap, Iqn, Portal, Secret};
use crate::linux_san::chap::NONE;

/// Nobody gets in without an entry in the access list, and who gets in finds only what was mapped for him.
const ATTRIBUTES: [(&str, &str); 3] = [
    ("generate_node_acls", "0"),
    ("demo_mode_write_protect", "1"),
    ("cache_dynamic_acls", "0"),
];
/// How `info` of an access list entry begins while nobody is logged in (`lio_target_nacl_info_show`).
const NO_SESSION: &str = "No active iSCSI Session";

/// How the directories of portal groups are named, before the number.
const GROUP: &str = "tpgt_";

impl Lio {
    fn target_dir(&self, target: &Iqn) -> PathBuf {
        self.root.join("iscsi").join(target.as_str())
    }

    /// One of the target's portal groups.
    pub(super) fn group_tail(target: &Iqn, tag: u16) -> PathBuf {
        Path::new("iscsi")
            .join(target.as_str())
            .join(format!("{GROUP}{tag}"))
    }

    fn group_dir(&self, target: &Iqn, tag: u16) -> PathBuf {
        self.root.join(Self::group_tail(target, tag))
    }

    /// The numbers of the groups that the target has, be they wanted or not.
    pub(super) fn tags_of(&self, target: &Iqn) -> Result<Vec<u16>, LioError> {
        let groups = self.list(&self.target_dir(target))?;
        let names = groups.iter().filter_map(|path| path.file_name()?.to_str());
        let tags = names.filter_map(|name| name.strip_prefix(GROUP)?.parse().ok());
        Ok(tags.collect())
    }

    pub(super) fn entry_dir(&self, target: &Iqn, tag: u16, initiator: &Iqn) -> PathBuf {
        let group = self.group_dir(target, tag);
        group.join("acls").join(initiator.as_str())
    }

    /// Makes the target for its initiator, who has to prove what `chap` says; it listens nowhere yet.
    pub(in crate::linux_san) fn ensure_target(
        &self,
        target: &Iqn,
        initiator: &Iqn,
        chap: Option<&Chap>,
    ) -> Result<(), LioError> {
        for tag in &self.tags {
            let group = self.group_dir(target, *tag);
            self.ensure_directory(&group)?;
            for (name, value) in ATTRIBUTES {
                self.ensure_attribute(&group.join("attrib").join(name), value)?;
            }
            self.ensure_directory(&self.entry_dir(target, *tag, initiator))?;
        }
        self.ensure_chap(target, initiator, chap).map(drop)
    }

    /// Whether the initiator is in the target's access list.
    pub(in crate::linux_san) fn has_entry(
        &self,
        target: &Iqn,
        initiator: &Iqn,
    ) -> Result<bool, LioError> {
        // Made in all groups, or the target is not ready yet.
        let has = |tag: &u16| {
            Ok(self
                .find(&self.entry_dir(target, *tag, initiator))?
                .is_some())
        };
        self.tags
            .iter()
            .try_fold(true, |all, tag| Ok(all && has(tag)?))
    }

    /// Has logins proven as `chap` says, both ways if it has a side for the target; without it nothing is asked for. Whether something had to be changed.
    pub(in crate::linux_san) fn ensure_chap(
        &self,
        target: &Iqn,
        initiator: &Iqn,
        chap: Option<&Chap>,
    ) -> Result<bool, LioError> {
        let mut changed = false;
        for tag in &self.tags {
            changed |= self.ensure_chap_at(target, *tag, initiator, chap)?;
        }
        Ok(changed)
    }

    fn ensure_chap_at(
        &self,
        target: &Iqn,
        tag: u16,
        initiator: &Iqn,
        chap: Option<&Chap>,
    ) -> Result<bool, LioError> {
        let auth = self.entry_dir(target, tag, initiator).join("auth");
        let mutual = chap.and_then(|chap| chap.target.as_ref());
        let sides = [
            ("userid", "password", chap.map(|chap| &chap.initiator)),
            ("userid_mutual", "password_mutual", mutual),
        ];
        let mut changed = false;
        for (name, secret, user) in sides {
            changed |= self.ensure_secret(&auth.join(name), user.map(|user| user.name.as_str()))?;
            let value = user.map(|user| user.secret.expose());
            changed |= self.ensure_secret(&auth.join(secret), value)?;
        }
        // Last: nobody is asked for what is not there yet.
        let asked = if chap.is_some() { "1" } else { "0" };
        let path = self.group_dir(target, tag).join("attrib/authentication");
        self.ensure_attribute(&path, asked)?;
        Ok(changed)
    }

    /// Whether it had to be written. The kernel keeps the bytes as they are, a line end too.
    fn ensure_secret(&self, path: &Path, value: Option<&str>) -> Result<bool, LioError> {
        let found = Secret::from(self.attribute(path)?);
        let is_none = found.expose().is_empty() || found.expose().starts_with(NONE);
        if value.map_or(is_none, |value| found.expose() == value) {
            return Ok(false);
        }
        let written = value.unwrap_or(NONE).as_bytes();
        let written = self.host.write_attribute(path, written);
        written.map(|()| true).map_err(|source| LioError::Secret {
            path: path.to_owned(),
            source,
        })
    }

    /// Lets each group of the target listen on exactly its portals. Comes last: an initiator that logs in must find all its LUNs. A portal that cannot
    /// be had is an error, and takes none of the others away.
    pub(in crate::linux_san) fn ensure_portals(
        &self,
        target: &Iqn,
        groups: &[&[Portal]],
    ) -> Result<(), LioError> {
        let np = |tag: u16| self.group_dir(target, tag).join("np");
        let wanted: Vec<(u16, PathBuf)> = (1..)
            .zip(groups)
            .flat_map(|(tag, portals)| portals.iter().map(move |at| (tag, at.to_string())))
            .map(|(tag, at)| (tag, np(tag).join(at)))
            .collect();
        // From everywhere first: one may have gone from one group to the other.
        for tag in self.tags_of(target)? {
            for stale in self.list(&np(tag))? {
                if !wanted.iter().any(|(_, portal)| *portal == stale) {
                    self.remove_directory(&stale)?;
                }
            }
        }
        let mut outcome = Ok(());
        for (_, portal) in &wanted {
            outcome = outcome.and(self.ensure_directory(portal));
        }
        for tag in &self.tags {
            self.ensure_attribute(&self.group_dir(target, *tag).join("enable"), "1")?;
        }
        outcome
    }

    /// On which of these portals, group by group, the target does not listen.
    pub(in crate::linux_san) fn missing_portals(
        &self,
        target: &Iqn,
        groups: &[&[Portal]],
    ) -> Result<Vec<Portal>, LioError> {
        let mut missing = Vec::new();
        for (tag, portals) in (1..).zip(groups) {
            let group = self.group_dir(target, tag);
            let np = group.join("np");
            let listening = if self.shows(&group.join("enable"), "1")? {
                self.list(&np)?
            } else {
                Vec::new()
            };
            let is_missing = |portal: &&Portal| !listening.contains(&np.join(portal.to_string()));
            missing.extend(portals.iter().filter(is_missing).copied());
        }
        Ok(missing)
    }

    /// Whether the initiator is logged in.
    pub(in crate::linux_san) fn has_session(
        &self,
        target: &Iqn,
        initiator: &Iqn,
    ) -> Result<bool, LioError> {
        for tag in self.tags_of(target)? {
            let path = self.entry_dir(target, tag, initiator).join("info");
            let info = self.host.find_attribute(&path);
            let info = info.map_err(|source| super::failed("reading", &path, source))?;
            if info.is_some_and(|info| !info.starts_with(NO_SESSION)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many sessions there are at the target, whoever's; `None` when the kernel does not count them (`iscsi_stat_instance_sessions_show`).
    pub(in crate::linux_san) fn sessions_at(&self, target: &Iqn) -> Result<Option<u64>, LioError> {
        let dir = self.target_dir(target);
        if self.find(&dir)?.is_none() {
            return Ok(Some(0));
        }
        let path = dir.join("fabric_statistics/iscsi_instance/sessions");
        let found = self.host.find_attribute(&path);
        let found = found.map_err(|source| super::failed("reading", &path, source))?;
        Ok(found.and_then(|text| text.trim().parse().ok()))
    }

    /// The initiators in the target's access list; none when there is no target.
    pub(in crate::linux_san) fn entries(&self, target: &Iqn) -> Result<BTreeSet<Iqn>, LioError> {
        let mut found = BTreeSet::new();
        for tag in self.tags_of(target)? {
            let entries = self.list(&self.group_dir(target, tag).join("acls"))?;
            let names = entries.iter().filter_map(|path| path.file_name()?.to_str());
            // All of them are ours, and we write no others than such.
            found.extend(names.filter_map(|name| name.parse().ok()));
        }
        Ok(found)
    }

    /// Takes an initiator that sees no LUN from the access list.
    pub(in crate::linux_san) fn remove_entry(
        &self,
        target: &Iqn,
        initiator: &Iqn,
    ) -> Result<(), LioError> {
        for tag in self.tags_of(target)? {
            self.remove_directory(&self.entry_dir(target, tag, initiator))?;
        }
        Ok(())
    }

    /// Removes a target that has no LUN; absent is fine.
    pub(in crate::linux_san) fn remove_target(&self, target: &Iqn) -> Result<(), LioError> {
        for tag in self.tags_of(target)? {
            let group = self.group_dir(target, tag);
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
