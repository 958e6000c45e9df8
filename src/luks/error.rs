//! Why something of LUKS was not done, one variant per failing step.

use std::io;

use crate::fault::{Fault, Faulted};
use crate::host::ExecError;

/// See the variants.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    /// The device could not be read.
    #[error("the LUKS header of {device} cannot be read")]
    Header {
        /// Which.
        device: String,
        #[source]
        source: io::Error,
    },
    /// sysfs could not be read.
    #[error("the mapping {name} cannot be looked at")]
    Look {
        /// Which.
        name: String,
        #[source]
        source: io::Error,
    },
    /// cryptsetup gave no result.
    #[error("cryptsetup gave no result on {on}")]
    Run {
        /// The device or the mapping.
        on: String,
        #[source]
        source: ExecError,
    },
    /// No passphrase that came with the call opens it.
    #[error(
        "{device} cannot be opened with {tried}; nothing was changed. See that the Secret of the volume's StorageClass holds its passphrase"
    )]
    WrongPassphrase {
        /// Which.
        device: String,
        /// The keys of the Secret that were tried.
        tried: &'static str,
    },
    /// cryptsetup failed.
    #[error("cryptsetup {action} failed on {on} ({summary})")]
    Failed {
        /// What it should do.
        action: &'static str,
        /// The device or the mapping.
        on: String,
        /// Its exit code and words.
        summary: String,
    },
    /// What was written did not reach the device.
    #[error("what was written to {device} could not be written out")]
    Flush {
        /// Which.
        device: String,
        #[source]
        source: io::Error,
    },
    /// A mapping is open still.
    #[error("the mapping {name} is in use ({summary}); whoever has it open must let it go first")]
    Busy {
        /// Which.
        name: String,
        /// cryptsetup's exit code and words.
        summary: String,
    },
    /// There is no mapping, although there should be.
    #[error("the mapping {0} is not there")]
    NotOpen(String),
    /// cryptsetup was content, and nothing came of it.
    #[error("the mapping {name} has {size} bytes after it was grown and should have {wanted}")]
    NotGrown {
        /// Which.
        name: String,
        /// What it has.
        size: u64,
        /// What it should have.
        wanted: u64,
    },
}

impl Faulted for LuksError {
    fn fault(&self) -> Fault {
        match self {
            Self::Header { .. } | Self::WrongPassphrase { .. } | Self::Busy { .. } => {
                Fault::Precondition
            }
            Self::Look { .. }
            | Self::Run { .. }
            | Self::Failed { .. }
            | Self::Flush { .. }
            | Self::NotOpen(_)
            | Self::NotGrown { .. } => Fault::MaybeDone,
        }
    }
}
