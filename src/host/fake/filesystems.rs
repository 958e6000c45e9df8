//! What stands on a disk: superblocks at their real places, and what a probe makes of the first bytes.

use std::io;

use super::san::Disk;

/// The parts of a superblock that tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Super {
    pub(super) kind: &'static str,
    pub(super) size: u64,
    pub(super) uuid: [u8; 16],
}

const EXT4: u64 = 1024;
const BTRFS: u64 = 0x1_0000;
const BLOCK: u64 = 4096;

impl Super {
    /// The file system on a disk, if it has one that the kernel would mount.
    pub(super) fn read(disk: &Disk) -> io::Result<Option<Self>> {
        let start = disk.read(0, 8192)?;
        let uuid_at = |bytes: &[u8], at: usize| -> [u8; 16] {
            bytes[at..at + 16].try_into().expect("16 bytes")
        };
        if start.starts_with(b"XFSB") {
            let blocks = u64::from_be_bytes(start[8..16].try_into().expect("8 bytes"));
            return Ok(Some(Self {
                kind: "xfs",
                size: blocks * BLOCK,
                uuid: uuid_at(&start, 32),
            }));
        }
        if start[0x438..0x43a] == [0x53, 0xef] {
            let blocks = u32::from_le_bytes(start[0x404..0x408].try_into().expect("4 bytes"));
            return Ok(Some(Self {
                kind: "ext4",
                size: u64::from(blocks) * BLOCK,
                uuid: uuid_at(&start, 0x468),
            }));
        }
        if disk.size < BTRFS + BLOCK {
            return Ok(None);
        }
        let block = disk.read(BTRFS, 4096)?;
        if block[0x40..0x48] != *b"_BHRfS_M" {
            return Ok(None);
        }
        Ok(Some(Self {
            kind: "btrfs",
            size: u64::from_le_bytes(block[0x70..0x78].try_into().expect("8 bytes")),
            uuid: uuid_at(&block, 0x20),
        }))
    }

    pub(super) fn write(&self, disk: &mut Disk) {
        let blocks = self.size / BLOCK;
        match self.kind {
            "xfs" => {
                let mut block = vec![0; 512];
                block[..4].copy_from_slice(b"XFSB");
                block[4..8].copy_from_slice(&4096_u32.to_be_bytes());
                block[8..16].copy_from_slice(&blocks.to_be_bytes());
                block[32..48].copy_from_slice(&self.uuid);
                disk.write(0, &block);
            }
            "btrfs" => {
                let mut block = vec![0; 4096];
                block[0x20..0x30].copy_from_slice(&self.uuid);
                block[0x40..0x48].copy_from_slice(b"_BHRfS_M");
                block[0x70..0x78].copy_from_slice(&self.size.to_le_bytes());
                block[0x90..0x94].copy_from_slice(&4096_u32.to_le_bytes());
                disk.write(BTRFS, &block);
            }
            _ => {
                let count = u32::try_from(blocks).unwrap_or(u32::MAX);
                let mut block = vec![0; 1024];
                block[0x04..0x08].copy_from_slice(&count.to_le_bytes());
                block[0x18..0x1c].copy_from_slice(&2_u32.to_le_bytes());
                block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
                block[0x3a..0x3c].copy_from_slice(&1_u16.to_le_bytes());
                block[0x68..0x78].copy_from_slice(&self.uuid);
                disk.write(EXT4, &block);
            }
        }
    }
}

/// What `blkid -p` says of a disk: `TYPE` or `PTTYPE` with its value; several are ambivalent.
pub(super) fn probe(disk: &Disk) -> io::Result<Vec<(&'static str, &'static str)>> {
    let start = disk.read(0, 8192)?;
    let mut found = Vec::new();
    if let Some(known) = Super::read(disk)? {
        found.push(("TYPE", known.kind));
    }
    for (offset, magic, kind) in [
        (0, &b"LUKS\xba\xbe"[..], "crypto_LUKS"),
        (512, &b"LABELONE"[..], "LVM2_member"),
        (4086, &b"SWAPSPACE2"[..], "swap"),
    ] {
        if start[offset..].starts_with(magic) {
            found.push(("TYPE", kind));
        }
    }
    if start[512..].starts_with(b"EFI PART") {
        found.push(("PTTYPE", "gpt"));
    } else if start[510..512] == [0x55, 0xaa] {
        found.push(("PTTYPE", "dos"));
    }
    Ok(found)
}
