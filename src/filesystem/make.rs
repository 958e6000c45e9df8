//! Making a file system.

use std::path::Path;
use std::time::Duration;

use super::Kind;
use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

/// A file system on a slow thin LUN of many TiB takes minutes, not more. The tool is killed at the end of it.
const MAKE_TIME: Duration = Duration::from_secs(900);

/// Whether the tool's own look at what is there is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The tool refuses a device that holds something (mkfs.xfs and mkfs.btrfs do; mkfs.ext4 looks only when it talks to a terminal).
    On,
    /// It overwrites. Only for what an earlier, interrupted run of ours left on a device that was blank before it.
    Off,
}

/// Why there is no new file system. The device may be partly written.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The tool gave no result.
    #[error("no {kind} was made on {device}")]
    Run {
        /// Which.
        kind: &'static str,
        /// Where.
        device: String,
        #[source]
        source: ExecError,
    },
    /// The tool failed.
    #[error("mkfs.{kind} failed on {device} ({summary})")]
    Failed {
        /// Which.
        kind: &'static str,
        /// Where.
        device: String,
        /// Its exit code and words.
        summary: String,
    },
    /// What it wrote did not reach the device.
    #[error("the new {kind} on {device} could not be written out")]
    Flush {
        /// Which.
        kind: &'static str,
        /// Where.
        device: String,
        #[source]
        source: std::io::Error,
    },
}

impl Faulted for MakeError {
    fn fault(&self) -> Fault {
        // Whatever happened, something may have been written, and the next call goes on from there.
        Fault::MaybeDone
    }
}

/// The file system to make.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p> {
    /// Which.
    pub kind: Kind,
    /// See there.
    pub protection: Protection,
    /// An option of the tool's, its value, the next option, its value: what an operator wants beside or instead of our own.
    pub options: &'p [String],
}

/// Makes a file system on the block device at `path` and has it written out. The device must be known to be blank, or to hold what an
/// interrupted run of this very function left.
///
/// # Errors
/// See [`MakeError`].
pub fn make(host: &Host, path: &Path, plan: &Plan<'_>) -> Result<(), MakeError> {
    let device = path.display().to_string();
    let kind = plan.kind.name();
    let output = host
        .run(&command(&device, plan))
        .map_err(|source| MakeError::Run {
            kind,
            device: device.clone(),
            source,
        })?;
    if !output.success() {
        return Err(MakeError::Failed {
            kind,
            device,
            summary: output.summary(),
        });
    }
    host.flush_block(path).map_err(|source| MakeError::Flush {
        kind,
        device,
        source,
    })
}

/// No discard: a new thin volume has nothing to give back, and asking costs minutes on a large one. Tables of ext4 are written in the
/// background after the mount.
const EXT4_EXTENDED: &str = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";

fn command(device: &str, plan: &Plan<'_>) -> Command {
    let (program, own): (_, &[&str]) = match plan.kind {
        // No blocks kept for root: nobody works as root on a volume.
        Kind::Ext4 => ("mkfs.ext4", &["-q", "-m", "0", "-E"]),
        Kind::Xfs => ("mkfs.xfs", &["-q", "-K"]),
        Kind::Btrfs => ("mkfs.btrfs", &["-q", "-K"]),
    };
    let mut arguments: Vec<String> = own.iter().map(|&word| word.to_owned()).collect();
    let mut wanted: Vec<&[String]> = plan.options.chunks(2).collect();
    if plan.kind == Kind::Ext4 {
        // mke2fs heeds the last -E alone, and in it the last word for each key. Of -m too it heeds the last.
        let extended = wanted.extract_if(.., |pair| pair[0] == "-E");
        let values: Vec<&str> = extended.map(|pair| pair[1].as_str()).collect();
        arguments.push([&[EXT4_EXTENDED], values.as_slice()].concat().join(","));
    }
    arguments.extend(wanted.concat());
    match (plan.kind, plan.protection) {
        (Kind::Xfs | Kind::Btrfs, Protection::Off) => arguments.push("-f".to_owned()),
        // mkfs.ext4 looks at what is there only when it talks to a terminal, which it never does here.
        (Kind::Ext4, _) | (Kind::Xfs | Kind::Btrfs, Protection::On) => {}
    }
    arguments.push(device.to_owned());
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Command::new(program, &words, MAKE_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: Kind, protection: Protection, options: &str) -> Vec<String> {
        let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
        let plan = Plan {
            kind,
            protection,
            options: &options,
        };
        command("/dev/dm-3", &plan).arguments
    }

    #[test]
    fn protection_is_given_up_only_when_asked() {
        let forced = |kind, protection| {
            let words = words(kind, protection, "");
            assert_eq!(words.last().unwrap(), "/dev/dm-3");
            words.iter().any(|word| word == "-f" || word == "-F")
        };
        for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
            assert!(!forced(kind, Protection::On), "{kind:?}");
            let knows_force = kind != Kind::Ext4;
            assert_eq!(forced(kind, Protection::Off), knows_force, "{kind:?}");
        }
    }

    #[test]
    fn an_operators_options_come_after_ours_and_before_the_device() {
        let ext4 = words(
            Kind::Ext4,
            Protection::On,
            "-E stride=4 -i 8192 -E lazy_itable_init=0",
        );
        let expected = "-q -m 0 -E nodiscard,lazy_itable_init=1,lazy_journal_init=1,stride=4,lazy_itable_init=0 -i 8192 /dev/dm-3";
        assert_eq!(ext4.join(" "), expected);
        let xfs = words(Kind::Xfs, Protection::Off, "-m reflink=0");
        assert_eq!(xfs.join(" "), "-q -K -m reflink=0 -f /dev/dm-3");
    }
}
