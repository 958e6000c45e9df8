//! LUNs: a backstore in a target under a number, and the same number in the initiator's access list.
//!
//! Taking one away goes the other way round and in this order: once the mapped LUN is gone nothing new comes in, and unlinking the
//! target's LUN returns when everything in flight has landed (seen on a real kernel: the first alone lets a late write through).

use std::path::{Path, PathBuf};

use super::{Lio, LioError};
use crate::fabric::{Iqn, Lun};

/// What a link in a LUN's directory is called.
const LINK: &str = "volume";

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
    fn lun_dir(&self, at: &MappedLun<'_>) -> PathBuf {
        self.group_dir(at.target).join(Self::slot_tail(at))
    }

    fn slot_tail(at: &MappedLun<'_>) -> PathBuf {
        Path::new("lun").join(format!("lun_{}", at.slot))
    }

    fn mapped_dir(&self, at: &MappedLun<'_>) -> PathBuf {
        self.entry_dir(at.target, at.initiator)
            .join(format!("lun_{}", at.lun))
    }

    /// Shows the backstore to the initiator.
    pub(in crate::linux_san) fn ensure_lun(
        &self,
        at: &MappedLun<'_>,
        backstore: &str,
        read_only: bool,
    ) -> Result<(), LioError> {
        let dir = self.lun_dir(at);
        self.ensure_directory(&dir)?;
        self.ensure_link(&self.backstore_tail(backstore), &dir.join(LINK))?;
        let mapped = self.mapped_dir(at);
        self.ensure_directory(&mapped)?;
        let tail = Self::group_tail(at.target).join(Self::slot_tail(at));
        self.ensure_link(&tail, &mapped.join(LINK))?;
        let protect = if read_only { "1" } else { "0" };
        self.ensure_attribute(&mapped.join("write_protect"), protect)
    }

    /// Whether the initiator is shown this backstore.
    pub(in crate::linux_san) fn serves_lun(
        &self,
        at: &MappedLun<'_>,
        backstore: &str,
    ) -> Result<bool, LioError> {
        let lun = Self::group_tail(at.target).join(Self::slot_tail(at));
        Ok(self.leads_to(
            &self.lun_dir(at).join(LINK),
            &self.backstore_tail(backstore),
        )? && self.leads_to(&self.mapped_dir(at).join(LINK), &lun)?)
    }

    /// Takes the LUN from the initiator and returns when nothing of it is in flight any more; absent is fine. May block for as long
    /// as the disk below does.
    pub(in crate::linux_san) fn remove_lun(&self, at: &MappedLun<'_>) -> Result<(), LioError> {
        for dir in [self.mapped_dir(at), self.lun_dir(at)] {
            self.remove_link(&dir.join(LINK))?;
            self.remove_directory(&dir)?;
        }
        Ok(())
    }
}
