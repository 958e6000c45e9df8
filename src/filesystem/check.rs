//! Repairing a file system before it is mounted, as far as that is safe without asking anybody.

use std::path::Path;
use std::time::Duration;

use super::Kind;
use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

/// A full check of a large ext4 takes its time; the call's own deadline passes meanwhile and a repetition is answered ABORTED.
const CHECK_TIME: Duration = Duration::from_secs(3600);

/// e2fsck(8): the exit code is a sum.
const LEFT_UNCORRECTED: i32 = 4;
const OPERATIONAL: i32 = 8;
const USAGE: i32 = 16;
const CANCELLED: i32 = 32;
const LIBRARY: i32 = 128;

/// Why a file system is not fit to be mounted.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The tool gave no result.
    #[error("{device} was not checked")]
    Run {
        /// Which.
        device: String,
        #[source]
        source: ExecError,
    },
    /// Damage that wants a person's decision.
    #[error(
        "the file system on {device} has damage that e2fsck does not repair by itself ({summary}); run e2fsck by hand"
    )]
    Damaged {
        /// Which.
        device: String,
        /// Exit code and words.
        summary: String,
    },
    /// The tool did not get through.
    #[error("e2fsck did not finish on {device} ({summary})")]
    Unfinished {
        /// Which.
        device: String,
        /// Exit code and words.
        summary: String,
    },
}

impl Faulted for CheckError {
    fn fault(&self) -> Fault {
        match self {
            Self::Damaged { .. } => Fault::Precondition,
            Self::Run { .. } | Self::Unfinished { .. } => Fault::MaybeDone,
        }
    }
}

/// Repairs the unmounted file system of `kind` on the block device at `path`. XFS and
/// btrfs repair themselves when they are mounted; nothing is run for them.
///
/// # Errors
/// See [`CheckError`].
pub fn repair(host: &Host, path: &Path, kind: Kind) -> Result<(), CheckError> {
    match kind {
        Kind::Xfs | Kind::Btrfs => Ok(()),
        Kind::Ext4 => repair_ext4(host, &path.display().to_string()),
    }
}

fn repair_ext4(host: &Host, device: &str) -> Result<(), CheckError> {
    let e2fsck = Command::new("e2fsck", &["-p", device], CHECK_TIME);
    let output = host.run(&e2fsck).map_err(|source| CheckError::Run {
        device: device.to_owned(),
        source,
    })?;
    let device = device.to_owned();
    match output.code.map(Verdict::of) {
        Some(Verdict::Fit) => Ok(()),
        Some(Verdict::Damaged) => Err(CheckError::Damaged {
            device,
            summary: output.summary(),
        }),
        Some(Verdict::Unfinished) | None => Err(CheckError::Unfinished {
            device,
            summary: output.summary(),
        }),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fit,
    Damaged,
    Unfinished,
}

impl Verdict {
    /// Corrections (1) and the advice to reboot (2), which is for root file systems, are fine.
    fn of(code: i32) -> Self {
        if code & (OPERATIONAL | USAGE | CANCELLED | LIBRARY) != 0 {
            Self::Unfinished
        } else if code & LEFT_UNCORRECTED != 0 {
            Self::Damaged
        } else {
            Self::Fit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_a_sum() {
        for code in [0, 1, 2, 3] {
            assert_eq!(Verdict::of(code), Verdict::Fit);
        }
        for code in [4, 5, 7] {
            assert_eq!(Verdict::of(code), Verdict::Damaged);
        }
        for code in [8, 12, 16, 32, 36, 128] {
            assert_eq!(Verdict::of(code), Verdict::Unfinished);
        }
    }
}
