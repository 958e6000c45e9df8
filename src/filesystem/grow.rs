//! Letting a mounted file system fill its device.
//!
//! Growing needs a mount for writing (XFS and btrfs know no other way, and ext4 would want a full check first). What is there already is read, not asked
//! of a tool, so a file system that fills its device costs no process.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::Kind;
use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

/// Adding groups is quick; on a large device over slow paths it may take minutes. The kernel goes on when the tool is killed.
const GROW_TIME: Duration = Duration::from_secs(900);
/// Where each kind keeps its superblock lies within one stretch of so many bytes …
const SUPERBLOCK: usize = 4096;
/// … which for btrfs begins here, and at the start for the others.
const BTRFS: u64 = 64 << 10;
/// ext4 and XFS leave a last stretch unused that is too short for a group of its own with its tables.
const TAIL: u64 = 8 << 20;

/// Why a file system does not fill its device.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The device or the mount could not be read.
    #[error("the size of the {kind} on {device} cannot be read")]
    Read {
        /// Which.
        kind: &'static str,
        /// Where.
        device: String,
        #[source]
        source: io::Error,
    },
    /// The device holds something else.
    #[error("{device} does not hold the {kind} that is mounted from it")]
    Other {
        /// Which should be there.
        kind: &'static str,
        /// Where.
        device: String,
    },
    /// The tool gave no result.
    #[error("the {kind} on {device} was not grown")]
    Run {
        /// Which.
        kind: &'static str,
        /// Where.
        device: String,
        #[source]
        source: ExecError,
    },
    /// The tool failed.
    #[error("{program} failed on {device} ({summary})")]
    Failed {
        /// Which.
        program: &'static str,
        /// Where.
        device: String,
        /// Its exit code and words.
        summary: String,
    },
    /// The tool was content, and nothing came of it.
    #[error("the {kind} on {device} has {size} bytes after it was grown, the device {wanted}")]
    NotGrown {
        /// Which.
        kind: &'static str,
        /// Where.
        device: String,
        /// What it has.
        size: u64,
        /// What it should have.
        wanted: u64,
    },
}

impl Faulted for GrowError {
    fn fault(&self) -> Fault {
        match self {
            Self::Other { .. } => Fault::Precondition,
            _ => Fault::MaybeDone,
        }
    }
}

/// A file system that is mounted for writing.
#[derive(Clone, Copy, Debug)]
pub struct Mounted<'m> {
    /// Which.
    pub kind: Kind,
    /// Its device node.
    pub device: &'m Path,
    /// Where it is mounted.
    pub target: &'m Path,
}

/// Lets the file system fill its device. Starts a process only when it does not. True when it did not before.
///
/// # Errors
/// See [`GrowError`].
pub fn grow(host: &Host, mounted: &Mounted<'_>) -> Result<bool, GrowError> {
    let (kind, device) = (mounted.kind.name(), mounted.device.display().to_string());
    let before = Sizes::read(host, mounted)?;
    if before.is_full() {
        return Ok(false);
    }
    let command = mounted.command();
    let program = command.program;
    let output = host.run(&command).map_err(|source| GrowError::Run {
        kind,
        device: device.clone(),
        source,
    })?;
    if !output.success() {
        return Err(GrowError::Failed {
            program,
            device,
            summary: output.summary(),
        });
    }
    let after = Sizes::read(host, mounted)?;
    if after.file_system.saturating_add(TAIL) < after.device {
        return Err(GrowError::NotGrown {
            kind,
            device,
            size: after.file_system,
            wanted: after.device,
        });
    }
    Ok(true)
}

impl Mounted<'_> {
    /// All do nothing, and say that all is well, when there is nothing to do.
    fn command(&self) -> Command {
        match self.kind {
            Kind::Ext4 => {
                let device = self.device.display().to_string();
                Command::new("resize2fs", &[&device], GROW_TIME)
            }
            Kind::Xfs => {
                let target = self.target.display().to_string();
                Command::new("xfs_growfs", &["-d", &target], GROW_TIME)
            }
            Kind::Btrfs => {
                let target = self.target.display().to_string();
                let words = ["filesystem", "resize", "max", &target];
                Command::new("btrfs", &words, GROW_TIME)
            }
        }
    }
}

#[derive(Debug)]
struct Sizes {
    device: u64,
    file_system: u64,
    block: u64,
}

