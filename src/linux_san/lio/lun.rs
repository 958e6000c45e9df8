//! LUNs: a backstore in a target under a number, and the same number in the initiator's access list.
//!
//! Taking one away goes the other way round and in this order: once the mapped LUN is gone nothing new comes in, and unlinking the
//! target's LUN returns when everything in flight has landed (seen on a real kernel: the first alone lets a late write through).

use std::path::{Path, PathBuf};

use super::{Lio, LioError, access};
use crate::fabric::{Iqn, Lun};

/// What a link in a LUN's directory is called.
const LINK: &str = "volume";
/// What the kernel puts before the group's name when it is read back (`core_alua_show_tg_pt_gp_info`).
const ALIAS: &str = "TG Port Alias: ";

/// A LUN that one initiator sees in its target.
pub(in crate::linux_san) struct MappedLun<'a> {
    /// The target.
    pub(in crate::linux_san) target: &'a Iqn,
    /// Who sees it.
    pub(in crate::linux_san) initiator: &'a Iqn,
    /// Under which number the initiator sees it.
    pub(in crate::linux_san) lun: Lun,
    /// Its number in the target.
    pub(in crate::linux_san) slot: u16,
}

impl Lio {
    fn lun_dir(&self, at: &MappedLun<'_>, tag: u16) -> PathBuf {
        self.root.join(Self::lun_tail(at, tag))
    }

    fn lun_tail(at: &MappedLun<'_>, tag: u16) -> PathBuf {
        let group = Self::group_tail(at.target, tag);
        group.join("lun").join(format!("lun_{}", at.slot))
    }

    fn mapped_dir(&self, at: &MappedLun<'_>, tag: u16) -> PathBuf {
        self.entry_dir(at.target, tag, at.initiator)
            .join(format!("lun_{}", at.lun))
    }

    /// Shows the backstore to the initiator, in every group.
    pub(in crate::linux_san) fn ensure_lun(
        &self,
        at: &MappedLun<'_>,
        backstore: &str,
        read_only: bool,
    ) -> Result<(), LioError> {
        for tag in &self.tags {
            let dir = self.lun_dir(at, *tag);
            self.ensure_directory(&dir)?;
            self.ensure_link(&self.backstore_tail(backstore), &dir.join(LINK))?;
            if self.tags.len() > 1 {
                self.ensure_member(&dir, *tag)?;
            }
            let mapped = self.mapped_dir(at, *tag);
            self.ensure_directory(&mapped)?;
            self.ensure_link(&Self::lun_tail(at, *tag), &mapped.join(LINK))?;
            let protect = if read_only { "1" } else { "0" };
            self.ensure_attribute(&mapped.join("write_protect"), protect)?;
        }
        Ok(())
    }

    /// Lets the LUN tell the state of this group.
    fn ensure_member(&self, lun: &Path, tag: u16) -> Result<(), LioError> {
        let path = lun.join("alua_tg_pt_gp");
        let group = access::group_name(tag);
        let shown = self.attribute(&path)?;
        if shown.lines().next() == Some(&format!("{ALIAS}{group}")) {
            return Ok(());
        }
        self.write(&path, &group)
    }

    /// Whether the initiator is shown this backstore, in every group.
    pub(in crate::linux_san) fn serves_lun(
        &self,
        at: &MappedLun<'_>,
        backstore: &str,
    ) -> Result<bool, LioError> {
        let disk = self.backstore_tail(backstore);
        for tag in &self.tags {
            let (lun, mapped) = (self.lun_dir(at, *tag), self.mapped_dir(at, *tag));
            let shown = self.leads_to(&lun.join(LINK), &disk)?
                && self.leads_to(&mapped.join(LINK), &Self::lun_tail(at, *tag))?;
            if !shown {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has the kernel refuse writes of this initiator, or take them, from the next command on; nothing where the LUN is gone.
    pub(in crate::linux_san) fn protect_lun(
        &self,
        at: &MappedLun<'_>,
        protect: bool,
    ) -> Result<(), LioError> {
        let value = if protect { "1" } else { "0" };
        for tag in self.tags_of(at.target)? {
            let path = self.mapped_dir(at, tag).join("write_protect");
            if self.find(&path)?.is_some() {
                self.ensure_attribute(&path, value)?;
            }
        }
        Ok(())
    }

    /// Takes the LUN from the initiator and returns when nothing of it is in flight any more; absent is fine. May block for as long
    /// as the disk below does.
    pub(in crate::linux_san) fn remove_lun(&self, at: &MappedLun<'_>) -> Result<(), LioError> {
        let tags = self.tags_of(at.target)?;
        let mapped = tags.iter().map(|tag| self.mapped_dir(at, *tag));
        let luns = tags.iter().map(|tag| self.lun_dir(at, *tag));
        for dir in mapped.chain(luns) {
            self.remove_link(&dir.join(LINK))?;
            self.remove_directory(&dir)?;
        }
        Ok(())
    }
}
