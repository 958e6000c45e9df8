//! Taking a disk away from the kernel.

use std::io;
use std::path::Path;

use super::{Disk, DiskLife, DiskState};
use crate::deadline::Deadline;
use crate::fault::{Fault, Faulted};
use crate::host::{Host, is_gone};

/// Why a disk is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveDiskError {
    /// sysfs cannot be read.
    #[error("the state of {disk} could not be read")]
    Read {
        /// Which.
        disk: String,
        #[source]
        source: io::Error,
    },
    /// Something is built on it.
    #[error("{disk} is held by {}", holders.join(", "))]
    Held {
        /// Which.
        disk: String,
        /// By what: `dm-3 (mpath-…)`, with the dm uuid as far as it can be read.
        holders: Vec<String>,
    },
    /// Its session hangs; deleting it now would hang as well.
    #[error("{disk} is blocked: its session has lost the connection")]
    Blocked {
        /// Which.
        disk: String,
    },
    /// The kernel refused.
    #[error("{disk} could not be deleted")]
    Delete {
        /// Which.
        disk: String,
        #[source]
        source: io::Error,
    },
    /// It is deleted and does not go.
    #[error("{disk} was deleted and is still there")]
    Stays {
        /// Which.
        disk: String,
    },
}

impl Faulted for RemoveDiskError {
    fn fault(&self) -> Fault {
        match self {
            Self::Held { .. } => Fault::Precondition,
            _ => Fault::MaybeDone,
        }
    }
}

/// Deletes a disk and waits until it is gone. A blocked one is waited for: the kernel's recovery time ends that state one way or the other. One
/// whose name and address mean another device by now is gone.
///
/// # Errors
/// See [`RemoveDiskError`].
pub fn remove_disk(
    host: &Host,
    life: &DiskLife,
    deadline: Deadline,
) -> Result<(), RemoveDiskError> {
    let disk = &life.disk;
    let read = |source| RemoveDiskError::Read {
        disk: disk.name.clone(),
        source,
    };
    let name = || disk.name.clone();
    let deletable = host.wait_for(deadline, || match state_of(host, life)? {
        Some(DiskState::Blocked) => Ok(None),
        state => Ok(Some(state)),
    });
    let Some(state) = deletable.map_err(read)? else {
        return Err(RemoveDiskError::Blocked { disk: name() });
    };
    match state {
        None => return Ok(()),
        Some(DiskState::Going) => {}
        Some(_) => delete(host, disk)?,
    }
    let gone = || Ok((!life.goes_on(host)?).then_some(()));
    host.wait_for(deadline, gone)
        .map_err(read)?
        .ok_or_else(|| RemoveDiskError::Stays { disk: name() })
}

fn state_of(host: &Host, life: &DiskLife) -> io::Result<Option<DiskState>> {
    if life.goes_on(host)? {
        life.disk.state(host)
    } else {
        Ok(None)
    }
}

fn delete(host: &Host, disk: &Disk) -> Result<(), RemoveDiskError> {
    let name = || disk.name.clone();
    let read = |source| RemoveDiskError::Read {
        disk: name(),
        source,
    };
    let holders = disk.holders(host).map_err(read)?;
    if !holders.is_empty() {
        let holders = holders.iter().map(|holder| described(host, holder));
        return Err(RemoveDiskError::Held {
            disk: name(),
            holders: holders.collect(),
        });
    }
    match host.write_attribute(&disk.attribute("device/delete"), b"1") {
        Err(error) if is_gone(&error) => Ok(()),
        deleted => deleted.map_err(|source| RemoveDiskError::Delete {
            disk: name(),
            source,
        }),
    }
}

fn described(host: &Host, holder: &str) -> String {
    let uuid = Path::new("/sys/block").join(holder).join("dm/uuid");
    match host.find_attribute(&uuid) {
        Ok(Some(uuid)) => format!("{holder} ({uuid})"),
        _ => holder.to_owned(),
    }
}