impl Sizes {
    fn read(host: &Host, mounted: &Mounted<'_>) -> Result<Self, GrowError> {
        let kind = mounted.kind.name();
        let failed = |source| GrowError::Read {
            kind,
            device: mounted.device.display().to_string(),
            source,
        };
        let mut block = host.open_block(mounted.device).map_err(failed)?;
        let device = block.size().map_err(failed)?;
        let start = if mounted.kind == Kind::Btrfs {
            BTRFS
        } else {
            0
        };
        let bytes = block.read(start, SUPERBLOCK).map_err(failed)?;
        let found = Super::parse(mounted.kind, &bytes).ok_or_else(|| GrowError::Other {
            kind,
            device: mounted.device.display().to_string(),
        })?;
        let file_system = match mounted.kind {
            // Growing ends with the journal written out, so what the device has is what is.
            Kind::Ext4 => found.blocks.saturating_mul(found.block),
            // The superblock stays in memory for a while. The kernel counts all blocks but those of XFS's log, whose number never changes.
            Kind::Xfs | Kind::Btrfs => {
                let total = host.space(mounted.target).map_err(failed)?.total;
                total.saturating_add(found.log_blocks.saturating_mul(found.block))
            }
        };
        Ok(Self {
            device,
            file_system,
            block: found.block,
        })
    }

    fn is_full(&self) -> bool {
        self.file_system.saturating_add(self.block) > self.device
    }
}

/// The parts of a superblock that tell a size (kernel documentation `filesystems/ext4/super.rst`; XFS algorithms and data structures, §13; btrfs on-disk format).
#[derive(Debug, PartialEq, Eq)]
struct Super {
    block: u64,
    blocks: u64,
    /// XFS: of the log, where that is part of the device.
    log_blocks: u64,
}

impl Super {
    fn parse(kind: Kind, bytes: &[u8]) -> Option<Self> {
        match kind {
            Kind::Ext4 => Self::parse_ext4(bytes.get(1024..)?),
            Kind::Xfs => Self::parse_xfs(bytes),
            Kind::Btrfs => Self::parse_btrfs(bytes),
        }
    }

    fn parse_ext4(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.get(0x38..0x3a)? != [0x53, 0xef] {
            return None;
        }
        let is_64_bit = word(0x60)? & 0x80 != 0;
        let high = if is_64_bit { word(0x150)? } else { 0 };
        Some(Self {
            block: 1024_u64
                .checked_shl(word(0x18)?)
                .filter(|size| *size <= 1 << 16)?,
            blocks: u64::from(high) << 32 | u64::from(word(0x04)?),
            log_blocks: 0,
        })
    }

    fn parse_btrfs(bytes: &[u8]) -> Option<Self> {
        if bytes.get(0x40..0x48)? != b"_BHRfS_M" {
            return None;
        }
        let sector = u32::from_le_bytes(bytes.get(0x90..0x94)?.try_into().ok()?);
        let total = u64::from_le_bytes(bytes.get(0x70..0x78)?.try_into().ok()?);
        Some(Self {
            block: sector.into(),
            blocks: total.checked_div(sector.into())?,
            log_blocks: 0,
        })
    }

    fn parse_xfs(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        if !bytes.starts_with(b"XFSB") {
            return None;
        }
        let is_internal = long(48)? != 0;
        Some(Self {
            block: word(4).map(u64::from).filter(|size| *size != 0)?,
            blocks: long(8)?,
            log_blocks: if is_internal { word(96)?.into() } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn superblocks_are_read() {
        let mut ext4 = vec![0; SUPERBLOCK];
        ext4[0x404..0x408].copy_from_slice(&7_u32.to_le_bytes());
        ext4[0x418] = 2;
        ext4[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        ext4[0x550] = 1;
        let found = Super::parse(Kind::Ext4, &ext4).unwrap();
        assert_eq!((found.block, found.blocks), (4096, 7));
        ext4[0x460] = 0x80;
        let found = Super::parse(Kind::Ext4, &ext4).unwrap();
        assert_eq!(found.blocks, (1 << 32) + 7);
        assert_eq!(Super::parse(Kind::Xfs, &ext4), None);
        let mut xfs = vec![0; SUPERBLOCK];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[4..8].copy_from_slice(&4096_u32.to_be_bytes());
        xfs[8..16].copy_from_slice(&9_u64.to_be_bytes());
        xfs[99] = 3;
        let found = Super::parse(Kind::Xfs, &xfs).unwrap();
        assert_eq!((found.blocks, found.log_blocks), (9, 0));
        xfs[55] = 1;
        assert_eq!(Super::parse(Kind::Xfs, &xfs).unwrap().log_blocks, 3);
    }

    #[test]
    fn a_last_stretch_shorter_than_a_block_is_no_room() {
        let sizes = |file_system| Sizes {
            device: 10 * 4096 + 512,
            file_system,
            block: 4096,
        };
        assert!(sizes(10 * 4096).is_full() && !sizes(9 * 4096).is_full());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let mut xfs = b"XFSB".to_vec();
            xfs.extend(&bytes);
            for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
                let _ = Super::parse(kind, &bytes);
                let _ = Super::parse(kind, &xfs);
            }
        }
    }
}
