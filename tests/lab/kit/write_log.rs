//! A disk whose writes are kept in their order (dm-log-writes), and what it held after any of them: what a power cut at that moment would have left. The form of the log is
//! that of the kernel's `Documentation/admin-guide/device-mapper/log-writes.rst`.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::case::Lab;

const NAME: &str = "logged";
const SECTOR: u64 = 512;
/// mkfs.xfs wants 300 MiB at least.
const DATA: u64 = 400 << 20;
const LOG: u64 = 2 << 30;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// The disk while it is written to.
pub struct LoggedDisk {
    data: Loop,
    log: Loop,
}

/// A file as a disk.
pub struct Loop {
    pub file: PathBuf,
    pub device: String,
}

impl Loop {
    pub fn make(lab: &Lab, file: PathBuf, size: u64) -> Result<Self> {
        File::create(&file)?.set_len(size)?;
        Self::of(lab, file)
    }

    /// Of a file that is there.
    pub fn of(lab: &Lab, file: PathBuf) -> Result<Self> {
        let device = lab.execute(&["losetup", "-f", "--show", &file.to_string_lossy()])?;
        let device = device.trim().to_owned();
        Ok(Loop { file, device })
    }

    /// The file stays.
    pub fn end(self, lab: &Lab) -> Result<PathBuf> {
        lab.execute(&["losetup", "-d", &self.device])?;
        Ok(self.file)
    }
}

impl LoggedDisk {
    pub fn make(lab: &Lab) -> Result<Self> {
        lab.execute(&["modprobe", "-a", "loop", "dm-log-writes"])?;
        let file = |name: &str| lab.pool_folder().join(name);
        let disk = LoggedDisk {
            data: Loop::make(lab, file("data"), DATA)?,
            log: Loop::make(lab, file("log"), LOG)?,
        };
        let sectors = DATA / SECTOR;
        let (data, log) = (&disk.data.device, &disk.log.device);
        let table = format!("0 {sectors} log-writes {data} {log}");
        lab.execute(&["dmsetup", "create", NAME, "--table", &table])?;
        Ok(disk)
    }

    pub fn device(&self) -> String {
        format!("/dev/mapper/{NAME}")
    }

    /// Notes in the log that this was done, in one word, after everything that is in it by now.
    pub fn mark(&self, lab: &Lab, what: &str) -> Result<()> {
        lab.execute(&["dmsetup", "message", NAME, "0", "mark", what])?;
        Ok(())
    }

    /// Takes the disk away and reads its log.
    pub fn end(self, lab: &Lab) -> Result<WriteLog> {
        lab.execute(&["dmsetup", "remove", "--retry", NAME])?;
        fs::remove_file(self.data.end(lab)?)?;
        WriteLog::read(self.log.end(lab)?)
    }
}

/// One thing that was done to the disk.
struct Entry {
    flags: u64,
    /// On the disk, in bytes.
    offset: u64,
    length: u64,
    /// Where its bytes are in the log.
    bytes_at: u64,
    mark: String,
}

/// All that was done to the disk, in its order.
pub struct WriteLog {
    file: File,
    path: PathBuf,
    entries: Vec<Entry>,
}

impl WriteLog {
    fn read(path: PathBuf) -> Result<Self> {
        let mut file = File::open(&path)?;
        let head = words::<3>(&mut file)?;
        ensure!(
            head[0] == MAGIC && head[1] == 1,
            "no log of version 1: {head:?}"
        );
        let mut size = [0; 4];
        file.read_exact(&mut size)?;
        let unit = u64::from(u32::from_le_bytes(size));
        let mut at = unit;
        let mut entries = Vec::new();
        for _ in 0..head[2] {
            file.seek(SeekFrom::Start(at))?;
            let [sector, sectors, flags, length] = words::<4>(&mut file)?;
            let mut mark = Vec::new();
            if flags & MARK != 0 {
                (&file).take(length).read_to_end(&mut mark)?;
            }
            let entry = Entry {
                flags,
                offset: sector * unit,
                length: sectors * unit,
                bytes_at: at + unit,
                mark: String::from_utf8(mark)?.trim_end_matches('\0').to_owned(),
            };
            at += unit;
            if flags & DISCARD == 0 {
                at += entry.length;
            }
            entries.push(entry);
        }
        Ok(WriteLog {
            file,
            path,
            entries,
        })
    }

    /// After how many entries the power may go so that everything before is on the disk.
    pub fn flushes(&self) -> Vec<usize> {
        let flushed = |entry: &Entry| entry.flags & (FLUSH | FUA) != 0;
        let entries = self.entries.iter().enumerate();
        entries
            .filter(|(_, entry)| flushed(entry))
            .map(|(at, _)| at + 1)
            .collect()
    }

    /// What was noted as done within the first `count` entries.
    pub fn marks(&self, count: usize) -> Vec<&str> {
        let marked = self.entries[..count].iter();
        let marked = marked.filter(|entry| entry.flags & MARK != 0);
        marked.map(|entry| entry.mark.as_str()).collect()
    }

    /// The disk as it was after the first `count` entries, as a file.
    pub fn replay(&self, count: usize, onto: &Path) -> Result<()> {
        let disk = File::create(onto)?;
        disk.set_len(DATA)?;
        for entry in &self.entries[..count] {
            let mut bytes = vec![0; usize::try_from(entry.length)?];
            if entry.flags & DISCARD == 0 {
                let read = self.file.read_exact_at(&mut bytes, entry.bytes_at);
                read.with_context(|| format!("reading {}", self.path.display()))?;
            }
            disk.write_all_at(&bytes, entry.offset)?;
        }
        Ok(())
    }
}

fn words<const N: usize>(from: &mut File) -> Result<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}
