//! SCSI disks of this machine: exact scans, the sdX that came of them, their identity by fresh INQUIRY, their removal.
//!
//! `attach` calls it. A disk is named by sdX only between two looks; what it *is* comes from the target's own answer (`identity`), never from a
//! name. It knows nothing of sessions or maps: its caller says which SCSI host to scan.

mod disk;
mod identity;
mod nascent;
mod removal;

pub use disk::{
    Disk, DiskLife, DiskState, Hctl, ScanError, find_disk, is_udev_at_work, list_disks, scan_lun,
    sees_udev,
};
pub use identity::{Designator, Identity, IdentityError, parse_serial, read_identity};
pub use nascent::remove_nascent;
pub use removal::{RemoveDiskError, remove_disk};
