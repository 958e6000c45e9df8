//! A disk that cannot go since something has just been built on it.
//!
//! multipathd works by udev's words, and those may be late: the map that was taken away a moment ago is made again, or, when the disk's name was another volume's until
//! just now, a map of that other WWID is put on it. None of that was asked for, and it gives way.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::Engine;
use super::error::DetachError;
use crate::deadline::Deadline;
use crate::fabric::Wwid;
use crate::multipath;
use crate::scsi::{DiskLife, RemoveDiskError};

/// multipathd takes a path out within its own 4 s for getting its lock; what has not let go by then does not mean to.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Whether `error` says no more than that disks were held, and they are not any longer: by nothing, or by the volume's own map, which goes like the one before.
    pub(super) fn is_let_go(
        &self,
        wwid: &Wwid,
        disks: &[DiskLife],
        error: &DetachError,
        deadline: Deadline,
    ) -> Result<bool, DetachError> {
        let DetachError::Disk { source, .. } = error else {
            return Ok(false);
        };
        if !matches!(&**source, RemoveDiskError::Held { .. }) {
            return Ok(false);
        }
        tracing::info!(%wwid, reason = crate::fault::chain(error), "something was built on a disk that goes");
        let until = deadline.at_most(self.host.now(), PATIENCE);
        let mut told = BTreeSet::new();
        let free = self.host.wait_for(until, || {
            let held = self.disks_held_by_others(wwid, disks)?;
            for disk in &held {
                if told.insert(disk.clone()) {
                    self.have_dropped(disk);
                }
            }
            Ok(held.is_empty().then_some(()))
        });
        free.map(|free| free.is_some()).map_err(DetachError::Read)
    }

    /// Those of the disks on which something else than the volume's own map is built.
    fn disks_held_by_others(&self, wwid: &Wwid, disks: &[DiskLife]) -> io::Result<Vec<String>> {
        let own = multipath::find_map(&self.host, wwid)?.map(|map| map.dm);
        let mut held = Vec::new();
        for life in disks {
            if !life.goes_on(&self.host)? {
                continue;
            }
            let holders = life.disk.holders(&self.host)?;
            if holders.iter().any(|holder| Some(holder) != own.as_ref()) {
                held.push(life.disk.name.clone());
            }
        }
        Ok(held)
    }

    /// The path is about to go, so whatever map of multipath's holds it is to do without it. By the kernel's word the disk is this volume's: another volume's map loses nothing.
    pub(super) fn have_dropped(&self, disk: &str) {
        match multipath::del_path(&self.host, disk) {
            Ok(reply) => tracing::info!(disk, %reply, "multipathd was told that the path goes"),
            Err(error) => {
                let error = crate::fault::chain(&error);
                tracing::info!(
                    disk,
                    error,
                    "multipathd could not be told that the path goes"
                );
            }
        }
    }
}
