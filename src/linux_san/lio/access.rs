//! What a disk tells hosts of each portal group (ALUA). A disk has groups of its own for it, named alike; each LUN is put into one.

use std::path::Path;

use super::{Lio, LioError};
use crate::linux_san::access::Access;

/// Hosts are told a group's state, and do not change it (`alua_access_type`, written and read back).
const IMPLICIT: (&str, &str) = ("1", "Implicit");
const PREFIX: &str = "sanpath-";

/// What disks call the group.
pub(super) fn group_name(tag: u16) -> String {
    format!("{PREFIX}{tag}")
}

impl Lio {
    /// Makes the group at a disk that is in the kernel, and lets it tell its state.
    pub(super) fn ensure_access(
        &self,
        disk: &Path,
        tag: u16,
        access: Access,
    ) -> Result<(), LioError> {
        let group = disk.join("alua").join(group_name(tag));
        self.ensure_directory(&group)?;
        self.ensure_attribute(&group.join("tg_pt_gp_id"), &tag.to_string())?;
        let kind = group.join("alua_access_type");
        if self.attribute(&kind)? != IMPLICIT.1 {
            self.write(&kind, IMPLICIT.0)?;
        }
        // The kernel would slow a group that is not optimized down by itself.
        self.ensure_attribute(&group.join("nonop_delay_msecs"), "0")?;
        self.ensure_attribute(&group.join("alua_access_state"), access.in_kernel())
    }

    /// Lets a group tell its state at one disk; nothing where the disk is not in the kernel.
    pub(in crate::linux_san) fn set_access(
        &self,
        backstore: &str,
        tag: u16,
        access: Access,
    ) -> Result<(), LioError> {
        let disk = self.root.join(self.backstore_tail(backstore));
        if self
            .find(&disk.join("alua").join(group_name(tag)))?
            .is_none()
        {
            return Ok(());
        }
        self.ensure_access(&disk, tag, access)
    }

    /// Removes our groups from a disk that no LUN shows.
    pub(super) fn remove_access(&self, disk: &Path) -> Result<(), LioError> {
        for group in self.list(&disk.join("alua"))? {
            let name = group.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(PREFIX)) {
                self.remove_directory(&group)?;
            }
        }
        Ok(())
    }
}
