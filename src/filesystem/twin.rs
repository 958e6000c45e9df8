//! Two btrfs with one id: a clone beside its source.
//!
//! btrfs finds the devices of a file system by the id in their superblocks. Before Linux 6.7, which gives a second one a passing id of its own
//! (`temp_fsid`), the kernel refuses a device that bears the id of a mounted one with "file exists", and nobody understands that.

use std::io;
use std::path::Path;

use crate::fault::{Fault, Faulted};
use crate::host::{Block, Host};

const MOUNTED: &str = "/sys/fs/btrfs";
const KERNEL_KNOWS_BETTER: &str = "/sys/fs/btrfs/features/temp_fsid";

/// On-disk format of btrfs: the first superblock, and where its id and its magic stand in it.
const SUPERBLOCK: u64 = 64 << 10;
const LENGTH: usize = 4096;
const ID: std::ops::Range<usize> = 0x20..0x30;
const MAGIC: std::ops::Range<usize> = 0x40..0x48;

/// Why a btrfs is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// Its source, or another clone, is mounted here.
    #[error(
        "the btrfs on {device} has the same id ({id}) as the one mounted from {others}, of which it is a clone; this kernel cannot mount both (Linux 6.7 can): use it on another node, or unstage the other volume first; nothing was written"
    )]
    Mounted {
        /// Which.
        device: String,
        /// The common id.
        id: String,
        /// The devices of the other.
        others: String,
    },
    /// Not to be known.
    #[error("whether the btrfs on {device} is mounted from elsewhere is not known")]
    Look {
        /// Which.
        device: String,
        #[source]
        source: io::Error,
    },
}

impl Faulted for TwinError {
    fn fault(&self) -> Fault {
        match self {
            Self::Mounted { .. } => Fault::Precondition,
            Self::Look { .. } => Fault::MaybeDone,
        }
    }
}

/// Refuses the btrfs on the device at `path`, which the kernel calls `name`, while another one with its id is mounted and the kernel cannot mount
/// both.
///
/// # Errors
/// See [`TwinError`].
pub fn refuse_twin(host: &Host, path: &Path, name: &str) -> Result<(), TwinError> {
    let device = || path.display().to_string();
    let look = |source| TwinError::Look {
        device: device(),
        source,
    };
    if host
        .find_stat(Path::new(KERNEL_KNOWS_BETTER))
        .map_err(look)?
        .is_some()
    {
        return Ok(());
    }
    let mut block = host.open_block(path).map_err(look)?;
    let id = read_id(&mut *block).map_err(look)?;
    let mounted = Path::new(MOUNTED).join(&id).join("devices");
    let others: Vec<String> = host
        .list(&mounted)
        .map_err(look)?
        .iter()
        .map(|other| other.to_string_lossy().into_owned())
        .filter(|other| other != name)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(TwinError::Mounted {
        device: device(),
        id,
        others: others.join(", "),
    })
}

/// The id as sysfs writes it.
fn read_id(block: &mut dyn Block) -> io::Result<String> {
    let bytes = block.read(SUPERBLOCK, LENGTH)?;
    if bytes.get(MAGIC) != Some(b"_BHRfS_M") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "no btrfs superblock",
        ));
    }
    let digits: String = bytes[ID].iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    Ok(parts.join("-"))
}
