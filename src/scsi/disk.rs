//! The sdX of this machine, read from sysfs, and the scan that makes them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fabric::{Lun, Wwid};
use crate::host::Host;

const BLOCK: &str = "/sys/block";
const UDEV_DATA: &str = "/run/udev/data";
/// There while udevd has events before it (systemd-udevd(8) makes it with the first and removes it with the last).
const UDEV_QUEUE: &str = "/run/udev/queue";
/// sysfs gives sizes in these, whatever the device's own block is.
const SECTOR: u64 = 512;

/// Host, channel, target and LUN of a SCSI device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hctl {
    /// The SCSI host; one for each software iSCSI session.
    pub host: u32,
    /// The channel; 0 for software iSCSI.
    pub channel: u32,
    /// The target; 0 for software iSCSI.
    pub target: u32,
    /// The LUN as the kernel numbers it.
    pub lun: u64,
}

/// Not four numbers with colons between them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a SCSI address H:C:T:L")]
pub struct HctlError(String);

impl FromStr for Hctl {
    type Err = HctlError;

    fn from_str(text: &str) -> Result<Self, HctlError> {
        let wrong = || HctlError(text.to_owned());
        let numbers: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
        let &[host, channel, target, lun] = &*numbers.ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let narrow = |number: u64| u32::try_from(number).map_err(|_| wrong());
        Ok(Self {
            host: narrow(host)?,
            channel: narrow(channel)?,
            target: narrow(target)?,
            lun,
        })
    }
}

impl fmt::Display for Hctl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            channel,
            target,
            lun,
        } = self;
        write!(out, "{host}:{channel}:{target}:{lun}")
    }
}

impl From<Hctl> for String {
    fn from(hctl: Hctl) -> Self {
        hctl.to_string()
    }
}

impl TryFrom<String> for Hctl {
    type Error = HctlError;

    fn try_from(text: String) -> Result<Self, HctlError> {
        text.parse()
    }
}

/// What the kernel's middle layer thinks of a device (`drivers/scsi/scsi_sysfs.c`, `sdev_states`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// In use.
    Running,
    /// Its session lost the connection; commands wait.
    Blocked,
    /// Given up: `offline` or `transport-offline`; commands fail at once.
    Offline,
    /// Being taken away.
    Going,
    /// Another word.
    Other(String),
}

impl DiskState {
    fn from_word(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "blocked" | "created-blocked" => Self::Blocked,
            "offline" | "transport-offline" => Self::Offline,
            "cancel" | "deleted" => Self::Going,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// One sdX.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Disk {
    /// `sdX`. Means another disk once this one is gone.
    pub name: String,
    /// Where it hangs.
    pub hctl: Hctl,
}

impl Disk {
    /// Its device node; devtmpfs makes it before anybody can see the disk in sysfs.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Whether it is the LUN `lun` of the session that has the SCSI host `scsi_host`.
    #[must_use]
    pub fn is_at(&self, scsi_host: u32, lun: Lun) -> bool {
        self.hctl.host == scsi_host && self.hctl.lun == u64::from(lun.0)
    }

    /// Whether this name still means this device.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn is_present(&self, host: &Host) -> io::Result<bool> {
        Ok(read_hctl(host, &self.name)? == Some(self.hctl))
    }

    /// This life of it, to be known again; ask before looking at what the disk is.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn life(&self, host: &Host) -> io::Result<DiskLife> {
        Ok(DiskLife {
            disk: self.clone(),
            sequence: host.find_attribute(&self.attribute("diskseq"))?,
        })
    }

    /// Its state, `None` when it is gone.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn state(&self, host: &Host) -> io::Result<Option<DiskState>> {
        let word = host.find_attribute(&self.attribute("device/state"))?;
        Ok(word.map(|word| DiskState::from_word(&word)))
    }

    /// Its size in bytes, `None` when it is gone.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn size(&self, host: &Host) -> io::Result<Option<u64>> {
        let sectors = host.find_attribute(&self.attribute("size"))?;
        Ok(sectors
            .and_then(|text| text.parse::<u64>().ok())
            .map(|sectors| sectors.saturating_mul(SECTOR)))
    }

    /// How many commands to it failed since it is there; `None` when it is gone or nobody counts.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn errors(&self, host: &Host) -> io::Result<Option<u64>> {
        let count = host.find_attribute(&self.attribute("device/ioerr_cnt"))?;
        let digits = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
        Ok(count.and_then(|text| digits(&text)))
    }

    /// Lets the kernel ask the target for the disk's size again. Blocks as long as the path does not answer; a target that does not answer leaves
    /// the old size, and nothing is said.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the disk is not running.
    pub fn rescan(&self, host: &Host) -> io::Result<()> {
        host.write_attribute(&self.attribute("device/rescan"), b"1")
    }

    /// The identity that the kernel noted when the disk appeared. Good for finding leftovers, never as proof: the target may have another
    /// volume under the LUN by now.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn noted_wwid(&self, host: &Host) -> io::Result<Option<Wwid>> {
        // A device without page 0x83 answers EINVAL; it is none of ours.
        let noted = match host.find_attribute(&self.attribute("device/wwid")) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
            noted => noted?,
        };
        Ok(noted.and_then(|text| wwid_of_note(&text)))
    }

    /// Whether udev has finished with it, so that its properties stand in udev's database.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn is_known_to_udev(&self, host: &Host) -> io::Result<bool> {
        let Some(number) = host.find_attribute(&self.attribute("dev"))? else {
            return Ok(false);
        };
        let note = Path::new(UDEV_DATA).join(format!("b{number}"));
        Ok(host.find_stat(&note)?.is_some())
    }

    /// The dm devices and others that are built on it, as `dm-3`.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn holders(&self, host: &Host) -> io::Result<Vec<String>> {
        let names = host.list(&self.attribute("holders"))?;
        Ok(names
            .into_iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    /// Its major and minor number as mountinfo writes them, `8:16`.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn number(&self, host: &Host) -> io::Result<Option<String>> {
        host.find_attribute(&self.attribute("dev"))
    }

    pub(super) fn attribute(&self, name: &str) -> PathBuf {
        Path::new(BLOCK).join(&self.name).join(name)
    }
}

