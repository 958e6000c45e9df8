//! Making and removing mounts, each repeatable.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::{Mount, MountError, MountOptions, MountTable};
use crate::host::{Host, MountCall};

/// More layers than this at one place are not the leftovers of any fault of ours.
const MAX_LAYERS: usize = 16;

/// A file system to mount.
#[derive(Clone, Debug)]
pub struct Mounting<'m> {
    /// The device node.
    pub device_path: &'m Path,
    /// Its major and minor number.
    pub device: (u64, u64),
    /// Where.
    pub target: &'m Path,
    /// The file system's name for the kernel.
    pub kind: &'static str,
    /// How.
    pub options: &'m MountOptions,
}

/// Makes a file system be mounted at a directory that exists.
///
/// # Errors
/// [`MountError::Taken`] when something else is mounted there; see [`MountError`].
pub fn ensure_mounted(host: &Host, wanted: &Mounting<'_>) -> Result<(), MountError> {
    let table = MountTable::read(host)?;
    if let Some(there) = table.find_top(wanted.target) {
        if there.device == wanted.device {
            return Ok(());
        }
        return Err(taken(there, wanted.device_path));
    }
    host.mount(&MountCall {
        source: wanted.device_path.to_owned(),
        target: wanted.target.to_owned(),
        kind: Some(wanted.kind),
        flags: wanted.options.flags,
        options: wanted.options.own.join(","),
    })
    .map_err(|source| MountError::Mount {
        what: wanted.device_path.to_owned(),
        target: wanted.target.to_owned(),
        source,
    })
}

/// A place to show at another one.
pub struct Bind<'b> {
    /// What is shown: a mount point or a device node.
    pub source: &'b Path,
    /// Where: a directory or an empty file that exists.
    pub target: &'b Path,
    /// Whether writes are refused there.
    pub read_only: bool,
    /// Tells whether a mount that is there already shows the source.
    pub is_source: &'b dyn Fn(&Mount) -> bool,
}

/// Makes `source` be seen at `target`. A bind of a crash ago that had not yet become read-only is finished.
///
/// # Errors
/// [`MountError::Taken`] when something else is mounted there, or the same in the other mode; see [`MountError`].
pub fn ensure_bound(host: &Host, wanted: &Bind<'_>) -> Result<(), MountError> {
    let table = MountTable::read(host)?;
    match table.find_top(wanted.target) {
        Some(there) if !(wanted.is_source)(there) => return Err(taken(there, wanted.source)),
        Some(there) if there.is_read_only() && !wanted.read_only => {
            return Err(taken(there, wanted.source));
        }
        Some(_) => {}
        None => bind(host, wanted, MsFlags::MS_BIND)?,
    }
    if wanted.read_only {
        ensure_read_only(host, wanted)?;
    }
    Ok(())
}

/// A bind takes its source's flags whatever it is told; only a remount of the bind can add one, and it drops those it does not repeat.
fn ensure_read_only(host: &Host, wanted: &Bind<'_>) -> Result<(), MountError> {
    let table = MountTable::read(host)?;
    let there = table
        .find_top(wanted.target)
        .ok_or_else(|| MountError::Mount {
            what: wanted.source.to_owned(),
            target: wanted.target.to_owned(),
            source: io::Error::other("the bind is gone again"),
        })?;
    if there.is_read_only() {
        return Ok(());
    }
    let kept = MountOptions::flags_of(&there.options);
    let flags = kept | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    bind(host, wanted, flags)
}

fn bind(host: &Host, wanted: &Bind<'_>, flags: MsFlags) -> Result<(), MountError> {
    host.mount(&MountCall {
        source: wanted.source.to_owned(),
        target: wanted.target.to_owned(),
        kind: None,
        flags,
        options: String::new(),
    })
    .map_err(|source| MountError::Mount {
        what: wanted.source.to_owned(),
        target: wanted.target.to_owned(),
        source,
    })
}

fn taken(there: &Mount, wanted: &Path) -> MountError {
    let mode = if there.is_read_only() { "ro" } else { "rw" };
    let (major, minor) = there.device;
    MountError::Taken {
        target: there.target.clone(),
        held: format!(
            "{} ({}, {major}:{minor}, {mode})",
            there.source.display(),
            there.kind
        ),
        wanted: wanted.display().to_string(),
    }
}

/// Unmounts every layer at `target`; nothing there is fine. Never lazily: what is busy is an error.
///
/// # Errors
/// See [`MountError`].
pub fn remove_mount(host: &Host, target: &Path) -> Result<(), MountError> {
    for _ in 0..MAX_LAYERS {
        if MountTable::read(host)?.find_top(target).is_none() {
            return Ok(());
        }
        match host.unmount(target) {
            Ok(()) => {}
            // Somebody else unmounted it between look and act.
            Err(error) if is_not_mounted(&error) => {}
            Err(source) => {
                return Err(MountError::Unmount {
                    target: target.to_owned(),
                    source,
                });
            }
        }
    }
    Err(MountError::Endless(PathBuf::from(target)))
}

fn is_not_mounted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EINVAL | Errno::ENOENT)
    )
}

/// Whether a failed look at a path says that the file system mounted there has died, not that the path is wrong.
#[must_use]
pub fn is_corrupted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EIO | Errno::ESTALE | Errno::ENOTCONN | Errno::ESHUTDOWN | Errno::EUCLEAN)
    )
}
