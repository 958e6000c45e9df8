//! What a device holds. Looks only.
//!
//! Two witnesses: our own reading, which alone can say "blank", and blkid, which alone can name what is there. blkid's exit code 2
//! means "nothing recognised" and "could not be read" alike, so it never proves blankness (R-FMT-1).

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::fault::{Fault, Faulted};
use crate::host::{Block, Command, ExecError, Host};

/// File systems, partition tables and volume managers leave their first marks here …
const HEAD: u64 = 4 << 20;
/// … and their backups here.
const TAIL: u64 = 1 << 20;
/// Between them lie copies of superblocks, which are left when both ends are lost: the first of ext4 with blocks of 1, 2 and 4 KiB, and two of btrfs.
const COPIES: [u64; 5] = [8 << 20, 32 << 20, 128 << 20, 64 << 20, 256 << 30];
/// mkfs.xfs divides a device of less than 4 TiB into as many groups, each with a superblock at its start.
const XFS_GROUPS: u64 = 4;
/// What one read can be a multiple of.
const ALIGNMENT: u64 = 4096;
/// blkid reads some hundred KiB.
const BLKID_TIME: Duration = Duration::from_secs(30);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Every byte read is zero, and no tool knows a thing there.
    Blank,
    /// A file system or a volume manager's label, as blkid names it.
    Holds(String),
    /// A partition table, as blkid names it.
    PartitionTable(String),
    /// The marks of several things.
    Ambivalent,
    /// Bytes that are not zero and that nobody knows.
    Unknown,
}

impl std::fmt::Display for Content {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blank => out.write_str("nothing"),
            Self::Holds(kind) => out.write_str(kind),
            Self::PartitionTable(kind) => write!(out, "a {kind} partition table"),
            Self::Ambivalent => out.write_str("the marks of several file systems"),
            Self::Unknown => out.write_str("data of an unknown kind"),
        }
    }
}

/// Why it is not known what a device holds. None of these ever means "blank".
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Reading failed or ended early.
    #[error("{device} cannot be read at byte {offset}")]
    Read {
        /// Which.
        device: String,
        /// Where.
        offset: u64,
        #[source]
        source: io::Error,
    },
    /// Opening it or asking its size failed.
    #[error("{device} cannot be opened for reading")]
    Open {
        /// Which.
        device: String,
        #[source]
        source: io::Error,
    },
    /// blkid gave no result.
    #[error("what {device} holds is not known")]
    Blkid {
        /// Which.
        device: String,
        #[source]
        source: ExecError,
    },
    /// blkid failed.
    #[error("blkid could not tell what {device} holds ({summary})")]
    BlkidSaid {
        /// Which.
        device: String,
        /// Its exit code and words.
        summary: String,
    },
}

impl Faulted for ProbeError {
    fn fault(&self) -> Fault {
        match self {
            Self::Blkid { .. } => Fault::MaybeDone,
            Self::Read { .. } | Self::Open { .. } | Self::BlkidSaid { .. } => Fault::Precondition,
        }
    }
}

/// Looks what the block device at `path` holds. Starts one process.
///
/// # Errors
/// See [`ProbeError`].
pub fn probe(host: &Host, path: &Path) -> Result<Content, ProbeError> {
    let all_zero = reads_as_zero(host, path)?;
    let recognised = ask_blkid(host, path)?;
    Ok(match recognised {
        Some(content) => content,
        None if all_zero => Content::Blank,
        None => Content::Unknown,
    })
}

fn reads_as_zero(host: &Host, path: &Path) -> Result<bool, ProbeError> {
    let device = || path.display().to_string();
    let open = |source| ProbeError::Open {
        device: device(),
        source,
    };
    let mut block = host.open_block(path).map_err(open)?;
    let size = block.size().map_err(open)?;
    let mut look = |offset, length| {
        is_zero(&mut *block, offset, length).map_err(|source| ProbeError::Read {
            device: device(),
            offset,
            source,
        })
    };
    let mut zero = true;
    for (offset, length) in stretches(size) {
        zero &= look(offset, length)?;
    }
    for offset in copies(size) {
        // What is known to hold something need not be read further.
        zero = zero && look(offset, ALIGNMENT)?;
    }
    Ok(zero)
}

/// The first 4 MiB and the last 1 MiB, which may be one.
fn stretches(size: u64) -> Vec<(u64, u64)> {
    let end = size / ALIGNMENT * ALIGNMENT;
    let head = end.min(HEAD);
    let tail = end.saturating_sub(TAIL).max(head);
    [(0, head), (tail, end - tail)]
        .into_iter()
        .filter(|(_, length)| *length > 0)
        .collect()
}