/// One life of a disk. Its name and its address come again with the next disk under the same LUN; the kernel's number of it never does
/// (`diskseq`, Linux 5.15, Documentation/ABI/testing/sysfs-block). An older kernel tells none, and then name and address are all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLife {
    /// The disk by name and address.
    pub disk: Disk,
    sequence: Option<String>,
}

impl DiskLife {
    /// Whether it goes on: another disk of this name and address is not it.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn goes_on(&self, host: &Host) -> io::Result<bool> {
        Ok(self.disk.is_present(host)? && self.disk.life(host)? == *self)
    }

    /// What the steps of its removal are called by.
    #[must_use]
    pub fn label(&self) -> String {
        let Disk { name, hctl } = &self.disk;
        match &self.sequence {
            Some(sequence) => format!("{name} {hctl} (disk {sequence})"),
            None => format!("{name} {hctl}"),
        }
    }
}

pub(super) fn wwid_of_note(note: &str) -> Option<Wwid> {
    format!("3{}", note.strip_prefix("naa.")?).parse().ok()
}

/// All sdX, by name. One that vanishes while it is read is left out.
///
/// # Errors
/// When sysfs cannot be read.
pub fn list_disks(host: &Host) -> io::Result<Vec<Disk>> {
    let mut disks = Vec::new();
    for name in host.list(Path::new(BLOCK))? {
        let Some(name) = name.to_str().filter(|name| name.starts_with("sd")) else {
            continue;
        };
        if let Some(hctl) = read_hctl(host, name)? {
            disks.push(Disk {
                name: name.to_owned(),
                hctl,
            });
        }
    }
    Ok(disks)
}

/// Whether udev's database can be seen from here.
///
/// # Errors
/// When `/run` cannot be read.
pub fn sees_udev(host: &Host) -> io::Result<bool> {
    Ok(host.find_stat(Path::new(UDEV_DATA))?.is_some())
}

/// Whether udev has events before it. Where it cannot be seen it seems to have none.
///
/// # Errors
/// When `/run` cannot be read.
pub fn is_udev_at_work(host: &Host) -> io::Result<bool> {
    Ok(host.find_stat(Path::new(UDEV_QUEUE))?.is_some())
}

/// The disk with this LUN under a SCSI host.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_disk(host: &Host, scsi_host: u32, lun: Lun) -> io::Result<Option<Disk>> {
    let mut disks = list_disks(host)?.into_iter();
    Ok(disks.find(|disk| disk.is_at(scsi_host, lun)))
}

fn read_hctl(host: &Host, name: &str) -> io::Result<Option<Hctl>> {
    match host.read_link(&Path::new(BLOCK).join(name).join("device")) {
        Ok(target) => Ok(target
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok())),
        Err(error) if crate::host::is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A scan could not be asked for.
#[derive(Debug, thiserror::Error)]
#[error("SCSI host {scsi_host} could not be scanned for LUN {lun}")]
pub struct ScanError {
    /// Which host.
    pub scsi_host: u32,
    /// Which LUN.
    pub lun: Lun,
    #[source]
    source: io::Error,
}

/// Asks the kernel to look for exactly this LUN. Does nothing when the device is there already, and nothing, silently, when the session is
/// not logged in.
///
/// # Errors
/// [`ScanError`], most often because the session is gone.
pub fn scan_lun(host: &Host, scsi_host: u32, lun: Lun) -> Result<(), ScanError> {
    let path = PathBuf::from(format!("/sys/class/scsi_host/host{scsi_host}/scan"));
    let order = format!("0 0 {lun}");
    host.write_attribute(&path, order.as_bytes())
        .map_err(|source| ScanError {
            scsi_host,
            lun,
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_four_numbers() {
        let hctl: Hctl = "3:0:0:16384".parse().unwrap();
        assert_eq!((hctl.host, hctl.lun), (3, 16384));
        assert_eq!(hctl.to_string(), "3:0:0:16384");
        for wrong in ["", "3:0:0", "3:0:0:1:2", "a:0:0:1", "5000000000:0:0:1"] {
            assert_eq!(wrong.parse::<Hctl>(), Err(HctlError(wrong.to_owned())));
        }
    }

    #[test]
    fn the_kernels_note_becomes_a_wwid() {
        let wwid = wwid_of_note("naa.60014050123456789abcdef012345678").unwrap();
        assert_eq!(wwid.as_str(), "360014050123456789abcdef012345678");
        assert_eq!(wwid_of_note("t10.ATA     QEMU HARDDISK"), None);
        assert_eq!(wwid_of_note(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in "[0-9:a-f-]{0,24}") {
            if let Ok(hctl) = text.parse::<Hctl>() {
                prop_assert_eq!(hctl.to_string().parse::<Hctl>(), Ok(hctl));
            }
        }
    }
}
