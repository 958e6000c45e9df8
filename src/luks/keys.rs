//! Opening a volume with the passphrases at hand, and changing the passphrase on the way.

use std::path::Path;

use super::tool::{NO_KEY, PBKDF, call, failed, open, run};
use super::{Identity, LuksError};
use crate::host::Host;

/// What opens a volume. Not to be shown, so it cannot be.
#[derive(Clone, Copy)]
pub struct Keys<'k> {
    /// The passphrase that opens it from now on.
    pub current: &'k [u8],
    /// The one that did so far, while it is being changed. Another one than the current one; neither holds a line break.
    pub old: Option<&'k [u8]>,
}

/// Makes the volume's mapping over the block device at `path`. With an old passphrase at hand this is where it is changed, before the mapping is made:
/// cut off anywhere, the next call goes on from there.
///
/// # Errors
/// See [`LuksError`].
pub fn unlock(
    host: &Host,
    path: &Path,
    identity: &Identity,
    keys: Keys<'_>,
    read_only: bool,
) -> Result<(), LuksError> {
    let opened = |key| open(host, path, identity, key, read_only);
    match keys.old {
        Some(old) if !read_only => change(host, path, old, keys.current)?,
        // Changing a passphrase writes; that waits for a stage that may.
        Some(old) if !opened(keys.current)? && opened(old)? => return Ok(()),
        _ => {}
    }
    if opened(keys.current)? {
        return Ok(());
    }
    Err(refused(path, "secrets.passphrase"))
}

/// Makes `new` the passphrase in place of `old`: the new one is added, then it must open the header, and only then the old one is removed. At every
/// moment one of the two opens it.
fn change(host: &Host, path: &Path, old: &[u8], new: &[u8]) -> Result<(), LuksError> {
    if !opens(host, path, new)? {
        if !add(host, path, old, new)? {
            let both = "secrets.passphrase or secrets.passphrase-old";
            return Err(refused(path, both));
        }
        if !opens(host, path, new)? {
            let summary = "the passphrase that was added does not open it; the old one stays";
            return Err(LuksError::Failed {
                action: "luksAddKey",
                on: path.display().to_string(),
                summary: summary.to_owned(),
            });
        }
        tracing::info!(device = %path.display(), "the passphrase was changed");
    }
    remove(host, path, old)
}

fn refused(path: &Path, tried: &'static str) -> LuksError {
    LuksError::WrongPassphrase {
        device: path.display().to_string(),
        tried,
    }
}

/// Whether `key` is a passphrase of the header on the device at `path`. Changes nothing.
fn opens(host: &Host, path: &Path, key: &[u8]) -> Result<bool, LuksError> {
    let device = path.display().to_string();
    let words = [
        "open",
        "--type=luks2",
        "--test-passphrase",
        "--key-file=-",
        &device,
    ];
    let output = run(host, &device, &call(&words, key.to_vec()))?;
    match output.code {
        Some(0) => Ok(true),
        Some(NO_KEY) => Ok(false),
        _ => Err(failed("open --test-passphrase", &device, &output)),
    }
}

/// Adds a passphrase. False when `old` is not one.
fn add(host: &Host, path: &Path, old: &[u8], new: &[u8]) -> Result<bool, LuksError> {
    let device = path.display().to_string();
    // Without a key file cryptsetup reads one passphrase from each line. Whether a passphrase is a good one is its owner's affair.
    let mut words = vec!["luksAddKey", "--batch-mode", "--force-password"];
    words.extend(PBKDF);
    words.push(&device);
    let input = [old, b"\n", new, b"\n"].concat();
    let output = run(host, &device, &call(&words, input))?;
    match output.code {
        Some(0) => Ok(true),
        Some(NO_KEY) => Ok(false),
        _ => Err(failed("luksAddKey", &device, &output)),
    }
}

/// Removes a passphrase. One that is not there is gone already. Must only be called while another one has just opened the header.
fn remove(host: &Host, path: &Path, old: &[u8]) -> Result<(), LuksError> {
    let device = path.display().to_string();
    let words = ["luksRemoveKey", "--batch-mode", "--key-file=-", &device];
    let output = run(host, &device, &call(&words, old.to_vec()))?;
    match output.code {
        Some(0 | NO_KEY) => Ok(()),
        _ => Err(failed("luksRemoveKey", &device, &output)),
    }
}