/// Where single pages between the two may hold the copy of a superblock.
fn copies(size: u64) -> Vec<u64> {
    let pages = size / ALIGNMENT;
    let group = pages.div_ceil(XFS_GROUPS) * ALIGNMENT;
    let of_xfs = (1..XFS_GROUPS).map(|number| number * group);
    let fits = |offset: &u64| *offset >= HEAD && offset.saturating_add(ALIGNMENT) <= size;
    COPIES.into_iter().chain(of_xfs).filter(fits).collect()
}

const ZEROS: [u8; 4096] = [0; 4096];

fn is_zero(block: &mut dyn Block, offset: u64, length: u64) -> io::Result<bool> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let bytes = block.read(offset, length)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Chunk by chunk: a plain byte loop over 5 MiB took an eighth of the fake-host tests.
    Ok(bytes
        .chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()]))
}

/// What blkid recognises by reading the device itself, never its cache.
fn ask_blkid(host: &Host, path: &Path) -> Result<Option<Content>, ProbeError> {
    let device = path.display().to_string();
    let blkid = Command::new("blkid", &["-p", "-o", "export", &device], BLKID_TIME);
    let output = host.run(&blkid).map_err(|source| ProbeError::Blkid {
        device: device.clone(),
        source,
    })?;
    match output.code {
        Some(0) => Ok(Some(parse_export(&output.stdout))),
        Some(2) => Ok(None),
        Some(8) => Ok(Some(Content::Ambivalent)),
        _ => Err(ProbeError::BlkidSaid {
            device,
            summary: output.summary(),
        }),
    }
}

impl Content {
    /// Reads blkid's `KEY=VALUE` lines (`-o export`).
    #[must_use]
    pub fn of_blkid(text: &str) -> Self {
        parse_export(text)
    }
}

fn parse_export(text: &str) -> Content {
    let value = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value.to_owned())
    };
    match (value("TYPE"), value("PTTYPE")) {
        (Some(kind), _) => Content::Holds(kind),
        (None, Some(table)) => Content::PartitionTable(table),
        (None, None) => Content::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blkid_is_understood() {
        // util-linux 2.41.
        let ext4 = "DEVNAME=/dev/dm-3\nUUID=1\nBLOCK_SIZE=4096\nTYPE=ext4\nUSAGE=filesystem\n";
        assert_eq!(parse_export(ext4), Content::Holds("ext4".into()));
        let gpt = "DEVNAME=/dev/dm-3\nPTUUID=1\nPTTYPE=gpt\n";
        assert_eq!(parse_export(gpt), Content::PartitionTable("gpt".into()));
        assert_eq!(parse_export("DEVNAME=/dev/dm-3\n"), Content::Unknown);
        assert_eq!(parse_export(""), Content::Unknown);
    }

    #[test]
    fn head_and_tail_are_read_once() {
        let mib = 1 << 20;
        assert_eq!(stretches(0), []);
        assert_eq!(stretches(4 * mib), [(0, 4 * mib)]);
        assert_eq!(stretches(9 * mib), [(0, 4 * mib), (8 * mib, mib)]);
        assert_eq!(stretches(4 * mib + 8192), [(0, 4 * mib), (4 * mib, 8192)]);
    }

    #[test]
    fn copies_of_superblocks_are_looked_at() {
        let mib = 1 << 20;
        assert!(copies(4 * mib).is_empty());
        assert_eq!(copies(64 * mib), [8, 32, 16, 32, 48].map(|at| at * mib));
        // 8193 KiB: the second superblock of an ext4 with blocks of 1 KiB.
        assert!(copies(9 * mib).contains(&(8 * mib)));
    }

    proptest! {
        #[test]
        fn only_words_of_blkid_name_a_content(text in "(?s)((TYPE|PTTYPE|UUID|LABEL)=[a-z0-9]{0,8}\n|.){0,12}") {
            match parse_export(&text) {
                Content::Holds(word) => {
                    let line = format!("TYPE={word}");
                    prop_assert!(text.contains(&line));
                }
                Content::PartitionTable(word) => {
                    let line = format!("PTTYPE={word}");
                    prop_assert!(text.contains(&line));
                }
                _ => prop_assert!(!text.lines().any(|line| line.starts_with("TYPE="))),
            }
        }

        #[test]
        fn copies_lie_in_the_device(size in 0_u64..1 << 50) {
            for offset in copies(size) {
                prop_assert!(offset % ALIGNMENT == 0 && offset + ALIGNMENT <= size);
            }
        }

        #[test]
        fn stretches_lie_in_the_device_and_reach_both_ends(size in 0_u64..1 << 50) {
            let found = stretches(size);
            let end = found.last().map_or(0, |(offset, length)| offset + length);
            prop_assert!(end <= size && size - end < ALIGNMENT);
            for (offset, length) in found {
                prop_assert_eq!((offset % ALIGNMENT, length % ALIGNMENT), (0, 0));
            }
        }
    }
}
