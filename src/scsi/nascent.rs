//! SCSI devices of a scan a moment ago, whose block device has not come up yet: nobody sees them among the disks, and they become disks.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::wwid_of_note;
use crate::deadline::Deadline;
use crate::fabric::Wwid;
use crate::host::{Host, is_gone};

const DEVICES: &str = "/sys/class/scsi_device";

/// Deletes the SCSI devices that carry `wwid` by the kernel's note and have no block device yet. A blocked one is waited for, as deleting it
/// would hang.
///
/// # Errors
/// When sysfs cannot be read or the kernel refuses; `TimedOut` when one is blocked past `deadline`.
pub fn remove_nascent(host: &Host, wwid: &Wwid, deadline: Deadline) -> io::Result<()> {
    let removed = host.wait_for(deadline, || {
        let mut blocked = false;
        for device in find_nascent(host, wwid)? {
            match host.find_attribute(&device.join("state"))?.as_deref() {
                Some("blocked" | "created-blocked") => blocked = true,
                _ => delete(host, &device)?,
            }
        }
        Ok::<_, io::Error>((!blocked).then_some(()))
    })?;
    removed.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn find_nascent(host: &Host, wwid: &Wwid) -> io::Result<Vec<PathBuf>> {
    let mut nascent = Vec::new();
    for hctl in host.list(Path::new(DEVICES))? {
        let device = Path::new(DEVICES).join(hctl).join("device");
        // What is on its way out answers in many ways.
        let note = host.find_attribute(&device.join("wwid")).ok().flatten();
        let noted = note.and_then(|note| wwid_of_note(&note));
        if noted.as_ref() == Some(wwid) && host.list(&device.join("block"))?.is_empty() {
            nascent.push(device);
        }
    }
    Ok(nascent)
}

fn delete(host: &Host, device: &Path) -> io::Result<()> {
    match host.write_attribute(&device.join("delete"), b"1") {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}
