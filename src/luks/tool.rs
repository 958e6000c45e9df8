//! cryptsetup(8): making a header, opening, closing and growing a mapping.

use std::path::Path;
use std::time::Duration;

use super::mapping::{find_mapping, size_of};
use super::{Identity, LuksError, PAYLOAD};
use crate::host::{Command, Host, Output};

/// One passphrase takes a tenth of a second on a machine of today. A node that is short of everything may take hundreds of times as long.
const TIME: Duration = Duration::from_secs(300);

/// What makes guessing dear: Argon2id over 64 MiB in four passes (RFC 9106's choice for small machines, §4, asks for three; cryptsetup takes four at
/// least). Left to itself cryptsetup takes up to 1 GiB and measures how long that takes here: thirty pods that start at once would take a node's
/// whole memory, and what a large node measured could keep a small one busy for longer than a stage may last.
pub(super) const PBKDF: [&str; 4] = [
    "--pbkdf=argon2id",
    "--pbkdf-memory=65536",
    "--pbkdf-parallel=1",
    "--pbkdf-force-iterations=4",
];

/// udev opens a device for a moment after its last writer has closed it, and cryptsetup refuses then at once; so long one is not taken for busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// cryptsetup(8), "RETURN CODES".
pub(super) const NO_KEY: i32 = 2;
const BUSY: i32 = 5;

/// libdevmapper would wait until the host's udev has told that it is done, by a semaphore that a process in a container does not share with
/// the host: it would wait for ever. The device node that we use, `/dev/dm-3`, is the kernel's own and there at once.
const ENVIRONMENT: &[(&str, &str)] = &[("DM_DISABLE_UDEV", "1")];

/// A call of cryptsetup that reads `input`.
pub(super) fn call(words: &[&str], input: Vec<u8>) -> Command {
    Command {
        input,
        environment: ENVIRONMENT,
        ..Command::new("cryptsetup", words, TIME)
    }
}

pub(super) fn run(host: &Host, on: &str, command: &Command) -> Result<Output, LuksError> {
    host.run(command).map_err(|source| LuksError::Run {
        on: on.to_owned(),
        source,
    })
}

pub(super) fn failed(action: &'static str, on: &str, output: &Output) -> LuksError {
    LuksError::Failed {
        action,
        on: on.to_owned(),
        summary: output.summary(),
    }
}

/// Makes a LUKS2 header on the block device at `path` and has it written out: all that was there is lost. The device must be known to be blank, or
/// to hold what an interrupted run of this very function left.
///
/// # Errors
/// See [`LuksError`]; something may have been written.
pub fn format(host: &Host, path: &Path, identity: &Identity, key: &[u8]) -> Result<(), LuksError> {
    let device = path.display().to_string();
    let uuid = format!("--uuid={}", identity.uuid());
    let offset = format!("--offset={}", PAYLOAD / 512);
    let mut words = vec!["luksFormat", "--type=luks2", "--batch-mode", "--key-file=-"];
    // Debian's own choice, named so that all headers are alike wherever they are made.
    words.extend(["--cipher=aes-xts-plain64", "--key-size=512"]);
    words.extend(PBKDF);
    words.extend([uuid.as_str(), offset.as_str(), device.as_str()]);
    let output = run(host, &device, &call(&words, key.to_vec()))?;
    if !output.success() {
        return Err(failed("luksFormat", &device, &output));
    }
    host.flush_block(path)
        .map_err(|source| LuksError::Flush { device, source })
}

/// Opens the header on the device at `path`. False when `key` is not one of its passphrases.
pub(super) fn open(
    host: &Host,
    path: &Path,
    identity: &Identity,
    key: &[u8],
    read_only: bool,
) -> Result<bool, LuksError> {
    let device = path.display().to_string();
    // The volume key stays in the mapping's table, which root alone may read, and not in the kernel's keyring: so the mapping can grow without
    // the passphrase, which NodeExpandVolume does not bring (its field for secrets is alpha, and orchestrators leave it empty).
    let mut words = vec!["open", "--type=luks2", "--key-file=-", "--disable-keyring"];
    // A thin SAN gets back what the file system frees. It learns which blocks are in use, which it knows anyhow.
    words.push("--allow-discards");
    if read_only {
        words.push("--readonly");
    }
    words.extend([device.as_str(), identity.name()]);
    let output = run(host, &device, &call(&words, key.to_vec()))?;
    match output.code {
        Some(0) => Ok(true),
        Some(NO_KEY) => Ok(false),
        _ => Err(failed("open", &device, &output)),
    }
}

/// Closes the volume's mapping; absent is fine. What stays in use is refused.
///
/// # Errors
/// See [`LuksError`].
pub fn close(host: &Host, identity: &Identity) -> Result<(), LuksError> {
    let name = identity.name();
    let until = host.deadline_in(BUSY_PATIENCE);
    let mut pause = FIRST_PAUSE;
    let is_gone = || Ok(find_mapping(host, identity)?.is_none());
    while !is_gone()? {
        let output = run(host, name, &call(&["close", name], Vec::new()))?;
        // Its absence is the proof, whatever is said.
        if is_gone()? {
            break;
        }
        match output.code {
            Some(0 | BUSY) if !host.is_past(until) => host.wait_for_event(pause),
            Some(BUSY) => {
                return Err(LuksError::Busy {
                    name: name.to_owned(),
                    summary: output.summary(),
                });
            }
            _ => return Err(failed("close", name, &output)),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// Lets the volume's mapping fill its device. Starts a process only when it does not. True when it did not before.
///
/// # Errors
/// See [`LuksError`].
pub fn grow(host: &Host, identity: &Identity) -> Result<bool, LuksError> {
    let (size, wanted) = sizes(host, identity)?;
    if is_full(size, wanted) {
        return Ok(false);
    }
    let name = identity.name();
    let output = run(host, name, &call(&["resize", name], Vec::new()))?;
    if !output.success() {
        return Err(failed("resize", name, &output));
    }
    let (size, wanted) = sizes(host, identity)?;
    if is_full(size, wanted) {
        return Ok(true);
    }
    Err(LuksError::NotGrown {
        name: name.to_owned(),
        size,
        wanted,
    })
}

/// The encrypted sectors may be of 4 KiB; a last stretch that is shorter is left over.
fn is_full(size: u64, wanted: u64) -> bool {
    size.saturating_add(4096) > wanted
}

/// What the mapping has, and what its device has room for.
fn sizes(host: &Host, identity: &Identity) -> Result<(u64, u64), LuksError> {
    let name = identity.name();
    let absent = || LuksError::NotOpen(name.to_owned());
    let mapping = find_mapping(host, identity)?.ok_or_else(absent)?;
    let under = mapping.under.first().ok_or_else(absent)?;
    let room = size_of(host, under).map_err(|source| LuksError::Look {
        name: name.to_owned(),
        source,
    })?;
    Ok((mapping.size, room.saturating_sub(PAYLOAD)))
}
