//! A file system whose writes come late to its disk (dm-delay): what is acknowledged too early, or fenced too early, is seen.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::case::Lab;

const NAME: &str = "slow";
/// Of 512 bytes. mkfs.xfs wants 300 MiB at least.
const SECTORS: u64 = (512 << 20) / 512;

/// XFS on a delayed disk, mounted.
pub struct SlowDisk {
    pub mount: PathBuf,
    loop_device: String,
    file: PathBuf,
}

impl SlowDisk {
    /// Makes and mounts it in the folders of the case; not slow yet.
    pub fn make(lab: &Lab) -> Result<SlowDisk> {
        lab.execute(&["modprobe", "-a", "loop", "dm-delay"])?;
        let file = lab.pool_folder().join("slow.disk");
        fs::File::create(&file)?.set_len(SECTORS * 512)?;
        let loop_device = lab.execute(&["losetup", "-f", "--show", &file.to_string_lossy()])?;
        let disk = SlowDisk {
            mount: lab.work_folder().join("slow"),
            loop_device: loop_device.trim().to_owned(),
            file,
        };
        lab.execute(&["dmsetup", "create", NAME, "--table", &disk.table(0)])?;
        let device = format!("/dev/mapper/{NAME}");
        lab.execute(&["mkfs.xfs", "-q", "-K", "-m", "reflink=1", &device])?;
        fs::create_dir_all(&disk.mount)?;
        lab.execute(&["mount", &device, &disk.mount.to_string_lossy()])?;
        Ok(disk)
    }

    /// Reads and flushes are never delayed.
    fn table(&self, milliseconds: u64) -> String {
        let device = &self.loop_device;
        format!("0 {SECTORS} delay {device} 0 0 {device} 0 {milliseconds} {device} 0 0")
    }

    /// From now on a write reaches the disk so much later. What is under way or dirty lands first.
    pub fn delay_writes(&self, lab: &Lab, milliseconds: u64) -> Result<()> {
        lab.execute(&["dmsetup", "suspend", NAME])?;
        lab.execute(&[
            "dmsetup",
            "reload",
            NAME,
            "--table",
            &self.table(milliseconds),
        ])?;
        lab.execute(&["dmsetup", "resume", NAME])?;
        Ok(())
    }

    /// Writes that have not reached the disk: those that wait, by dm-delay's own count, and those that have waited, by the kernel's.
    pub fn writes_in_flight(&self, lab: &Lab) -> Result<u64> {
        let status = lab.execute(&["dmsetup", "status", NAME])?;
        let waiting = status.split_whitespace().nth(4);
        let waiting: u64 = waiting.context("no count of writes")?.parse()?;
        let device = fs::canonicalize(Path::new("/dev/mapper").join(NAME))?;
        let dm = device.file_name().context("a device has a name")?;
        let counts = Path::new("/sys/block").join(dm).join("inflight");
        let counts = fs::read_to_string(counts)?;
        let writes = counts.split_whitespace().nth(1);
        let writes: u64 = writes.context("no count of writes")?.parse()?;
        Ok(waiting + writes)
    }

    /// Takes it away with all that is on it.
    pub fn remove(self, lab: &Lab) -> Result<()> {
        lab.execute(&["umount", &self.mount.to_string_lossy()])?;
        lab.execute(&["dmsetup", "remove", "--retry", NAME])?;
        lab.execute(&["losetup", "-d", &self.loop_device])?;
        Ok(fs::remove_file(&self.file)?)
    }
}
